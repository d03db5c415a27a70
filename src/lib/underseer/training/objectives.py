"""Sums and means that training minimises and watches, over rows and tokens, where rows may differ in weight.

``weight`` (n,) is None where all rows count alike. Logits are fp32: (n, 2) of a classifier, (n, L, V) of a language
model. Labels: target probabilities (n,), or token ids (n, L) with -100 where a token is not to be learnt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.maths.losses import soft_ce

if TYPE_CHECKING:
    import torch


def weighted_items(labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum over rows of weight times number of items: 1 for a classification row, else its labels that count."""
    return (weight * (labels != -100).view(len(labels), -1).sum(dim=1)).sum()


def summed(loss: Callable[..., torch.Tensor], *, weighted: bool) -> Callable[..., torch.Tensor]:
    """A mean loss of rows (``maths.losses``) as the sum that the loop takes: (logits, labels, progress, weight) -> scalar.

    Raises:
        UserError: no function, one without a parameter ``weight`` where rows are ``weighted``; when called, a loss that
            is no scalar.
    """
    if not callable(loss):
        raise UserError(f"loss = {loss!r}; expected a function of logits and targets, such as losses.hard_ce")
    name, takes = getattr(loss, "__name__", repr(loss)), inspect.signature(loss).parameters
    if weighted and "weight" not in takes:
        raise UserError(f"loss {name!r} takes no weights; drop column 'weight', or use hard_ce or soft_ce")

    def loss_sum(
        logits: torch.Tensor, labels: torch.Tensor, progress: float, weight: torch.Tensor | None
    ) -> torch.Tensor:
        more = {"progress": progress} if "progress" in takes else {}
        more |= {} if weight is None else {"weight": weight}
        value = loss(logits, labels, **more)
        if value.ndim:
            raise UserError(f"loss {name!r} gave a tensor of shape {tuple(value.shape)}; expected a mean over rows")
        return value * len(labels) if weight is None else value

    return loss_sum


def classifier_metrics(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[dict[str, float], float]:
    correct = (logits.argmax(dim=-1) == (labels >= 0.5)).float()
    if weight is None:
        return {"loss": soft_ce(logits, labels).item(), "accuracy": correct.mean().item()}, len(labels)
    total = weight.sum().item()
    loss = soft_ce(logits, labels, weight).item()
    return {"loss": loss / total, "accuracy": (weight * correct).sum().item() / total}, total


def language_metrics(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[dict[str, float], float]:
    counts = (labels[:, 1:] != -100).sum(dim=1)
    total = float((counts if weight is None else weight * counts).sum())
    return {"loss": token_loss_sum(logits, labels, weight=weight).item() / (total or 1.0)}, total


def token_loss_sum(
    logits: torch.Tensor, labels: torch.Tensor, progress: float = 1.0, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Summed next-token cross-entropy, each row times its weight; labels -100 are skipped.

    The labels are shifted, not the logits: these are large, and a slice of them would be copied forward and backward.
    """
    import torch

    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100).flatten(),
        ignore_index=-100,
        reduction="sum" if weight is None else "none",
    )
    return losses if weight is None else (weight * losses.view(len(labels), -1).sum(dim=1)).sum()
