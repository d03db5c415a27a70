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
from underseer.models import max_positions, resolve_device

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.batches import TokenRows
    from underseer.cost import Ledger

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
    so that values at different moments compare. With ``checkpoint_dir``, an interrupted call continues from the last
    checkpoint there and ends in the same weights. Raises UserError for an unknown loss, a missing column, an empty
    frame or targets outside [0, 1].
    """
    from underseer.w2s.losses import LOSSES, ON_LABELS

    if loss not in LOSSES:
        raise UserError(f"loss {loss!r} is unknown; allowed are {', '.join(LOSSES)}{nearest(loss, LOSSES)}")
    if model.config.num_labels != 2:
        raise UserError(f"fit_classifier trains two classes; the model has {model.config.num_labels} labels")
    prefer = "label" if loss in ON_LABELS else "p"
    rows = [
        None if df is None else _classifier_rows(model, tokenizer, df, settings, name, prefer)
        for name, df in (("training", train_df), ("validation", validation_df))
    ]

    def loss_sum(logits: torch.Tensor, labels: torch.Tensor, progress: float) -> torch.Tensor:
        return LOSSES[loss](logits, labels, progress) * len(labels)

    return _fit(model, rows, settings, loss_sum, _classifier_metrics, checkpoint_dir)


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
    rows = [
        None if part is None else _language_rows(model, tokenizer, part, settings, pack, name)
        for name, part in (("training", texts), ("validation", validation_texts))
    ]
    return _fit(
        model, rows, settings, lambda logits, labels, _: _token_loss(logits, labels), _language_metrics, checkpoint_dir
    )


def _fit(
    model: PreTrainedModel,
    rows: list[TokenRows | None],
    settings: TrainSettings,
    loss_sum: Any,
    metrics: Any,
    checkpoint_dir: Path | str | None,
) -> FitResult:
    from underseer.trainer import fit

    device = resolve_device(settings.device)
    return FitResult(
        **fit(
            model,
            *rows,
            settings,
            loss_sum=loss_sum,
            metrics=metrics,
            device=device,
            bf16=use_bf16(model, device, settings.precision),
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        )
    )


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

    from underseer.batches import TokenRows, sorted_batches, tokenise

    place = resolve_device(device)
    _columns(df, ["text"], "prediction", may_be_empty=True)
    ids, types = tokenise(tokenizer, *_texts(df), max_length=_length(model, max_length))
    rows = TokenRows(ids, tokenizer.pad_token_id, types=types)
    if cost is not None:
        cost.add(tokens_scored=int(sum(rows.lengths)))
    out = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    model.to(place).eval()
    with torch.inference_mode(), _autocast(model, place, precision):
        for batch in sorted_batches(rows.lengths, batch_size):
            inputs = {key: value.to(place) for key, value in rows.__getitems__(batch).items()}
            out[batch] = model(**inputs).logits.float().softmax(dim=-1).cpu().numpy()
    return out


# ---------------------------------------------------------------------------------------------------- rows


def _columns(df: pd.DataFrame, names: list[str], what: str, may_be_empty: bool = False) -> None:
    for name in names:
        if name not in df.columns:
            raise UserError(f"the {what} rows have no column {name!r}; they have {', '.join(map(str, df.columns))}")
    if df.empty and not may_be_empty:
        raise UserError(f"there are no {what} rows; give at least one")


def _texts(df: pd.DataFrame) -> tuple[list[str], list[str] | None]:
    return df["text"].tolist(), df["text_pair"].tolist() if "text_pair" in df.columns else None


def _length(model: PreTrainedModel, max_length: int) -> int:
    return min(max_length, max_positions(model) or max_length)


def _multiple(device: str) -> int:
    return 8 if resolve_device(device).type == "cuda" else 1


def _classifier_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    df: pd.DataFrame,
    settings: TrainSettings,
    what: str,
    prefer: str,
) -> TokenRows:
    from underseer.batches import TokenRows, tokenise

    column = prefer if prefer in df.columns else "p" if "p" in df.columns else "label"
    _columns(df, ["text", column], what)
    targets = df[column].to_numpy(dtype=np.float32)
    if not ((targets >= 0) & (targets <= 1)).all():
        raise UserError(f"column {column!r} of the {what} rows holds values outside [0, 1] or missing ones")
    ids, types = tokenise(tokenizer, *_texts(df), max_length=_length(model, settings.max_length))
    return TokenRows(ids, tokenizer.pad_token_id, types=types, targets=targets, multiple=_multiple(settings.device))


def _language_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    settings: TrainSettings,
    pack: bool,
    what: str,
) -> TokenRows:
    from underseer.batches import TokenRows, packed, tokenise

    length = _length(model, settings.max_length)
    end = next(
        token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id) if token is not None
    )
    ids, _ = tokenise(tokenizer, texts, max_length=10**9 if pack else length - 1)
    ids = packed(ids, end, length) if pack else [np.append(row, end) for row in ids]
    if not ids:
        raise UserError(f"there are no {what} texts; give at least one")
    return TokenRows(ids, tokenizer.pad_token_id, language_model=True, multiple=_multiple(settings.device))


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


def _autocast(model: PreTrainedModel, device: torch.device, precision: str) -> Any:
    import torch

    return (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if use_bf16(model, device, precision)
        else contextlib.nullcontext()
    )


# ---------------------------------------------------------------------------------------------------- validation


def _classifier_metrics(logits: torch.Tensor, labels: torch.Tensor) -> tuple[dict[str, float], int]:
    from underseer.w2s.losses import soft_ce

    correct = (logits.argmax(dim=-1) == (labels >= 0.5)).float().mean()
    return {"loss": soft_ce(logits, labels).item(), "accuracy": correct.item()}, len(labels)


def _language_metrics(logits: torch.Tensor, labels: torch.Tensor) -> tuple[dict[str, float], int]:
    count = int((labels[:, 1:] != -100).sum())
    return {"loss": _token_loss(logits, labels).item() / max(count, 1)}, count


def _token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed next-token cross-entropy; labels -100 are skipped."""
    import torch

    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )
