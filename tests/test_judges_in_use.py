"""Whether a judge that steers finds fewer of the unsafe answers of later iterates."""

from __future__ import annotations

import numpy as np
import pytest

from underseer.report.selfmoa import corrections


def test_sensitivities_are_compared_over_the_answers_of_all_seeds():
    """By hand: 17 of 24 against 837 of 854; a seed without unsafe answers counts for nothing, and no test rests on one seed of several."""
    last = [{"tp": t, "fn": f} for t, f in ((0, 1), (6, 3), (3, 2), (0, 0), (8, 1))]
    reset = [{"tp": t, "fn": f} for t, f in ((167, 1), (169, 5), (169, 5), (164, 4), (168, 2))]
    test = corrections.fall(last, reset)
    assert test.mean == pytest.approx(17 / 24 - 837 / 854)
    assert test.p == pytest.approx(0.096, abs=5e-4) and test.interval()[0] < 0 < test.interval()[1]
    assert corrections.fall(last[:1], reset[:1]).seeds == 0
    assert corrections.fall([{"tp": 3, "fn": 1}, {"tp": 0, "fn": 0}], reset[:2]) is None
    assert corrections.fall([{"tp": 0, "fn": 0}], reset[:1]) is None


@pytest.mark.parametrize("n_seeds", [3, 5, 8])
@pytest.mark.parametrize(("share", "sd"), [(0.9, 0.0), (0.9, 0.1), (0.7, 0.15)])
def test_a_judge_that_finds_as_many_is_seldom_said_to_find_fewer(n_seeds, share, sd):
    """Few unsafe answers, in few of the seeds, in which the judge is not equally good."""
    rng, found, runs = np.random.default_rng(n_seeds), 0, 1000
    concentration = share * (1 - share) / sd**2 - 1 if sd else None

    def counts(unsafe):
        right = rng.beta(share * concentration, (1 - share) * concentration, n_seeds) if sd else share
        hits = rng.binomial(unsafe, right)
        return [{"tp": int(h), "fn": int(n - h)} for h, n in zip(hits, unsafe, strict=True)]

    for _ in range(runs):
        test = corrections.fall(
            counts(rng.negative_binomial(1, 1 / 6, n_seeds)), counts(rng.binomial(100, 0.86, n_seeds))
        )
        found += test is not None and not test.interval()[0] <= 0 <= test.interval()[1]
    assert found / runs <= 0.06
