"""Seeds whose training has collapsed, by a stated rule, so that a report can count and show them.

The rule speaks of one method's rate in S seeds, of n test items each, and of the rate that it started from: chance for a
classifier, the reset model for the loop. A seed has collapsed where both hold:

1. its rate is nearer to the start than to the median of the other seeds, on the logit scale (on which seeds of a rate
   near 0 or 1 spread as those of another);
2. that median lies outside the seed's own Wilson 95 % interval: its test items alone do not explain it.

Only a method that learns can collapse: the median must lie at least 1 on the logit scale from the start (accuracy 0.73
where chance is 0.5), and there must be 3 seeds or more. A multiple of the other seeds' spread will not do as a rule: in
17 % of samples of 3 ordinary normal seeds, one lies 10 times as far from the other two as these lie from each other.

Simulated (tests/test_collapse.py), 300 items, chance 0.5, 3 to 8 seeds: of ordinary seeds (accuracy 0.85, sd 0.3 on the
logit) at most 1 in 100 is called collapsed; of trainings that end at chance, at least 99 in 100 where fewer than half of the
seeds do. Where ordinary seeds differ by 0.8 on the logit, every seventh is called so: it learnt little.

Nothing is left out of a mean or an interval because of it. No interval from a few seeds holds its level where one
training in ten collapses, since most samples hold no collapse and know nothing of it: coverage of the 95 % interval is
0.79 to 0.89 with 3 seeds, 0.60 to 0.82 with 5, 0.62 to 0.78 with 8 (sd of the others 0.1 to 0.3).
"""

from __future__ import annotations

import numpy as np

from underseer.maths.prevalence import wilson

LEAST_SEEDS = 3
LEARNT = 1.0
"""Least distance, on the logit scale, between the start and what the other seeds reached."""


def collapsed(rates, n_items, start) -> np.ndarray:
    """Which seeds have collapsed, (S,) bool; none with fewer than 3 seeds, and none where a value is NaN.

    rates: (S,) in [0, 1]. n_items: (S,) test items of each seed. start: the rate without learning, one number or (S,).
    """
    rates, n = np.asarray(rates, float), np.asarray(n_items, float)
    start = np.broadcast_to(np.asarray(start, float), rates.shape)
    out = np.zeros(len(rates), bool)
    if len(rates) < LEAST_SEEDS:
        return out
    for s, rate in enumerate(rates):
        others = np.median(np.delete(rates, s))
        low, high = wilson(rate * n[s], n[s])
        own, first, usual = _logit(np.array([rate, start[s], others]), n[s])
        learnt = abs(usual - first) >= LEARNT
        out[s] = learnt and abs(own - first) < abs(own - usual) and not low <= others <= high
    return out


def _logit(rates: np.ndarray, n: float) -> np.ndarray:
    """Log odds, with half an item added on each side so that 0 and 1 have one (Haldane 1956)."""
    return np.log((rates * n + 0.5) / ((1 - rates) * n + 0.5))
