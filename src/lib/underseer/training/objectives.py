"""Sums and means that training minimises and watches, over rows and tokens, where rows may differ in weight.

``weight`` (n,) is None where all rows count alike. Logits are fp32: (n, 2) of a classifier, (n, L, V) of a language
model. Labels: target probabilities (n,), or token ids (n, L) with -100 where a token is not to be learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def weighted_items(labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum over rows of weight times number of items: 1 for a classification row, else its labels that count."""
    return (weight * (labels != -100).view(len(labels), -1).sum(dim=1)).sum()


def row_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row (n,) with the probability of class 1; its mean is ``w2s.losses.soft_ce``."""
    log_q = logits.log_softmax(dim=-1)
    return -(targets * log_q[:, 1] + (1 - targets) * log_q[:, 0])


def classifier_metrics(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[dict[str, float], float]:
    from underseer.maths.losses import soft_ce

    correct = (logits.argmax(dim=-1) == (labels >= 0.5)).float()
    if weight is None:
        return {"loss": soft_ce(logits, labels).item(), "accuracy": correct.mean().item()}, len(labels)
    total = weight.sum().item()
    loss = (weight * row_losses(logits, labels)).sum().item()
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
