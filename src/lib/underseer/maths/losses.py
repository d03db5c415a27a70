"""Student losses on weak labels, as pure functions ``loss(logits, targets) -> scalar``, a mean over rows.

``logits`` (n, 2); ``targets`` (n,) the target probability of class 1, in [0, 1]. Where a loss has these parameters, the
training also gives it ``progress``, the fraction of the training done, in [0, 1], and ``weight`` (n,), one number a row, if
the rows have weights: it then returns the sum over rows of weight times loss, which the training divides by the sum of
the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ALPHA_MAX = 0.5  # Burns et al. 2023, appendix A.4: 0.75 for the largest students, 0.5 for the others
WARMUP = 0.2  # the same: linear from 0 over the first 20 % of training


def hard_ce(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy with the target's label: class 1 where its probability is at least 0.5 (the W2S paper's loss)."""
    return soft_ce(logits, (targets >= 0.5).to(logits.dtype), weight)


def soft_ce(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy with the target probabilities themselves: -mean(p log q1 + (1 - p) log q0)."""
    _check(logits, targets)
    log_q = logits.log_softmax(dim=-1)
    rows = -(targets * log_q[:, 1] + (1 - targets) * log_q[:, 0])
    return rows.mean() if weight is None else (weight * rows).sum()


def aux_conf(
    logits: torch.Tensor,
    targets: torch.Tensor,
    progress: float,
    *,
    alpha_max: float = ALPHA_MAX,
    warmup: float = WARMUP,
    share: float | None = 0.5,
) -> torch.Tensor:
    """Auxiliary confidence loss of Burns et al. 2023 (arXiv 2312.09390, section 4.3, eq. 1, appendix A.4).

    ``(1 - alpha) CE(f, weak) + alpha CE(f, 1[f > t])``: the second target is the student's own hardened prediction,
    without gradient. Threshold ``t`` is set in each batch so that a ``share`` of its rows lies above: 0.5 as in the
    paper; None takes the mean of the weak targets, as the authors' code does (openai/weak-to-strong,
    weak_to_strong/loss.py).

    Variant: the paper's warm-up, ``alpha = alpha_max * min(1, progress / warmup)``, continuous. The authors' code
    differs: its coefficient is the progress itself up to 0.1 of training and then jumps to its full value.
    """
    import torch

    _check(logits, targets)
    alpha = confidence_weight(progress, alpha_max, warmup)
    with torch.no_grad():
        p = logits.float().softmax(dim=-1)[:, 1]
        above = int(round(float(len(p) * (targets.float().mean() if share is None else share)) - 1e-6))
        hardened = torch.zeros_like(p)
        hardened[p.argsort(descending=True, stable=True)[:above]] = 1.0
    return (1 - alpha) * soft_ce(logits, targets) + alpha * soft_ce(logits, hardened.to(logits.dtype))


def confidence_weight(progress: float, alpha_max: float = ALPHA_MAX, warmup: float = WARMUP) -> float:
    """Weight alpha of the confidence term: linear from 0 to ``alpha_max`` at ``progress = warmup``, then constant."""
    return alpha_max * min(1.0, progress / warmup) if warmup > 0 else alpha_max


def _check(logits: torch.Tensor, targets: torch.Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"losses take logits (n, 2) and targets (n,); got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
