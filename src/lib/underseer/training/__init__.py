"""Fine-tuning: classifiers, language models, and preference pairs."""
