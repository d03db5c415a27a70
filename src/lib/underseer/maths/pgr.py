"""Performance gap recovered."""

from __future__ import annotations

import math


def pgr(weak: float, w2s: float, ceiling: float) -> float:
    """``(w2s - weak) / (ceiling - weak)`` (Burns et al. 2023, section 3; arXiv 2410.12621).

    All three in the same metric, higher being better. NaN where the ceiling is not above the weak model or a value is
    missing: there is no gap to recover. Not clipped: below 0 the student is worse than its supervisor, above 1 better
    than the ceiling.
    """
    if any(math.isnan(value) for value in (weak, w2s, ceiling)) or ceiling <= weak:
        return math.nan
    return (w2s - weak) / (ceiling - weak)
