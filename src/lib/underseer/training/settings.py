"""How to train, and what training gives: settings, result, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Steps are optimiser steps; ``max_length`` is in tokens."""

    epochs: float
    batch_size: int
    learning_rate: float | None  # peak; None: ``rate_for`` the model
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


def rate_for(parameters: int) -> float:
    """A peak learning rate for fine-tuning a classifier of so many parameters: 1e-3 up to two million, falling with size^(2/3), at
    least 1e-5.

    A rule of thumb of ours, through what was measured on MiniLM (22 M: 2e-4) and near what BERT's paper tries (110 M: 2e-5 to 5e-5).
    """
    return min(1e-3, max(1e-5, 1e-3 * (2e6 / parameters) ** (2 / 3)))


@dataclass(frozen=True)
class FitResult:
    """A trained model (best state, eval mode) and how it got there."""

    model: PreTrainedModel
    curves: pd.DataFrame  # step, metric (train_loss, learning_rate, validation_loss, validation_accuracy), value
    tokens_trained: int  # real tokens passed through forward and backward, padding not counted
    best_step: int  # step of the restored state; the last step without validation rows
    seconds: float


CURVES = {
    "loss": "train_loss",
    "learning_rate": "learning_rate",
    "eval_loss": "validation_loss",
    "eval_accuracy": "validation_accuracy",
}
"""What the Trainer logs, and the metric that it becomes in the curves."""


def curves_of(history: Sequence[Mapping[str, float]], names: Mapping[str, str] = CURVES) -> pd.DataFrame:
    """The Trainer's history as a frame step, metric, value; ``names``: what it logs -> metric."""
    import pandas as pd

    rows = [
        (int(entry["step"]), names[name], float(value))
        for entry in history
        for name in names
        if (value := entry.get(name)) is not None
    ]
    return pd.DataFrame(rows, columns=["step", "metric", "value"]).astype({"step": "int64", "value": "float64"})
