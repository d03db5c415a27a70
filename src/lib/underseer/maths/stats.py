"""From seeds and test items to intervals and tests: pure functions of arrays.

Letters: S seeds, n test items, B bootstrap replicates, M methods.

**What a 95 % interval here means.** The quantity is the expected score over training seeds and over test items of
this kind. Two sources of chance are counted together:
- test items, by a bootstrap that draws items (unique texts) with the same draw for all methods and for every seed
that shares the items (Owen 2007, "The pigeonhole bootstrap", without its factor for rows: see below);
- seeds, by the variance of the S per-seed scores.
Drawing 3 seeds out of 3 with replacement would understate the seed variance by a third and know nothing of how
badly three values estimate a variance. So seeds enter by their unbiased variance, and the quantile is Student's t
with degrees of freedom after Satterthwaite: close to 1.96 where items dominate, up to 4.3 where 3 seeds dominate. The
variance is never taken below that of test items alone, so three seeds that agree by luck do not shrink an interval.
Simulated coverage of the nominal 95 % with 3 seeds: 0.93 to 0.99 over all mixtures of seed and item noise (see
tests/test_stats.py). PGR: 0.93 to 0.97 where weak supervisor and ceiling differ; where they are within some three
standard errors of each other, printed PGRs hold the truth in 0.96 to 0.995 of the runs, more than nominal, because most
then state no interval at all. With **one seed** the interval covers test items only: it says nothing about
another training run, and tables say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


def _components(values: np.ndarray, boot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    values, boot, *, bounds: tuple[float, float] | None = (0.0, 1.0), n_items: int | None = None
) -> Interval:
    """Mean over seeds with its 95 % interval over seeds and test items.

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
    parts = _components(values[:, None], boot[:, :, None])
    half = float(_half_width(*(x[0, 0] for x in parts), len(values)))
    if bounds is None:
        return Interval(mean, mean - half, mean + half)
    low, high = bounds
    if np.isinf(high):
        factor = np.exp(np.clip(half / (mean - low), 0, 700)) if mean > low else 1.0
        return Interval(mean, low + (mean - low) / factor, low + (mean - low) * factor)
    unit = (mean - low) / (high - low)
    if not 0 < unit < 1:
        tail = 1 - ((1 - LEVEL) / 2) ** (1 / n_items) if n_items else 0.0
        edge = tail * (high - low)
        return Interval(mean, low, low + edge) if unit <= 0 else Interval(mean, high - edge, high)
    logit, step = np.log(unit / (1 - unit)), half / (high - low) / (unit * (1 - unit))
    lo, hi = (low + (high - low) / (1 + np.exp(-np.clip(logit + side * step, -700, 700))) for side in (-1, 1))
    return Interval(mean, float(lo), float(hi))


def _index_items(lengths: Sequence[int], ids) -> tuple[list[np.ndarray], int]:
    """Position of each row of each seed among the unique items, and how many there are. ids None: seeds share their
    items."""
    if ids is None:
        if len(set(lengths)) != 1:
            raise ValueError(f"seeds have {list(lengths)} rows: give ids to say which items they share")
        return [np.arange(lengths[0])] * len(lengths), lengths[0]
    if [len(i) for i in ids] != list(lengths):
        raise ValueError(f"ids have {[len(i) for i in ids]} rows, values {list(lengths)}")
    unique, inverse = np.unique(np.concatenate([np.asarray(i) for i in ids]), return_inverse=True)
    return np.split(inverse, np.cumsum(lengths)[:-1]), len(unique)


def hierarchical_bootstrap(
    values_per_seed: Sequence[np.ndarray],
    stat: Callable | None = None,
    n_boot: int = N_BOOT,
    rng: np.random.Generator | None = None,
    *,
    ids: Sequence | None = None,
    bounds: tuple[float, float] | None = None,
) -> tuple[float, float, float]:
    """(mean, lo, hi) over seeds and items of a per-item score; see the module's text for the meaning.

    values_per_seed: S arrays (n_s,) of item scores, or (n_s, ...) with a `stat`. stat: function of the rows of one
    seed giving a number; None is the mean (one matrix product). ids: per seed the items' ids; None means that all
    seeds were scored on the same items in the same order. bounds: range of the statistic, such as (0, 1).
    """
    rng = np.random.default_rng(0) if rng is None else rng
    arrays = [np.asarray(v) for v in values_per_seed]
    where, n = _index_items([len(a) for a in arrays], ids)
    blocks = []
    for weights in item_weights(n, n_boot, rng):
        if stat is None:
            columns = [weights[:, w] @ a / weights[:, w].sum(1) for w, a in zip(where, arrays, strict=True)]
        else:
            counts = weights.astype(int)
            columns = [[stat(np.repeat(a, c[w], axis=0)) for c in counts] for w, a in zip(where, arrays, strict=True)]
        blocks.append(np.stack([np.asarray(c, float) for c in columns], axis=1))
    values = np.array([np.mean(a) if stat is None else stat(a) for a in arrays])
    out = seed_item_interval(values, np.concatenate(blocks), bounds=bounds, n_items=n)
    return out.mean, out.lo, out.hi


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


def pgr_from_bootstrap(weak, w2s, ceiling, boot_weak, boot_w2s, boot_ceiling) -> PGR:
    """PGR of the mean scores with Fieller's 95 % interval from a paired bootstrap.

    weak, w2s, ceiling: (S,) score per seed. boot_*: (B, S), row b on the same item draw for all three.
    PGR = (w2s - weak) / (ceiling - weak) (Burns et al. 2023), of the means over seeds: a mean of per-seed ratios
    has no finite variance. A ratio r is in the interval where (w2s - weak) - r (ceiling - weak) does not differ
    from 0 (Fieller 1954), so its coverage holds however small the gap: where the gap itself does not differ from 0,
    every ratio fits, no finite interval exists ('unbounded'). Ceiling not above weak: 'undefined'.
    """
    values = np.stack([np.subtract(w2s, weak), np.subtract(ceiling, weak)], axis=-1).astype(float)  # (S, 2)
    boot = np.stack([np.subtract(boot_w2s, boot_weak), np.subtract(boot_ceiling, boot_weak)], axis=-1)  # (B, S, 2)
    boot = boot[~np.isnan(boot).any((1, 2))]
    gain, gap = values.mean(0)
    nan = float("nan")
    if not gap > 1e-12:
        return PGR(nan, nan, nan, "undefined")
    value = float(gain / gap)
    excess = _fieller_excess(values, boot)
    # Ratios as angles: r = tan(angle), so both ends of the grid are r = infinity, where the gap itself is tested.
    grid = np.linspace(-np.pi / 2, np.pi / 2, 2001)
    inside = excess(grid) <= 0
    if inside[0] or inside[-1]:
        return PGR(value, nan, nan, "unbounded")
    centre = np.arctan2(gain, gap)
    low = _edge(excess, grid, centre, -1)
    high = _edge(excess, grid, centre, +1)
    return PGR(value, float(np.tan(low)), float(np.tan(high)), "bounded")


def _fieller_excess(values: np.ndarray, boot: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function of angles: |gain cos - gap sin| minus its half-width. Not above 0: tan(angle) is in Fieller's set."""
    parts = _components(values, boot)
    gain, gap = values.mean(0)

    def excess(angle):
        u = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)  # (..., 2)
        variances = (np.einsum("...i,ij,...j->...", u, part, u) for part in parts)
        return np.abs(gain * u[..., 0] + gap * u[..., 1]) - _half_width(*variances, len(values))

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


def pgr_interval(weak, w2s, ceiling, *, ids=None, n_boot: int = N_BOOT, rng: np.random.Generator | None = None) -> PGR:
    """PGR from per-item scores (1 where correct). weak, w2s, ceiling: S arrays (n_s,), item j of each being the
    same item.

    ids: as in `hierarchical_bootstrap`. Raises ValueError where the three disagree in shape.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    triples = [
        np.stack([np.asarray(x, np.float32) for x in xs], 1) for xs in zip(weak, w2s, ceiling, strict=True)
    ]  # (n_s, 3)
    where, n = _index_items([len(x) for x in triples], ids)
    boot = np.concatenate(
        [
            np.stack(
                [weights[:, w] @ x / weights[:, w].sum(1, keepdims=True) for w, x in zip(where, triples, strict=True)],
                1,
            )
            for weights in item_weights(n, n_boot, rng)
        ]
    )  # (B, S, 3)
    values = np.stack([x.mean(0, dtype=float) for x in triples])  # (S, 3)
    return pgr_from_bootstrap(*values.T, *np.moveaxis(boot, -1, 0))


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


def paired_permutation(differences, n_permutations: int = 10_000, rng: np.random.Generator | None = None):
    """Two-sided sign-flip test that paired differences have mean zero.

    differences: (n,) or (n, K) for K comparisons at once; row = one independent item (average over seeds first).
    p = (1 + permutations at least as extreme) / (1 + permutations), so never 0. Returns a float or (K,).
    """
    rng = np.random.default_rng(0) if rng is None else rng
    d = np.asarray(differences, np.float64)
    table = d[:, None] if d.ndim == 1 else d
    used = table[np.any(table != 0, axis=1)]
    observed, extreme = np.abs(used.sum(0)), np.zeros(table.shape[1])
    step = max(1, 2**22 // max(1, len(used)))
    for start in range(0, n_permutations, step):
        b = min(step, n_permutations - start)
        signs = rng.integers(0, 2, size=(b, len(used)), dtype=np.int8).astype(np.float32) * 2 - 1
        extreme += (np.abs(signs @ used) >= observed - 1e-9 * (1 + observed)).sum(0)
    p = (1 + extreme) / (1 + n_permutations)
    return float(p[0]) if d.ndim == 1 else p


def holm(p_values) -> np.ndarray:
    """Holm's (1979) step-down adjusted p-values, in the order given: at 0.05 the family-wise error is at most 5 %."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out
