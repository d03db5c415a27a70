"""Weak labels from several supervisors: bootstrap samples, hard and soft vote (arXiv 2410.12621, "Sampling and
voting").

A vote is a pure function ``vote(p) -> (labels, mean)``. ``p`` (B, n) holds the probability of class 1 that each of B
supervisors gives each of n rows; ``labels`` (n,) are the weak labels, 0 or 1; ``mean`` (n,) is the probability of class 1
that losses on probabilities learn from. The paper states neither the number of supervisors nor the tie rule; the rules
here are ours.
"""

from __future__ import annotations

import numpy as np

from underseer.errors import UserError


def bootstrap_sample(n: int, replicate: int, seed: int) -> np.ndarray:
    """Row indices (n,) of one bootstrap sample, drawn with replacement; a fixed function of its three arguments."""
    if n < 1:
        raise UserError(f"a bootstrap sample needs at least one row; got {n}")
    return np.random.default_rng([seed, replicate]).integers(0, n, size=n)


def single(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels and probabilities of one supervisor, ``p`` (1, n). Raises UserError for several."""
    if len(p) > 1:
        raise UserError(f"voting = 'none': {len(p)} supervisors; one is needed, or voting hard or soft")
    return soft_vote(p)


def hard_vote(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Majority of the supervisors' labels, ``1[mean_b 1[p_b >= 0.5] > 0.5]``, and the mean probability of class 1.

    A tie goes to the class with the higher mean probability; a mean of exactly 0.5 to class 1. Raises UserError
    without supervisors.
    """
    given, p = np.asarray(p), _checked(p)
    share = (p >= 0.5).mean(axis=0)
    labels = np.where(share == 0.5, p.mean(axis=0) >= 0.5, share > 0.5)
    return labels.astype(np.int64), given.mean(axis=0)


def soft_vote(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class with the higher mean probability, ``1[mean_b p_b >= 0.5]``, and the mean probability of class 1.

    A mean of exactly 0.5 gives class 1. Raises UserError without supervisors.
    """
    mean = _checked(p).mean(axis=0)
    return (mean >= 0.5).astype(np.int64), mean


def turned_rows(n: int, share: float, seed: int) -> np.ndarray:
    """Which of n labels are turned to the other class, as booleans (n,): each independently with probability ``share``.

    A fixed function of its arguments; with the same seed, the rows of a smaller share are among those of a larger one.
    """
    return np.random.default_rng([seed, 0, 1]).random(n) < share


def _checked(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 2:
        raise ValueError(f"votes take probabilities of shape (supervisors, rows); got {p.shape}")
    if p.shape[0] == 0:
        raise UserError("a vote needs at least one supervisor; got 0: set bootstraps to 1 or more")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("votes take probabilities in [0, 1], without missing values")
    return p
