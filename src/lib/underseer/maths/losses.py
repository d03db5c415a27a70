"""Student losses on weak labels, as pure functions ``(logits, targets, progress) -> scalar``.

``logits`` (n, 2); ``targets`` (n,) the target probability of class 1, in [0, 1]; ``progress`` the fraction of
training done, in [0, 1]. Each is a mean over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ALPHA_MAX = 0.5  # Burns et al. 2023, appendix A.4: 0.75 for the largest students, 0.5 for the others
WARMUP = 0.2  # the same: linear from 0 over the first 20 % of training


def hard_ce(logits: torch.Tensor, targets: torch.Tensor, progress: float = 1.0) -> torch.Tensor:
    """Cross-entropy with the target's label: class 1 where its probability is at least 0.5 (the W2S paper's loss)."""
    return soft_ce(logits, (targets >= 0.5).to(logits.dtype), progress)


def soft_ce(logits: torch.Tensor, targets: torch.Tensor, progress: float = 1.0) -> torch.Tensor:
    """Cross-entropy with the target probabilities themselves: -mean(p log q1 + (1 - p) log q0)."""
    _check(logits, targets)
    log_q = logits.log_softmax(dim=-1)
    return -(targets * log_q[:, 1] + (1 - targets) * log_q[:, 0]).mean()


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


def aux_conf_share(logits: torch.Tensor, targets: torch.Tensor, progress: float) -> torch.Tensor:
    """``aux_conf`` with the threshold that keeps the weak targets' class share: for unbalanced classes."""
    return aux_conf(logits, targets, progress, share=None)


def confidence_weight(progress: float, alpha_max: float = ALPHA_MAX, warmup: float = WARMUP) -> float:
    """Weight alpha of the confidence term: linear from 0 to ``alpha_max`` at ``progress = warmup``, then constant."""
    return alpha_max * min(1.0, progress / warmup) if warmup > 0 else alpha_max


def _check(logits: torch.Tensor, targets: torch.Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"losses take logits (n, 2) and targets (n,); got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )


ON_LABELS = frozenset({"hard_ce"})  # learn from labels where rows have both labels and probabilities
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "hard_ce": hard_ce,
    "soft_ce": soft_ce,
    "aux_conf": aux_conf,
    "aux_conf_share": aux_conf_share,
}
