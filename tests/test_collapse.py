"""collapse.py: which seeds are called collapsed, by hand and on simulated seeds."""

from __future__ import annotations

import numpy as np
import pytest

from underseer.maths.collapse import collapsed


@pytest.mark.parametrize(
    ("rates", "start", "expected"),
    [
        ([0.86, 0.52, 0.88], 0.5, [False, True, False]),
        ([0.86, 0.80, 0.88], 0.5, [False, False, False]),
        ([0.01, 0.37, 0.05], 0.9, [False, True, False]),  # an unsafe rate, against the reset model's
        ([0.0, 0.0, 0.9], 0.9, [False, False, True]),
        ([0.86, 0.52], 0.5, [False, False]),  # which of the two?
        ([0.86, 0.52, 0.51], 0.5, [False, False, False]),  # most have not learnt
        ([0.60, 0.52, 0.61], 0.5, [False, False, False]),  # none has learnt much
        ([0.86, np.nan, 0.88], 0.5, [False, False, False]),
        ([0.86, 0.52, 0.88], [0.5, np.nan, 0.5], [False, False, False]),
    ],
)
def test_by_hand(rates, start, expected):
    assert collapsed(rates, [300] * len(rates), start).tolist() == expected


def test_a_handful_of_items_explains_a_low_rate():
    assert collapsed([0.86, 0.6, 0.88], [300, 300, 300], 0.5).tolist() == [False, True, False]
    assert collapsed([0.86, 0.6, 0.88], [300, 5, 300], 0.5).tolist() == [False, False, False]


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_on_simulated_seeds(seeds):
    """Ordinary seeds differ by 0.3 on the logit; one training in ten ends at chance. As the text of collapse.py says."""
    rng, runs = np.random.default_rng(0), 800
    lost = rng.random((runs, seeds)) < 0.1
    logit = np.where(lost, 0.1 * rng.standard_normal(lost.shape), 1.73 + 0.3 * rng.standard_normal(lost.shape))
    rates = rng.binomial(300, 1 / (1 + np.exp(-logit))) / 300
    called = np.stack([collapsed(r, [300] * seeds, 0.5) for r in rates])
    few = 2 * lost.sum(1, keepdims=True) < seeds
    assert called[~lost].mean() <= 0.01 and called[lost & few].mean() >= 0.98
