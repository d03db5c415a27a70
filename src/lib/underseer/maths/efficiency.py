"""How much data one method needs to reach what another reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """How many times as many examples the other method needs, by seed (S,), and what is known of it.

    ``bound``: of each seed 0 where the other method's curve crosses the rate, 1 where it never falls that low (the ratio is
    larger), -1 where it is lower from its first point on (the ratio is smaller). ``mean`` and ``ci95``: geometric mean over
    seeds and its 95 % interval by Student's t on logarithms; None where a seed is only bounded, or there is one seed.
    """

    values: np.ndarray
    bound: np.ndarray
    mean: float | None
    ci95: tuple[float, float] | None


def examples_ratio(
    n: Sequence[float], rate: Sequence[float], other_n: Sequence[float], other_rates: Sequence[Sequence[float]]
) -> Ratio:
    """Examples that another method needs for the same rate, over those that this one had.

    Between the sizes of the other method its rate is a straight line over the logarithm of the examples, made non-increasing by
    isotonic regression, since noise may turn it.

    Args:
        n: examples of this method in each seed, (S,).
        rate: its rate in each seed, lower is better, (S,).
        other_n: sizes of the other method, (K,), at least two.
        other_rates: its rates, (S, K).
    """
    from scipy import stats
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(other_n)
    logs = np.log(np.asarray(other_n, dtype=float)[order])
    needed, bound = [], []
    for wanted, rates in zip(rate, np.asarray(other_rates, dtype=float)[:, order], strict=True):
        curve = isotonic_regression(rates, increasing=False)
        needed.append(np.interp(-wanted, -curve, logs))
        bound.append(int(wanted < curve[-1]) - int(wanted > curve[0]))
    values = np.array(needed) - np.log(np.asarray(n, dtype=float))
    mean = ci95 = None
    if len(values) > 1 and not any(bound):
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        mean = float(np.exp(values.mean()))
        ci95 = (float(np.exp(values.mean() - half)), float(np.exp(values.mean() + half)))
    return Ratio(np.exp(values), np.array(bound), mean, ci95)
