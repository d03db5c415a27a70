"""From what an imperfect judge calls positive to the share that is positive. Pure functions of counts.

Letters: n items judged, k of them called positive; a calibration set of m1 positive and m0 negative items by human (or
oracle) labels, from whose confusion counts come sensitivity q1 and specificity q0.

``corrected_rate`` follows Lee et al. 2025, "How to Correctly Report LLM-as-a-Judge Evaluations" (arXiv 2511.21140): the
estimate of Rogan and Gladen (1978), and the interval of Lang and Reiczigel (2014), in which the uncertainty of the
calibration set is counted beside that of the items judged. It rests on three things: the judge errs on the judged items
as it does on the calibration set, given the truth; the calibration items are none of those judged; all are independent
(several answers to one prompt are not: see ``effective_n``). The first fails where a model has learnt to please the judge: the
report then corrects by labels of the same answers (``report.selfmoa.answers``), and by this only where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEVEL = 0.95
COUNTS = ("tp", "fp", "tn", "fn")


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for the judge's errors, in [0, 1]. Where it is not defined, estimate, lo and hi are NaN, and the
    ``note`` says why; where it is, the note warns, or is None."""

    estimate: float
    lo: float
    hi: float
    raw: float  # k / n, the share that the judge called positive
    note: str | None = None


def corrected_rate(k_positive: float, n: float, counts: Mapping[str, float], level: float = LEVEL) -> Corrected:
    """The share of n items that is positive, of which a judge called ``k_positive`` positive, with its interval.

    ``counts``: the judge's confusion counts on the calibration set, ``tp``, ``fp``, ``tn``, ``fn`` (a judge card's).
    Estimate: (p + q0 - 1) / (q0 + q1 - 1), clipped to [0, 1]. Interval, with p' = (k + z^2 / 2) / (n + z^2),
    q' = (m q + 1) / (m + 2) and theta' of these: theta' + d -+ z s, clipped, where d = 2 z^2 (theta' v1 - (1 - theta')
    v0), s^2 = (p' (1 - p') / (n + z^2) + (1 - theta')^2 v0 + theta'^2 v1) / (q0' + q1' - 1)^2 and v = q' (1 - q') / (m
    + 2).

    Where even that interval lies outside [0, 1], the judge called fewer (or more) positive than its errors alone give:
    it errs otherwise here than on the calibration set. The estimate is then 0 (or 1) with a note, and the interval's
    other end is the one that holds without false alarms (without misses): p_hi / q1', or 1 - (1 - p_lo) / q0', Wilson's
    limits. Not defined where nothing was judged, where the calibration set lacks positive or negative items, and where
    q0 + q1 <= 1: such a judge says nothing, or the contrary, of what it judges. Counts need not be whole.
    """
    m1, m0 = _sizes(k_positive, n, counts)
    raw = k_positive / n if n else math.nan
    if not (n and m1 and m0):
        missing = (
            "nothing was judged" if not n else f"the calibration set has no {'positive' if not m1 else 'negative'} item"
        )
        return _undefined(raw, missing)
    q1, q0 = counts["tp"] / m1, counts["tn"] / m0
    if min(q1 + q0, (counts["tp"] + 1) / (m1 + 2) + (counts["tn"] + 1) / (m0 + 2)) <= 1:
        return _undefined(
            raw, f"sensitivity {q1:.3f} + specificity {q0:.3f} is not above 1: the judge tells nothing apart"
        )
    lo, hi, note = _ends(k_positive, n, counts, level)
    estimate, lo, hi = (min(max(x, 0.0), 1.0) for x in ((raw + q0 - 1) / (q0 + q1 - 1), lo, hi))
    return Corrected(estimate, min(lo, estimate), max(hi, estimate), raw, note)


def _ends(k: float, n: float, counts: Mapping[str, float], level: float) -> tuple[float, float, str | None]:
    """The ends of `corrected_rate`'s interval before they are clipped, and its warning."""
    from scipy.special import ndtri

    m1, m0 = _sizes(k, n, counts)
    z = float(ndtri((1 + level) / 2))
    p, q1, q0 = (k + z**2 / 2) / (n + z**2), (counts["tp"] + 1) / (m1 + 2), (counts["tn"] + 1) / (m0 + 2)
    gain = q0 + q1 - 1
    theta = (p + q0 - 1) / gain
    v1, v0 = q1 * (1 - q1) / (m1 + 2), q0 * (1 - q0) / (m0 + 2)
    centre = theta + 2 * z**2 * (theta * v1 - (1 - theta) * v0)
    half = z * math.sqrt(p * (1 - p) / (n + z**2) + (1 - theta) ** 2 * v0 + theta**2 * v1) / gain
    low, high = wilson(k, n, level)
    if centre + half <= 0:
        alarms = f"{k / n:.3f} judged positive is below the false alarms expected, {1 - counts['tn'] / m0:.3f}"
        return centre - half, high / q1, f"{alarms}: {_STRANGE}"
    if centre - half >= 1:
        hits = f"{k / n:.3f} judged positive is above the hits expected, {counts['tp'] / m1:.3f}"
        return 1 - (1 - low) / q0, centre + half, f"{hits}: {_STRANGE}"
    return centre - half, centre + half, None


_STRANGE = "the judge errs otherwise here than on the calibration set"


def effective_n(rate: float, lo: float, hi: float, level: float = LEVEL) -> float:
    """How many independent items would give a rate in [0, 1] as wide an interval as it has: p (1 - p) / (half / z)^2.

    So a rate whose interval covers seeds, or several answers a prompt, is corrected as
    ``corrected_rate(rate * n, n, counts)`` with this n. NaN where the rate is 0 or 1 or the interval has no width.
    """
    from scipy.special import ndtri

    error = (hi - lo) / 2 / float(ndtri((1 + level) / 2))
    return rate * (1 - rate) / error**2 if error > 0 and 0 < rate < 1 else math.nan


def wilson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's (1927) score interval of a proportion k / n; NaN for n = 0. Counts need not be whole."""
    from scipy.special import ndtri

    if n == 0:
        return math.nan, math.nan
    z = float(ndtri((1 + level) / 2))
    centre, half = k + z**2 / 2, z * math.sqrt(k * (n - k) / n + z**2 / 4)
    low, high = ((centre + side * half) / (n + z**2) for side in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)


def proportion(k: float, n: float) -> dict[str, float | None]:
    """Share k / n with Wilson's 95 % interval: value, lo, hi; None where n is 0."""
    values = (k / n, *map(float, wilson(k, n))) if n else (None, None, None)
    return dict(zip(("value", "lo", "hi"), values, strict=True))


def _sizes(k_positive: float, n: float, counts: Mapping[str, float]) -> tuple[float, float]:
    """Positive and negative items of the calibration set; raises ValueError for what are no counts."""
    given = [*(counts[name] for name in COUNTS), n, k_positive]
    if not all(math.isfinite(x) and x >= 0 for x in given) or k_positive > n:
        raise ValueError(
            f"k_positive = {k_positive} of n = {n} with counts {dict(counts)}: counts are at least 0, k at most n"
        )
    return counts["tp"] + counts["fn"], counts["tn"] + counts["fp"]


def _undefined(raw: float, note: str) -> Corrected:
    return Corrected(math.nan, math.nan, math.nan, raw, note)
