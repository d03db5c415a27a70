"""From seeds and test items to intervals of scores and of the performance gap recovered: pure functions of arrays.

Letters: S seeds, n test items, B bootstrap replicates. Tests between methods are in ``differences``.

**What a 95 % interval here means.** The quantity is the expected score over training seeds and over test items of
this kind. Two sources of chance are counted together:
- test items, by a bootstrap that draws items (unique texts) with the same draw for all methods and for every seed
that shares the items (Owen 2007, "The pigeonhole bootstrap", without its factor for rows: see below);
- seeds, by the variance of the S per-seed scores.
Drawing 3 seeds out of 3 with replacement would understate the seed variance by a third and know nothing of how
badly three values estimate a variance. So seeds enter by their unbiased variance, and the quantile is Student's t
with degrees of freedom after Satterthwaite: close to 1.96 where items dominate, up to 4.3 where 3 seeds dominate. The
variance is never taken below that of test items alone, so three seeds that agree by luck do not shrink an interval.

**Simulated coverage** of the nominal 95 % (tests/test_coverage.py, tests/test_stats.py): 3, 5 and 8 seeds that differ by this
sd on the logit, normal or exponential, 200 items a seed or 60 clusters of 5; last, one training in ten ends at chance.

    interval of                            sd 0.1        sd 0.3        sd 0.6        one in ten collapses
    a mean over seeds                      0.97 - 0.98   0.95 - 0.97   0.93 - 0.95   0.78 - 0.94
    a difference of two methods            0.95 - 0.99   0.95 - 0.97   0.94 - 0.96   0.96 - 0.99
    PGR (Fieller's set)                    0.96 - 0.98   0.95 - 0.97   0.94 - 0.95   0.94 - 0.98
    a relative change (Fieller's set)      0.97 - 0.99   0.95 - 0.97   0.94 - 0.97   0.95 - 0.98
    a rate corrected by labelled answers   0.97 - 0.99   0.96 - 0.98   0.94 - 0.98   0.88 - 0.97

Where seeds hardly differ, few of them cannot show it, and intervals are somewhat wide. Where trainings collapse, most samples hold
none and know nothing of it: no interval of a mean from a few seeds holds its level (``collapse`` marks such seeds); a difference of
two methods that collapse alike does. Where weak supervisor and ceiling are within some three standard errors of each other,
printed PGRs hold the truth in 0.96 to 0.995 of the runs, since most then state no interval at all; with 5 seeds or more that
differ by 0.3, and a gap of 1.2 on the logit, at least 93 % of runs state one. With **one seed** the interval covers test items
only: it says nothing about another training run, and tables say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
N_BOOT = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, in the unit of the score; lo and hi are NaN where there is none."""

    mean: float
    lo: float
    hi: float


@dataclass(frozen=True)
class PGR:
    """Performance gap recovered. kind: 'bounded'; 'unbounded' (value but no finite interval); 'undefined' (all
    NaN)."""

    value: float
    lo: float
    hi: float
    kind: str


def item_weights(n: int, n_boot: int, rng: np.random.Generator, chunk: int = 2**22) -> Iterator[np.ndarray]:
    """Multinomial bootstrap counts of n items, float32, in blocks (b, n) of at most `chunk` numbers; b sums to
    n_boot."""
    step = max(1, chunk // n)
    for start in range(0, n_boot, step):
        b = min(step, n_boot - start)
        draws = rng.integers(n, size=(b, n)) + np.arange(b)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=b * n).reshape(b, n).astype(np.float32)


def variance_parts(values: np.ndarray, boot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances of the mean over seeds. values: (S, d); boot: (B, S, d), item draws with seeds fixed.

    Returns three (d, d): items alone; the part of it that all seeds share; seeds (their observed covariance / S,
    which already holds what item noise adds to each seed separately).
    """
    s, d = values.shape
    centre = boot.mean(1)
    items = np.cov(centre, rowvar=False).reshape(d, d)
    if s == 1:
        return items, items, np.zeros((d, d))
    noise = boot - boot.mean(0)  # (B, S, d)
    noise = noise - noise.mean(1, keepdims=True)
    within = np.einsum("bsi,bsj->ij", noise, noise) / (len(boot) * (s - 1))
    return items, items - within / s, np.cov(values, rowvar=False).reshape(d, d) / s


def _half_width(items, shared, seeds, n_seeds: int):
    """Half-width of the interval from variances (any shape): items alone, shared by all seeds, and between seeds / S.

    Variance max(items, shared + seeds); t quantile with (S - 1) / share**1.5 degrees of freedom, share being the seeds'
    part of the variance. Satterthwaite's (1946, eq. 17) exponent is 2: exact for a known share, but with 3 seeds the
    share is itself a guess, and simulated coverage falls to 0.92; 1.5 keeps it at 0.93 or more.
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 + LEVEL) / 2
    if n_seeds == 1:
        return ndtri(tail) * np.sqrt(np.maximum(items, 0))
    total = np.maximum(items, np.maximum(shared, 0) + np.maximum(seeds, 0))
    ratio = np.divide(total, seeds, out=np.full(np.shape(total), 1e6), where=np.asarray(seeds) > 0)
    df = np.minimum((n_seeds - 1) * ratio**1.5, 1e9)
    return stdtrit(df, tail) * np.sqrt(total)


def seed_item_interval(
    values,
    boot,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    n_items: int | None = None,
    fixed_seeds: bool = False,
) -> Interval:
    """Mean over seeds with its 95 % interval over seeds and test items; fixed_seeds: over test items alone, for these trainings.

    values: (S,) score of each seed. boot: (B, S) the same scores on B item draws, one draw of items per row.
    bounds: the score's range; the interval is then made on the logit scale (log scale where the upper bound is
    infinite) and stays inside. None: any real number.
    n_items: unique test items; where every seed scores exactly a bound, it gives the exact binomial
    (Clopper-Pearson) bound.
    """
    values, boot = np.asarray(values, float), np.asarray(boot, float)
    if values.ndim != 1 or boot.ndim != 2 or boot.shape[1] != len(values):
        raise ValueError(f"values must be (S,) and boot (B, S), got {values.shape} and {boot.shape}")
    mean = float(values.mean())
    boot = boot[~np.isnan(boot).any(1)]
    if np.isnan(mean) or len(boot) < 2:
        return Interval(mean, float("nan"), float("nan"))
    parts = variance_parts(values[:, None], boot[:, :, None])
    half = float(_half_width(*(x[0, 0] for x in parts), 1 if fixed_seeds else len(values)))
    if bounds is None:
        return Interval(mean, mean - half, mean + half)
    low, high = bounds
    if np.isinf(high):
        factor = np.exp(np.clip(half / (mean - low), 0, 700)) if mean > low else 1.0
        return Interval(mean, low + (mean - low) / factor, low + (mean - low) * factor)
    if not low < mean < high:
        tail = 1 - ((1 - LEVEL) / 2) ** (1 / n_items) if n_items else 0.0
        edge = tail * (high - low)
        return Interval(mean, low, low + edge) if mean <= low else Interval(mean, high - edge, high)
    lo, hi = bounded(mean, half, bounds)
    return Interval(mean, float(lo), float(hi))


def bounded(mean, half, bounds: tuple[float, float] = (0.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Ends of mean +- half made on the logit scale, inside the bounds; mean, half: one shape, means strictly inside."""
    low, high = bounds
    unit = (np.asarray(mean) - low) / (high - low)
    logit, step = np.log(unit / (1 - unit)), half / (high - low) / (unit * (1 - unit))
    lo, hi = (low + (high - low) / (1 + np.exp(-np.clip(logit + side * step, -700, 700))) for side in (-1, 1))
    return lo, hi


def mean_ci(values) -> tuple[float, float, float]:
    """(mean, lo, hi): Student's t interval over S per-seed numbers alone; lo and hi NaN for one value. NaN values
    are refused."""
    from scipy.stats import t

    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(f"values must be a non-empty vector without NaN, got shape {values.shape}")
    mean = float(values.mean())
    if len(values) == 1:
        return mean, float("nan"), float("nan")
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def pgr(weak: float, w2s: float, ceiling: float) -> float:
    """Performance gap recovered, ``(w2s - weak) / (ceiling - weak)`` (Burns et al. 2023, section 3; arXiv 2410.12621).

    All three in the same metric, higher being better. NaN where the ceiling is not above the weak model or a value is
    missing: there is no gap to recover. Not clipped: below 0 the student is worse than its supervisor, above 1 better
    than the ceiling.
    """
    if any(np.isnan(value) for value in (weak, w2s, ceiling)) or ceiling <= weak:
        return float("nan")
    return (w2s - weak) / (ceiling - weak)


def pgr_interval(weak, w2s, ceiling, boot_weak, boot_w2s, boot_ceiling) -> PGR:
    """PGR of the mean scores with Fieller's 95 % interval from a paired bootstrap.

    weak, w2s, ceiling: (S,) score per seed. boot_*: (B, S), row b on the same item draw for all three.
    PGR = (w2s - weak) / (ceiling - weak) (Burns et al. 2023), of the means over seeds: a mean of per-seed ratios
    has no finite variance. A ratio r is in the interval where (w2s - weak) - r (ceiling - weak) does not differ
    from 0 (Fieller 1954), so its coverage holds however small the gap: where the gap itself does not differ from 0,
    every ratio fits, no finite interval exists ('unbounded'). Ceiling not above weak: 'undefined'.
    """
    gains = np.subtract(w2s, weak), np.subtract(boot_w2s, boot_weak)
    gaps = np.subtract(ceiling, weak), np.subtract(boot_ceiling, boot_weak)
    return ratio_interval(*gains, *gaps)


def ratio_interval(above, boot_above, below, boot_below, half: Callable[..., Any] | None = None) -> PGR:
    """The ratio of two means over seeds with Fieller's interval; arguments and result as of `pgr_interval`.

    half: half-width of the interval of a mean from its variances (items, shared, seeds) and the number of seeds, by default that
    of all 95 % intervals of this module.
    """
    values = np.stack([above, below], axis=-1).astype(float)  # (S, 2)
    boot = np.stack([boot_above, boot_below], axis=-1)  # (B, S, 2)
    boot = boot[~np.isnan(boot).any((1, 2))]
    gain, gap = values.mean(0)
    nan = float("nan")
    if not gap > 1e-12:
        return PGR(nan, nan, nan, "undefined")
    value = float(gain / gap)
    excess = _fieller_excess(values, boot, half or _half_width)
    # Ratios as angles: r = tan(angle), so both ends of the grid are r = infinity, where the gap itself is tested.
    grid = np.linspace(-np.pi / 2, np.pi / 2, 2001)
    inside = excess(grid) <= 0
    if inside[0] or inside[-1]:
        return PGR(value, nan, nan, "unbounded")
    centre = np.arctan2(gain, gap)
    low = _edge(excess, grid, centre, -1)
    high = _edge(excess, grid, centre, +1)
    return PGR(value, float(np.tan(low)), float(np.tan(high)), "bounded")


def _fieller_excess(values: np.ndarray, boot: np.ndarray, half=_half_width) -> Callable[[np.ndarray], np.ndarray]:
    """Function of angles: |gain cos - gap sin| minus its half-width. Not above 0: tan(angle) is in Fieller's set."""
    parts = variance_parts(values, boot)
    gain, gap = values.mean(0)

    def excess(angle):
        u = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)  # (..., 2)
        variances = (np.einsum("...i,ij,...j->...", u, part, u) for part in parts)
        return np.abs(gain * u[..., 0] + gap * u[..., 1]) - half(*variances, len(values))

    return excess


def _edge(excess, grid: np.ndarray, centre: float, side: int) -> float:
    """Where Fieller's set ends on one side of the estimate: the outermost accepted grid point, refined by
    bisection."""
    points = np.concatenate([[centre], grid[grid > centre] if side > 0 else grid[grid < centre][::-1]])
    accepted = np.flatnonzero(excess(points) <= 0)
    last = int(accepted[-1]) if len(accepted) else 0
    inner, outer = points[last], points[last + 1]
    for _ in range(40):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if excess(middle) <= 0 else (inner, middle)
    return inner
