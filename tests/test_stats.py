"""stats.py: hand-worked values, and coverage of its intervals on simulated seeds and items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from underseer.maths import stats


def simulate(rng, seeds: int, n: int, accuracy: tuple[float, float, float], seed_sd: float) -> list[list[np.ndarray]]:
    """Right or wrong of weak, student and ceiling on the same n items: items differ in difficulty, seeds in skill."""
    difficulty = rng.normal(0, 0.7, n)
    noise = np.sqrt(1 - 0.49)
    return [
        [
            (ndtri(a) + rng.normal(0, seed_sd) + difficulty + rng.normal(0, noise, n) > 0).astype(float)
            for _ in range(seeds)
        ]
        for a in accuracy
    ]


def true_values(accuracy, seed_sd: float) -> tuple[list[float], float]:
    """Expected accuracies over seeds and items, and the PGR that they make."""
    a = [float(ndtr(ndtri(x) / np.sqrt(1 + seed_sd**2))) for x in accuracy]
    return a, (a[1] - a[0]) / (a[2] - a[0])


def coverage(runs: int, seeds: int, n: int, accuracy, seed_sd: float, n_boot: int = 200) -> dict[str, float]:
    """Share of runs whose interval holds the truth: of PGR, of Fieller's full set, and of the weak accuracy."""
    rng = np.random.default_rng(7)
    expected, ratio = true_values(accuracy, seed_sd)
    hits = {"pgr": [], "fieller": [], "accuracy": [], "unbounded": []}
    for _ in range(runs):
        weak, w2s, ceiling = simulate(rng, seeds, n, accuracy, seed_sd)
        found = stats.pgr_interval(weak, w2s, ceiling, n_boot=n_boot, rng=rng)
        hits["unbounded"].append(found.kind == "unbounded")
        if found.kind != "undefined":
            hits["pgr"].append(found.kind == "unbounded" or found.lo <= ratio <= found.hi)
        hits["fieller"].append(fieller_holds(weak, w2s, ceiling, ratio, n_boot, rng))
        _, lo, hi = stats.hierarchical_bootstrap(weak, n_boot=n_boot, rng=rng, bounds=(0, 1))
        hits["accuracy"].append(lo <= expected[0] <= hi)
    return {k: float(np.mean(v)) for k, v in hits.items()}


def fieller_holds(weak, w2s, ceiling, ratio: float, n_boot: int, rng) -> bool:
    """Whether the test behind the interval accepts a ratio: its acceptance is the nominal 95 % even without a gap."""
    gains = [np.stack([b - a, c - a], 1) for a, b, c in zip(weak, w2s, ceiling, strict=True)]
    boot = np.concatenate(
        [np.stack([w @ g / len(g) for g in gains], 1) for w in stats.item_weights(len(gains[0]), n_boot, rng)]
    )
    excess = stats._fieller_excess(np.stack([g.mean(0) for g in gains]), boot)
    return bool(excess(np.arctan(ratio)) <= 0)


USUAL = (0.80, 0.86, 0.95)


def test_coverage_of_pgr_and_accuracy_quick():
    one = coverage(100, 1, 250, USUAL, 0.0, n_boot=120)
    three = coverage(100, 3, 250, USUAL, 0.2, n_boot=120)
    for found in (one, three):
        assert 0.87 <= found["pgr"] <= 1.0 and 0.87 <= found["accuracy"] <= 1.0  # 100 runs: 0.95 +- 0.044


def test_pgr_near_the_floor_has_no_finite_interval_but_keeps_its_level():
    found = coverage(150, 1, 250, (0.80, 0.803, 0.806), 0.0, n_boot=120)
    assert found["unbounded"] > 0.3 and found["pgr"] >= 0.93 and 0.89 <= found["fieller"] <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.05), (3, 0.1), (5, 0.1)])
def test_coverage_is_93_to_97_percent(seeds, seed_sd):
    """Enough runs that 95 % is told from 93 % and 97 %: standard error 0.5 points."""
    found = coverage(2000, seeds, 1000, USUAL, seed_sd, n_boot=400)
    assert 0.93 <= found["pgr"] <= 0.97 and 0.93 <= found["accuracy"] <= 0.97, found


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [(0.80, 0.81, 0.83), (0.80, 0.803, 0.806)])
def test_coverage_near_the_floor(accuracy):
    found = coverage(2000, 1, 1000, accuracy, 0.0, n_boot=400)
    assert 0.93 <= found["fieller"] <= 0.97 and found["pgr"] >= 0.93, found


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "seed_sd", "gap"), [(1, 0.0, 0.025), (1, 0.0, 0.05), (3, 0.1, 0.03), (3, 0.1, 0.06)])
def test_coverage_where_the_gap_is_one_to_three_standard_errors(seeds, seed_sd, gap):
    """Weak supervisor and ceiling 1.0, 2.2, 1.3 and 2.8 standard errors of their gap apart, PGR 0.5, 400 items.

    Fieller's set (all ratios that its test does not reject) holds the truth in 93 to 97 % of all runs, those among them
    where the ceiling comes out below the weak supervisor. What a report prints holds it more often, 96 to 99.5 % of the
    runs with a PGR: where the set is not one finite interval the report says so and claims nothing, which cannot be
    wrong. That is the case in 39 to 76 % of these runs.
    """
    found = coverage(2000, seeds, 400, (0.8, 0.8 + gap / 2, 0.8 + gap), seed_sd, n_boot=150)
    assert 0.93 <= found["fieller"] <= 0.97 and 0.95 <= found["pgr"] <= 0.998, found
    assert found["unbounded"] > 0.3, found


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.2, 0.4])
def test_coverage_with_three_seeds_at_the_extremes(seed_sd):
    """Three values say little of a variance: the price is paid in width where seeds hardly differ."""
    found = coverage(1000, 3, 1000, USUAL, seed_sd)
    assert 0.92 <= found["pgr"] <= 0.995 and 0.92 <= found["accuracy"] <= 0.99, found


def test_one_seed_is_the_items_binomial_interval():
    correct = np.repeat([1.0, 0.0], [80, 20])
    mean, lo, hi = stats.hierarchical_bootstrap([correct], n_boot=20_000)
    assert mean == 0.8 and hi - lo == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 100), rel=0.03)


def test_seeds_that_differ_widen_the_interval_and_agreeing_ones_do_not_shrink_it():
    rng = np.random.default_rng(0)
    base = (rng.random(500) < 0.8).astype(float)
    other = [np.r_[np.ones(k), base[k:]] for k in (0, 100, 300)]
    width = {}
    for name, seeds in {"one": [base], "same": [base] * 3, "differ": other}.items():
        _, lo, hi = stats.hierarchical_bootstrap(seeds, rng=np.random.default_rng(1))
        width[name] = hi - lo
    assert width["same"] == pytest.approx(width["one"], rel=0.02) and width["differ"] > 2 * width["one"]


def test_a_statistic_of_rows_and_items_joined_by_id():
    values = [np.arange(50.0), np.arange(50.0)[::-1]]
    ids = [np.arange(50), np.arange(50)[::-1]]  # the same items in another order
    by_id = stats.hierarchical_bootstrap(values, n_boot=400, ids=ids)
    slow = stats.hierarchical_bootstrap(values, lambda v: v.mean(), n_boot=400, ids=ids)
    assert by_id == pytest.approx(slow, rel=1e-4)
    with pytest.raises(ValueError, match="give ids"):
        stats.hierarchical_bootstrap([np.ones(3), np.ones(4)])


def test_perfect_scores_have_an_exact_lower_bound_and_bounds_hold():
    mean, lo, hi = stats.hierarchical_bootstrap([np.ones(100)], bounds=(0, 1))
    assert (mean, hi) == (1.0, 1.0) and lo == pytest.approx(0.025 ** (1 / 100))
    _, lo, hi = stats.hierarchical_bootstrap([np.r_[np.zeros(1), np.ones(99)], np.ones(100)], bounds=(0, 1))
    assert 0 < lo < hi <= 1


def test_a_score_without_upper_bound_has_an_interval_above_zero():
    boot = np.random.default_rng(0).normal(10.0, 4.0, (4000, 1))
    found = stats.seed_item_interval([10.0], boot, bounds=(0.0, np.inf))
    factor = np.exp(1.96 * boot.std() / 10)
    assert [found.lo, found.hi] == pytest.approx([10 / factor, 10 * factor], rel=1e-3) and found.lo > 0
    none = stats.seed_item_interval([0.0, 0.0], np.zeros((9, 2)), bounds=(0.0, np.inf))
    assert (none.lo, none.hi) == (0.0, 0.0)


def test_mean_ci_is_students():
    mean, lo, hi = stats.mean_ci([1.0, 2.0, 3.0])
    assert mean == 2.0 and hi - mean == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4) and lo < mean
    assert np.isnan(stats.mean_ci([1.0])[1])


def test_pgr_of_means_undefined_and_order_of_ends():
    rng = np.random.default_rng(0)
    weak, w2s, ceiling = simulate(rng, 3, 800, USUAL, 0.02)
    found = stats.pgr_interval(weak, w2s, ceiling)
    a, b, c = (np.mean([x.mean() for x in xs]) for xs in (weak, w2s, ceiling))
    assert found.value == pytest.approx((b - a) / (c - a)) and found.lo < found.value < found.hi
    for low in (weak, ceiling):  # a ceiling that is equal to or below the weak supervisor
        got = stats.pgr_interval(ceiling, w2s, low)
        assert got.kind == "undefined" and np.isnan([got.value, got.lo, got.hi]).all()
    same = stats.pgr_interval(weak, weak, ceiling)
    assert same.value == 0 and same.lo == pytest.approx(0, abs=1e-3) and same.hi == pytest.approx(0, abs=1e-3)


def test_fiellers_interval_is_the_closed_form():
    """One seed, normal quantile: the roots of (x - r y)^2 = z^2 (vxx - 2 r vxy + r^2 vyy)."""
    rng = np.random.default_rng(3)
    boot = rng.multivariate_normal([0.06, 0.15], [[1e-4, 4e-5], [4e-5, 2e-4]], size=4000)
    found = stats.pgr_from_bootstrap([0.8], [0.86], [0.95], np.zeros((4000, 1)), boot[:, :1], boot[:, 1:])
    v, z = np.cov(boot.T), ndtri(0.975)
    roots = np.roots([0.15**2 - z**2 * v[1, 1], 2 * (z**2 * v[0, 1] - 0.06 * 0.15), 0.06**2 - z**2 * v[0, 0]])
    assert [found.lo, found.hi] == pytest.approx(sorted(roots), rel=1e-6)


def test_mcnemar():
    a, b = np.zeros(20), np.zeros(20)
    a[:8], b[8:10] = 1, 1
    assert stats.mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # 2 of 10 coins
    assert stats.mcnemar(a, a) == 1.0
    with pytest.raises(ValueError, match="one length"):
        stats.mcnemar([1], [1, 0])


def test_permutation_agrees_with_mcnemar_and_takes_many_comparisons():
    a, b = np.zeros(50), np.zeros(50)
    a[:12], b[12:15] = 1, 1
    p = stats.paired_permutation(np.stack([a - b, a - a], 1), 20_000)
    assert p[0] == pytest.approx(stats.mcnemar(a, b), abs=0.006) and p[1] == 1.0
    assert stats.paired_permutation(np.ones(40)) == pytest.approx(1 / 10_001)


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]).shape == (0,) and stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
