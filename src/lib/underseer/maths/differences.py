"""Whether two methods differ: intervals and p-values of a paired difference, over training seeds and test items.

Letters: S seeds, B bootstrap replicates, K comparisons of one family.

**The test.** The two methods are scored on the same items in every seed, so that the statistic is the mean of S per-seed
differences. Two sources of chance are counted, each by a quantile of its own (Banerjee 1961, "On confidence interval
for two-means problem based on separate estimates of variances and tabulated values of t-table", Sankhya A 23):

    half-width^2 = z^2 * (variance by items that all seeds share) + t^2 * (variance between seeds / S)

z is the normal quantile, t Student's with S - 1 degrees of freedom: item noise is measured on hundreds of items, seed
noise on S numbers. It never falls below z^2 * (variance by items with these seeds fixed). For normal seeds the coverage
is at least nominal at **every** level, which a Satterthwaite quantile is not: at the levels that a correction for ten
comparisons asks for, it gave 11 to 16 % false findings with 3 seeds. The p-value is the level at which the interval
just touches zero, so p < 0.05 exactly where the 95 % interval excludes zero.

**Simulated** (tests/test_differences.py; five methods without any difference, ten comparisons, 200 to 500 items, sd of
seeds 0 to 0.8 on the logit, normal or exponential seeds, items alone or in clusters, shared by seeds or not): at least
one false finding after Holm's correction in 0.2 to 4.8 % of the runs; coverage of the 95 % interval 0.95 to 0.96 where
seeds differ by 0.3 or more, and up to 0.99 where they hardly do: three numbers cannot show that they hardly do. The same holds of
a family of four, two of which share a method, as a report of W2S states them beforehand.
**What breaks it**: seeds that fall far behind in one of two methods only. With an exponential tail (sd 0.8 on the logit)
towards failure, two methods of equal mean differ at 0.05 in 14 to 17 % of the runs, at 0.005 in 2 to 6 %, with 3 to 8
seeds alike; with normal seeds of such an sd in one method only, in 7.5 % and 1 %. See ``collapse``: where a seed has
collapsed, look at every seed.

**Power.** The smallest difference shown in 80 % of runs, in units of the sd of the per-seed differences, items' noise in it:
with 3 seeds 3.3 for one comparison alone and 10.4 at the first of ten Holm steps; with 5 seeds 1.7 and 3.2; with 8 seeds
1.2 and 1.8. So an accuracy whose differences have an sd of 3 points shows 31, 9 or 5 points among ten comparisons: three
seeds show large effects only, and each comparison that is not asked makes the others stronger.

With **one seed** the test is over test items alone: it says nothing about another training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from underseer.maths.stats import variance_parts

ALPHA = 0.05
POWER = 0.8
SMALLEST_P = 1e-30


def half_width(items, shared, seeds, n_seeds: int, alpha):
    """Half-width of the interval at level 1 - alpha, from variances as `variance_parts` gives them; arrays of one shape,
    in the square of the score's unit."""
    from scipy.special import ndtri, stdtrit

    z = -ndtri(np.asarray(alpha) / 2)
    fixed = z**2 * np.maximum(items, 0)
    if n_seeds == 1:
        return np.sqrt(fixed)
    t = -stdtrit(n_seeds - 1, np.asarray(alpha) / 2)
    return np.sqrt(np.maximum(fixed, z**2 * np.maximum(shared, 0) + t**2 * np.maximum(seeds, 0)))


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds, in the score's unit, with its variances: by items with the seeds fixed, the part of it
    that all seeds share, and between seeds / S. n_differ: items whose outcome differs between the two methods."""

    mean: float
    items: float
    shared: float
    seeds: float
    n_seeds: int
    n_differ: int

    @property
    def floor(self) -> float:
        """The smallest p-value that this many items can show: all of them point the same way, as so many coins would.

        So a handful of items shows nothing, although they may all agree and have no variance.
        """
        return min(1.0, 2.0 ** (1 - self.n_differ))

    def half(self, alpha: float) -> float:
        """Half-width of the interval at level 1 - alpha, `floor` aside."""
        return float(half_width(self.items, self.shared, self.seeds, self.n_seeds, alpha))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """The ends of the interval at level 1 - alpha; it reaches to zero where the items are too few for that level."""
        half = self.half(alpha)
        lo, hi = self.mean - half, self.mean + half
        return (min(lo, 0.0), max(hi, 0.0)) if self.floor >= alpha else (lo, hi)

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference: the alpha at which the interval just touches zero. 1.0 without variances."""
        from scipy.optimize import brentq

        if math.isnan(self.items) or self.mean == 0:
            return 1.0

        def excess(log_alpha: float) -> float:
            return self.half(math.exp(log_alpha)) - abs(self.mean)

        start = math.log(SMALLEST_P)
        inverted = math.exp(brentq(excess, start, 0.0, xtol=1e-13)) if excess(start) > 0 else SMALLEST_P
        return max(self.floor, inverted)

    def smallest_effect(self, alpha: float = ALPHA, power: float = POWER) -> float:
        """The smallest true difference that a test at level alpha shows with this power, were the variances as estimated.

        From the noncentral t distribution, with Satterthwaite's (1946, eq. 17) degrees of freedom. NaN without variances.
        """
        from scipy.special import nctdtrinc

        total = max(self.items, max(self.shared, 0.0) + self.seeds)
        if not total > 1e-24:  # what rounding leaves of equal scores is no variance
            return math.nan
        df = min((self.n_seeds - 1) * (total / self.seeds) ** 2, 1e6) if self.seeds > 0 else 1e6
        error = math.sqrt(total)
        return error * float(nctdtrinc(df, 1 - power, self.half(alpha) / error))


def paired_difference(values, boot, n_differ: int) -> Difference:
    """The difference of two methods over seeds.

    values: (S,) difference of their scores in each seed. boot: (B, S) the same on B draws of items; draws with a NaN are
    left out. n_differ: number of items whose outcome differs. Raises ValueError for other shapes.
    """
    values, boot = np.asarray(values, float), np.asarray(boot, float)
    if values.ndim != 1 or boot.ndim != 2 or boot.shape[1] != len(values):
        raise ValueError(f"values must be (S,) and boot (B, S), got {values.shape} and {boot.shape}")
    boot = boot[~np.isnan(boot).any(1)]
    parts = (math.nan,) * 3
    if len(boot) >= 2:
        parts = tuple(float(x[0, 0]) for x in variance_parts(values[:, None], boot[:, :, None]))
    return Difference(float(values.mean()), *parts, len(values), n_differ)


def of_ratios(above, below) -> tuple[float, float]:
    """The first of two ratios less the second, each of sums over seeds, and its variance between seeds: the jackknife's, which leaves one
    seed out at a time (Efron and Stein 1981, "The jackknife estimate of variance", Annals of Statistics 9); 0 of one seed.

    above, below: (2, S). A seed counts as much as it has below the line; without any one seed something must be left there.
    """
    above, below = np.asarray(above, float), np.asarray(below, float)
    n = above.shape[1]
    first, second = above.sum(1) / below.sum(1)
    if n == 1:
        return float(first - second), 0.0
    without = (above.sum(1, keepdims=True) - above) / (below.sum(1, keepdims=True) - below)
    moves = without[0] - without[1]
    return float(first - second), float((n - 1) / n * ((moves - moves.mean()) ** 2).sum())


def mcnemar(a, b) -> float:
    """Exact two-sided McNemar p-value. a, b: (n,) 1 where the classifier is right, paired by item (McNemar 1947).

    Under the null the items on which exactly one is right are fair coin tosses: a binomial test. No such item: 1.0.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a and b must be two vectors of one length, got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values) -> np.ndarray:
    """Holm's (1979) step-down adjusted p-values, in the order given: at 0.05 the family-wise error is at most 5 %."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def holm_levels(p_values, alpha: float = ALPHA) -> np.ndarray:
    """The alpha at which Holm's procedure tests each of K comparisons, in the order given.

    Comparisons are taken from the smallest p on: alpha / K, alpha / (K - 1), ... until one is not shown; it and all after
    it have the alpha of that step. So an interval at this level excludes zero exactly where the adjusted p is below alpha.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    steps = alpha / np.arange(len(p), 0, -1)
    failed = np.flatnonzero(p[order] >= steps)
    out = np.empty_like(p)
    out[order] = steps if not len(failed) else np.minimum(steps, steps[failed[0]])
    return out
