"""Ratios of examples: worked by hand, and bounded where the other method's curve does not reach the rate."""

from __future__ import annotations

import numpy as np
import pytest

from underseer.maths.efficiency import examples_ratio

SIZES = [100, 400, 1600]


def test_the_curve_is_read_between_its_points() -> None:
    """Halfway in the logarithm between 400 and 1,600 lie 800 examples: four times 200."""
    ratio = examples_ratio([200, 200], [0.3, 0.3], SIZES, [[0.8, 0.4, 0.2], [0.8, 0.4, 0.2]])
    assert ratio.values == pytest.approx([4.0, 4.0]) and ratio.mean == pytest.approx(4.0)
    assert ratio.ci95 == pytest.approx((4.0, 4.0)) and not ratio.bound.any()


def test_seeds_give_the_interval() -> None:
    """Ratios 2 and 8: geometric mean 4, and t of one degree of freedom (12.706) times log 4 / 2."""
    ratio = examples_ratio([400, 100], [0.3, 0.3], SIZES, [[0.8, 0.4, 0.2], [0.8, 0.4, 0.2]])
    assert ratio.values == pytest.approx([2.0, 8.0]) and ratio.mean == pytest.approx(4.0)
    assert np.log(ratio.ci95) == pytest.approx(np.log(4) + 12.706 * np.log(2) * np.array([-1, 1]), rel=1e-3)


@pytest.mark.parametrize(("rate", "bound", "value"), [(0.1, 1, 8.0), (0.9, -1, 0.5), (0.2, 0, 8.0), (0.8, 0, 0.5)])
def test_beyond_the_curve_there_is_a_bound_and_no_interval(rate: float, bound: int, value: float) -> None:
    ratio = examples_ratio([200, 200], [rate, 0.3], SIZES, [[0.8, 0.4, 0.2]] * 2)
    assert ratio.bound[0] == bound and ratio.values[0] == pytest.approx(value)
    assert (ratio.ci95 is None) == bool(bound)


def test_noise_that_turns_the_curve_is_levelled() -> None:
    """0.4, 0.5, 0.3 falls to its mean 0.45 first; any order of the sizes gives the same."""
    level = examples_ratio([100], [0.45], [100, 400, 1600, 6400], [[0.6, 0.4, 0.5, 0.3]])
    mixed = examples_ratio([100], [0.45], [6400, 100, 1600, 400], [[0.3, 0.6, 0.5, 0.4]])
    assert 4.0 <= level.values[0] <= 16.0 and level.values == pytest.approx(mixed.values)
