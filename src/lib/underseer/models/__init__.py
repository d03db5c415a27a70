"""Models and tokenizers: what a specification names, how it is loaded, chat templates, adapters, batches of tokens."""
