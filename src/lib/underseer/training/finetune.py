"""Supervised fine-tuning of classifiers and language models on the Hugging Face Trainer.

What is done beyond the Trainer's defaults: rows are tokenised once, grouped by length and padded per batch; bf16
autocast where the hardware has it natively and the model is wide enough to gain; the best state by validation is kept
in memory and restored at the end; resumable checkpoints are written at most once a minute. Training twice with one
seed gives the same weights on a CPU, interrupted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from underseer.errors import UserError
from underseer.maths.losses import hard_ce
from underseer.models.loading import resolve_device
from underseer.training.objectives import classifier_metrics, language_metrics, summed, token_loss_sum
from underseer.training.precision import CPU_ROWS, autocast, longest_row
from underseer.training.settings import FitResult, TrainSettings

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger
    from underseer.models.adapters import LoraSettings

__all__ = [
    "FitResult", "TrainSettings", "fit_chats", "fit_classifier", "fit_continuations", "fit_language_model",
    "predict_proba",
]  # fmt: skip


def fit_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_df: pd.DataFrame,
    validation_df: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    loss: Callable[..., torch.Tensor] = hard_ce,
    target: str = "label",
    checkpoint_dir: Path | str | None = None,
) -> FitResult:
    """Fine-tune a two-class sequence classifier; the state with the lowest validation loss is restored.

    Frames have ``text`` (and optionally ``text_pair``) and the column ``target``: labels 0 or 1, or probabilities of
    class 1. ``loss(logits (n, 2), targets (n,)) -> scalar`` is a mean over rows, one of ``maths.losses`` or your own;
    ``progress`` (the fraction of training done) and ``weight`` (n,) are given to a loss that has parameters of these
    names. Validation loss is the plain cross-entropy with the same targets, whatever the training loss, so that values
    at different moments compare. A column ``weight`` (>= 0) makes means over rows, in each optimiser step and in
    validation, weighted ones, ``sum(w * loss) / sum(w)``; rows of weight 0 are left out. With ``checkpoint_dir``, an
    interrupted call continues from the last checkpoint there and ends in the same weights. Raises UserError for a
    missing column, an empty frame, targets outside [0, 1], weights below 0 or a loss that cannot be weighted.
    """
    from underseer.training.loop import fit
    from underseer.training.rows import classifier_rows

    if model.config.num_labels != 2:
        raise UserError(f"fit_classifier trains two classes; the model has {model.config.num_labels} labels")
    rows = [
        None if df is None else classifier_rows(tokenizer, df, name, target=target, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    loss_sum = summed(loss, weighted=rows[0].weights is not None)
    return fit(model, *rows, settings, loss_sum=loss_sum, metrics=classifier_metrics, checkpoint_dir=checkpoint_dir)


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
    from underseer.training.loop import fit
    from underseer.training.rows import language_rows

    rows = [
        None if part is None else language_rows(tokenizer, part, name, pack=pack, **_size(model, settings))
        for name, part in (("training", texts), ("validation", validation_texts))
    ]
    return fit(model, *rows, settings, loss_sum=token_loss_sum, metrics=language_metrics, checkpoint_dir=checkpoint_dir)


def fit_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_df: pd.DataFrame,
    validation_df: pd.DataFrame | None,
    settings: TrainSettings,
    *,
    loss: Callable[..., torch.Tensor] = token_loss_sum,
    checkpoint_dir: Path | str | None = None,
) -> FitResult:
    """Train a causal language model to continue prompts; the state with the lowest validation loss is restored.

    Frames have ``text`` (the prompt) and ``continuation``, and optionally ``cut`` (whether it ran out of tokens: no end token
    is learnt after it) and ``weight`` as in ``fit_classifier``. Losses are means in nats over the tokens of the continuations and the end token that closes each; those of the prompts are
    read, not learnt. ``loss`` is the sum of a batch, as ``objectives.token_loss_sum``. Prompt and continuation are tokenised apart. Together they take at most ``max_length`` tokens: the
    longer one is cut until both are alike, the prompt on the left, the continuation on the right. Of an empty
    continuation the end token alone is learnt. Checkpoints as in ``fit_classifier``. Raises UserError for a missing
    column, missing texts, an empty frame or weights below 0.
    """
    from underseer.training.loop import fit
    from underseer.training.rows import continuation_rows

    rows = [
        None if df is None else continuation_rows(tokenizer, df, name, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    return fit(model, *rows, settings, loss_sum=loss, metrics=language_metrics, checkpoint_dir=checkpoint_dir)


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
    from underseer.training.loop import fit
    from underseer.training.rows import chat_rows

    rows = [
        None if df is None else chat_rows(tokenizer, df, name, **_size(model, settings))
        for name, df in (("training", train_df), ("validation", validation_df))
    ]
    if lora is not None:
        from underseer.models.adapters import add_lora

        model = add_lora(model, lora, seed=settings.seed)
    return fit(model, *rows, settings, loss_sum=token_loss_sum, metrics=language_metrics, checkpoint_dir=checkpoint_dir)


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
