"""The base models of the testbed: small GPT-1 and GPT-2 architectures pre-trained on the world's text.

Those that read the same shelf share a tokenizer. A larger model also reads more text, so it has met more of the rare verbs, and met them more
often: what it knows beyond the smaller model is what weak-to-strong generalisation can elicit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from underseer.errors import UserError, nearest
from underseer.testbed import corpus, turns

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = 2500  # entries of the tokenizer
TOKENIZER_TEXTS = 30_000  # texts it is trained on
CONTEXT = 128  # longest input in tokens; the prompts of the tasks have at most about 48
VALIDATION_TEXTS = 500
VALIDATION_SEED = 1_000_003  # a sample of the corpus that no model is trained on


@dataclass(frozen=True)
class BaseModelSpec:
    """A base model: its architecture and how much it reads."""

    family: str  # gpt1 | gpt2
    n_layer: int
    n_embd: int
    n_head: int
    n_texts: int  # texts of the pre-training corpus
    batch_size: int  # blocks of ``block`` tokens per step
    learning_rate: float
    epochs: int = 1  # times that each text is read
    block: int = 64  # tokens
    shelf: str = "town"  # of corpus.SHELVES: what it reads
    context: int = CONTEXT  # longest input in tokens
    eval_steps: int = 200  # steps between two looks at the validation texts
    initializer_range: float = 0.08  # of the order of 1 / sqrt(n_embd); the usual 0.02 is for widths near 1000
    activation: str = "relu"  # GELU, GPT's own, takes a seventh of a training step on a CPU


BASE_MODELS: dict[str, BaseModelSpec] = {
    "gpt2-xs": BaseModelSpec("gpt2", 2, 64, 2, 18_000, 8, 4e-3),
    "gpt2-s": BaseModelSpec("gpt2", 3, 80, 2, 40_000, 16, 5e-3),
    "gpt2-m": BaseModelSpec("gpt2", 6, 160, 5, 100_000, 16, 3e-3),
    "gpt1-xs-wide": BaseModelSpec("gpt1", 2, 64, 2, 20_000, 8, 4e-3, shelf="wide"),
    "gpt2-xs-wide": BaseModelSpec("gpt2", 2, 64, 2, 20_000, 8, 4e-3, shelf="wide"),
    "gpt2-s-wide": BaseModelSpec("gpt2", 3, 80, 2, 45_000, 16, 5e-3, shelf="wide"),
    "gpt2-test-chat": BaseModelSpec(
        "gpt2", 1, 32, 2, 1_500, 8, 4e-3, shelf="chat", context=192, eval_steps=20
    ),  # for tests
    "gpt2-s-chat": BaseModelSpec("gpt2", 4, 96, 4, 45_000, 16, 4e-3, shelf="chat", context=192, activation="gelu_new"),
}


def spec_of(name: str) -> BaseModelSpec:
    """The specification of a base model by name. Raises UserError for an unknown name."""
    if name not in BASE_MODELS:
        raise UserError(
            f"testbed model {name!r} does not exist{nearest(name, BASE_MODELS)}; choose one of {', '.join(BASE_MODELS)}"
        )
    return BASE_MODELS[name]


@cache
def train_tokenizer(
    vocab_size: int = VOCABULARY, n_texts: int = TOKENIZER_TEXTS, shelf: str = "town"
) -> PreTrainedTokenizerBase:
    """The tokenizer that the base models of a shelf share: byte-level BPE trained on ``n_texts`` of its texts."""
    from underseer.models import loading

    special = turns.TOKENS if shelf == "chat" else ()
    tokenizer = loading.train_tokenizer(
        corpus.texts(n_texts, shelf=shelf), vocab_size=vocab_size, max_length=CONTEXT, special=special
    )
    if special:
        tokenizer.chat_template = turns.TEMPLATE
    return tokenizer


def build(spec: BaseModelSpec, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """An untrained language model of the given shape for the tokenizer, without dropout; weights from torch's generator."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from underseer.models.loading import with_fused_gelu

    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    family, activation = {"gpt1": ("openai-gpt", "afn"), "gpt2": ("gpt2", "activation_function")}[spec.family]
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        n_positions=spec.context,
        n_embd=spec.n_embd,
        n_layer=spec.n_layer,
        n_head=spec.n_head,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=spec.initializer_range,
        **{activation: spec.activation},
        **no_dropout,
    )
    return with_fused_gelu(AutoModelForCausalLM.from_config(config))


def pretrain(
    name: str,
    *,
    seed: int = 0,
    checkpoint_dir: Path | None = None,
    n_texts: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, pd.DataFrame, int]:
    """Pre-train a base model on the world's text, one pass over the corpus.

    Returns the model, the tokenizer, the training curves (step, metric, value) and the number of tokens trained on.
    ``n_texts`` reads less than the specification says (for tests). A call with a ``checkpoint_dir`` that holds a checkpoint
    goes on from it. Raises UserError for an unknown name.
    """
    import torch

    from underseer.training.finetune import TrainSettings, fit_language_model

    spec = spec_of(name)
    tokenizer = train_tokenizer(shelf=spec.shelf)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(spec, tokenizer)
    settings = TrainSettings(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        warmup_ratio=0.05,
        eval_steps=spec.eval_steps,
        patience=0,
        max_length=spec.block,
        seed=seed,
        device=device,
        progress=progress,
    )
    texts = corpus.texts(n_texts or spec.n_texts, seed, spec.shelf)
    validation = corpus.texts(VALIDATION_TEXTS, VALIDATION_SEED, spec.shelf)
    result = fit_language_model(model, tokenizer, texts, validation, settings, checkpoint_dir=checkpoint_dir)
    return result.model, tokenizer, result.curves, result.tokens_trained
