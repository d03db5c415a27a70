"""Supervised fine-tuning of classifiers and language models on the Hugging Face Trainer.

What is done beyond the Trainer's defaults: rows are tokenised once, grouped by length and padded per batch; bf16
autocast where the hardware has it natively and the model is wide enough to gain; the best state by validation is kept
in memory and restored at the end; resumable checkpoints are written at most once a minute. Training twice with one
seed gives the same weights on a CPU, interrupted or not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError, nearest
from underseer.models.loading import max_positions, resolve_device

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger
    from underseer.models.adapters import LoraSettings
    from underseer.models.batches import TokenRows

WEIGHTED = ("hard_ce", "soft_ce")  # losses that are sums over rows, so that rows can weigh differently
CPU_ROWS = 32  # rows in a forward pass without gradients on a CPU: more do not fit its cache (measured: 128 take a fifth longer)
BF16_WIDTH = 128  # narrowest hidden size for which bf16 autocast is faster on a CPU with AVX512_BF16 (measured)


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Steps are optimiser steps; ``max_length`` is in tokens."""

    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 0
    warmup_ratio: float = 0.0  # fraction of all steps; used where warmup_steps is 0
    scheduler: str = "linear"
    eval_steps: int = 100  # steps between two looks at the validation split; the last step is looked at too
    patience: int = 3  # looks without a lower validation loss before training stops; 0 = never stop early
    max_length: int = 512
    gradient_accumulation: int = 1  # batches of batch_size rows per optimiser step
    precision: str = "auto"  # auto | fp32 | bf16
    seed: int = 0  # order of rows, dropout
    device: str = "auto"
    progress: bool = True


@dataclass(frozen=True)
class FitResult:
    """A trained model (best state, eval mode) and how it got there."""

    model: PreTrainedModel
    curves: pd.DataFrame  # step, metric (train_loss, learning_rate, validation_loss, validation_accuracy), value
    tokens_trained: int  # real tokens passed through forward and backward, padding not counted
    best_step: int  # step of the restored state; the last step without validation rows
    seconds: float


def fit_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_df: pd.DataFrame,
    validation_df: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    loss: str = "hard_ce",
    checkpoint_dir: Path | str | None = None,
) -> FitResult:
    """Fine-tune a two-class sequence classifier; the state with the lowest validation loss is restored.

    Frames have ``text`` (and optionally ``text_pair``) and the target: ``label`` (0 or 1), ``p`` (probability of class
    1), or both; then ``hard_ce`` learns from ``label`` and every other loss from ``p``. ``loss`` names one of
    ``w2s.losses.LOSSES``. Validation loss is the plain cross-entropy with the same target, whatever the training loss,
    so that values at different moments compare. A column ``weight`` (>= 0) makes means over rows, in each optimiser
    step and in validation, weighted ones, ``sum(w * loss) / sum(w)``; rows of weight 0 are left out. With
    ``checkpoint_dir``, an interrupted call continues from the last checkpoint there and ends in the same weights.
    Raises UserError for an unknown loss, a missing column, an empty frame, targets outside [0, 1], weights below 0 or
    a loss that cannot be weighted.
    """
    from underseer.maths.losses import LOSSES, ON_LABELS
    from underseer.training.objectives import classifier_metrics, row_losses
    from underseer.training.rows import classifier_rows

    if loss not in LOSSES:
        raise UserError(f"loss {loss!r} is unknown; allowed are {', '.join(LOSSES)}{nearest(loss, LOSSES)}")
    if model.config.num_labels != 2:
        raise UserError(f"fit_classifier trains two classes; the model has {model.config.num_labels} labels")
    prefer = "label" if loss in ON_LABELS else "p"
    rows = [
        None if df is None else classifier_rows(tokenizer, df, name, prefer=prefer, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    if rows[0].weights is not None and loss not in WEIGHTED:
        raise UserError(f"loss {loss!r} takes no weights; drop column 'weight' or use {' or '.join(WEIGHTED)}")

    def loss_sum(
        logits: torch.Tensor, labels: torch.Tensor, progress: float, weight: torch.Tensor | None
    ) -> torch.Tensor:
        if weight is None:
            return LOSSES[loss](logits, labels, progress) * len(labels)
        targets = (labels >= 0.5).to(logits.dtype) if loss == "hard_ce" else labels
        return (weight * row_losses(logits, targets)).sum()

    return _fit(model, rows, settings, loss_sum, classifier_metrics, checkpoint_dir)


def fit_language_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    validation_texts: Sequence[str] | None,
    settings: TrainSettings,
    *,
    checkpoint_dir: Path | str | None = None,
    pack: bool = True,
) -> FitResult:
    """Train a causal language model on texts; mean loss per token in nats.

    With ``pack`` the texts, each closed by the end token, are joined and cut into blocks of ``max_length`` tokens: no
    padding. Without, each text is a row of its own, closed by the end token. Checkpoints and best state as in
    ``fit_classifier``.
    """
    from underseer.training.objectives import language_metrics, token_loss_sum
    from underseer.training.rows import language_rows

    rows = [
        None if part is None else language_rows(tokenizer, part, name, pack=pack, **_size(model, settings))
        for name, part in (("training", texts), ("validation", validation_texts))
    ]
    return _fit(model, rows, settings, token_loss_sum, language_metrics, checkpoint_dir)


def fit_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_df: pd.DataFrame,
    validation_df: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    checkpoint_dir: Path | str | None = None,
) -> FitResult:
    """Train a causal language model to continue prompts; the state with the lowest validation loss is restored.

    Frames have ``text`` (the prompt) and ``continuation``, and optionally ``weight`` as in ``fit_classifier``. Losses
    are means in nats over the tokens of the continuations and the end token that closes each; those of the prompts are
    read, not learnt. Prompt and continuation are tokenised apart. Together they take at most ``max_length`` tokens: the
    longer one is cut until both are alike, the prompt on the left, the continuation on the right. Of an empty
    continuation the end token alone is learnt. Checkpoints as in ``fit_classifier``. Raises UserError for a missing
    column, missing texts, an empty frame or weights below 0.
    """
    from underseer.training.objectives import language_metrics, token_loss_sum
    from underseer.training.rows import continuation_rows

    rows = [
        None if df is None else continuation_rows(tokenizer, df, name, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    return _fit(model, rows, settings, token_loss_sum, language_metrics, checkpoint_dir)


def fit_chats(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_df: pd.DataFrame,
    validation_df: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    lora: LoraSettings | None = None,
    checkpoint_dir: Path | str | None = None,
) -> FitResult:
    """Train a chat model to answer prompts; the state with the lowest validation loss is restored.

    Frames have ``prompt`` (the user's message) and ``answer``, and optionally ``weight`` as in ``fit_classifier``. Both
    pass through the model's chat template; losses are means in nats over the tokens of the answers and the token that
    ends each turn. Rows longer than ``max_length`` tokens are cut as in ``fit_continuations``. With ``lora`` a new
    adapter is put on the model and trained alone: the result's model is then a peft model; without, the whole model
    is trained, or the adapter that it has. Checkpoints as in ``fit_classifier``. Raises UserError for a missing column,
    missing texts, an empty frame, a tokenizer without a chat template or adapter targets that match nothing.
    """
    from underseer.training.objectives import language_metrics, token_loss_sum
    from underseer.training.rows import chat_rows

    rows = [
        None if df is None else chat_rows(tokenizer, df, name, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    if lora is not None:
        from underseer.models.adapters import add_lora

        model = add_lora(model, lora, seed=settings.seed)
    return _fit(model, rows, settings, token_loss_sum, language_metrics, checkpoint_dir)


def _fit(
    model: PreTrainedModel,
    rows: list[TokenRows | None],
    settings: TrainSettings,
    loss_sum: Any,
    metrics: Any,
    checkpoint_dir: Path | str | None,
) -> FitResult:
    from underseer.training.loop import fit

    device = resolve_device(settings.device)
    found = fit(
        model,
        *rows,
        settings,
        loss_sum=loss_sum,
        metrics=metrics,
        device=device,
        bf16=use_bf16(model, device, settings.precision),
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
    )
    return FitResult(curves=curves_of(found.pop("history")), **found)


_CURVES = {
    "loss": "train_loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation_loss",
    "eval_accuracy": "validation_accuracy",
}


def curves_of(history: list[dict[str, float]], names: dict[str, str] = _CURVES) -> pd.DataFrame:
    """The Trainer's history as a frame step, metric, value; ``names``: what it logs -> metric."""
    import pandas as pd

    rows = [
        (int(entry["step"]), names[name], float(value))
        for entry in history
        for name in names
        if (value := entry.get(name)) is not None
    ]
    return pd.DataFrame(rows, columns=["step", "metric", "value"]).astype({"step": "int64", "value": "float64"})


def predict_proba(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    df: pd.DataFrame,
    *,
    max_length: int,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    cost: Ledger | None = None,
) -> np.ndarray:
    """Class probabilities (n, C), float32, in the order of the frame's rows.

    Rows pass in batches of like length. ``precision`` follows the same rule as in training; logits become fp32 before
    the softmax. ``cost`` is told the number of tokens.
    """
    import torch

    from underseer.models.batches import TokenRows, sorted_batches, tokenise
    from underseer.training.rows import check_columns, texts_of

    place = resolve_device(device)
    check_columns(df, ["text"], "prediction", may_be_empty=True)
    ids, types = tokenise(tokenizer, *texts_of(df), max_length=longest_row(model, max_length))
    rows = TokenRows(ids, tokenizer.pad_token_id, types=types)
    if cost is not None:
        cost.add(tokens_scored=int(sum(rows.lengths)))
    out = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    model.to(place).eval()
    if place.type == "cpu":
        batch_size = min(batch_size, CPU_ROWS)
    with torch.inference_mode(), autocast(model, place, precision):
        for batch in sorted_batches(rows.lengths, batch_size):
            inputs = {key: value.to(place) for key, value in rows.__getitems__(batch).items()}
            out[batch] = model(**inputs).logits.float().softmax(dim=-1).cpu().numpy()
    return out


def _size(model: PreTrainedModel, settings: TrainSettings) -> dict[str, int]:
    """Longest row in tokens, and the multiple to which batches are padded."""
    multiple = 8 if resolve_device(settings.device).type == "cuda" else 1
    return {"length": longest_row(model, settings.max_length), "multiple": multiple}


def longest_row(model: PreTrainedModel, max_length: int) -> int:
    """``max_length``, or the model's own limit where that is less."""
    return min(max_length, max_positions(model) or max_length)


# ---------------------------------------------------------------------------------------------------- precision


def native_bf16(device: torch.device) -> bool:
    """True where bf16 matrices multiply natively: CUDA from compute capability 8, CPUs with AVX512_BF16 or AMX."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return False


def use_bf16(model: PreTrainedModel, device: torch.device, precision: str = "auto") -> bool:
    """Whether to run under bf16 autocast (weights stay fp32).

    "auto": where native, and on a CPU only for a hidden size of at least ``BF16_WIDTH``: below, the casts cost more
    than the multiplications save. "fp32" and "bf16" decide by themselves.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision {precision!r} is unknown; allowed are auto, fp32, bf16")
    if precision != "auto":
        return precision == "bf16"
    return native_bf16(device) and (device.type != "cpu" or model.config.hidden_size >= BF16_WIDTH)


def autocast(model: PreTrainedModel, device: torch.device, precision: str) -> Any:
    """A context in which the model runs as ``use_bf16`` decides."""
    import torch

    return (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if use_bf16(model, device, precision)
        else contextlib.nullcontext()
    )
