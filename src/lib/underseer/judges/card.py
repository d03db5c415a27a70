"""A judge's card: how far its verdicts can be trusted, against labels by people or the oracle. Pure functions.

Positive is what the judge looks for: unsafe, helpful, refusing. Every rate has a 95 % interval over items; none where
it is not defined (no positive items: no sensitivity). The confusion counts stay on the card:
``prevalence.corrected_rate`` takes them to correct a rate that this judge reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.maths.prevalence import LEVEL, proportion

if TYPE_CHECKING:
    import pandas as pd

    from underseer.judges.base import Judge, Scores

DRAWS = 4000


def judge_card(
    truth: Sequence[int] | np.ndarray,
    predicted: Sequence[float] | np.ndarray,
    categories: Sequence[Any] | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """The card of a judge on n labelled items, ready for JSON.

    ``truth`` (n,) 0 or 1; ``predicted`` (n,) in [0, 1], or NaN where the judge failed: counted as ``failures`` and left
    out of all else. A score of at least ``threshold`` is a positive verdict. Keys: ``n`` (items compared),
    ``failures``, ``threshold``, ``counts`` (tp, fp, tn, fn), ``accuracy``, ``sensitivity``, ``specificity`` (Wilson
    intervals), ``kappa`` (Cohen 1960), ``auroc``: each a mapping of ``value``, ``lo``, ``hi``; and ``categories``,
    where they are given: a list of cards without kappa and AUROC, each with its ``category``, in order of name.
    """
    y, p = np.asarray(truth), np.asarray(predicted, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or not np.isin(y, (0, 1)).all():
        raise ValueError(f"a card takes labels 0 or 1 and as many scores; got {y.shape} and {p.shape}")
    there = ~np.isnan(p)
    if not ((p >= 0) & (p <= 1))[there].all():
        raise ValueError("a card takes scores in [0, 1]; a missing one is NaN")
    y = y.astype(bool)
    card = _rates(y, p, threshold)
    card["kappa"] = kappa(card["counts"])
    card["auroc"] = auroc(y[there], p[there])
    if categories is not None:
        names = np.asarray([str(name) for name in categories], dtype=object)
        parts = [(name, names == name) for name in sorted(set(names))]
        card["categories"] = [{"category": name, **_rates(y[own], p[own], threshold)} for name, own in parts]
    return card


def measure(judge: Judge, labelled: pd.DataFrame, *, threshold: float = 0.5) -> dict[str, Any]:
    """Ask a judge about labelled exchanges, ``prompt, answer, label`` and optionally ``category``, and write its card.

    Adds ``judge`` and ``version``, ``reasons``: failures by reason, and ``cut``: exchanges that were too long for the judge, and
    whose beginnings it read.
    """
    return of_scores(
        judge.score(labelled["answer"].tolist(), labelled["prompt"].tolist()), labelled, threshold=threshold
    )


def of_scores(scores: Scores, labelled: pd.DataFrame, *, threshold: float = 0.5) -> dict[str, Any]:
    """The same of a judge's scores of those exchanges."""
    from underseer.judges.base import failure_counts

    categories = labelled["category"].tolist() if "category" in labelled.columns else None
    card = judge_card(labelled["label"], scores.values, categories, threshold=threshold)
    return {
        "judge": scores.judge,
        "version": scores.version,
        **card,
        "reasons": failure_counts(scores),
        "cut": scores.n_cut,
    }


def kappa(counts: dict[str, int]) -> dict[str, float | None]:
    """Cohen's kappa of confusion counts: (po - pe) / (1 - pe), agreement above that by chance.

    The interval is that of the posterior under Jeffreys' prior on the four cells (Dirichlet, 1/2 each), always made of
    the same draws: it has a width also where judge and labels agree on all items. None where both are constant.
    """
    cells = np.array([counts[name] for name in ("tp", "fp", "fn", "tn")], dtype=np.float64)
    value = _kappa(cells[None])[0] if cells.sum() else math.nan
    if math.isnan(value):
        return _interval(None, None, None)
    drawn = _kappa(np.random.default_rng(0).dirichlet(cells + 0.5, DRAWS))
    lo, hi = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _interval(value, min(lo, value), max(hi, value))


def auroc(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float | None]:
    """Probability that a positive item (``truth`` (n,) bool) scores above a negative one, ties counted half.

    The interval is Newcombe's (2006, method 5): all values that the one found does not differ from, by the variance of
    Hanley and McNeil (1982) at each; so it has a width also at 0 and 1. None where a class is missing.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri
    from scipy.stats import rankdata

    m, n = int(truth.sum()), int((~truth).sum())
    if not m or not n:
        return _interval(None, None, None)
    value = float((rankdata(predicted)[truth].sum() - m * (m + 1) / 2) / (m * n))
    z, extra = float(ndtri((1 + LEVEL) / 2)), (m + n) / 2 - 1

    def excess(area: float) -> float:
        variance = area * (1 - area) * (1 + extra * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n)
        return abs(area - value) - z * math.sqrt(max(variance, 0.0))

    near = 1e-9  # beside the value found, which is itself a root where it is 0 or 1
    lo = brentq(excess, 0.0, value - near) if value > near and excess(value - near) < 0 < excess(0.0) else value
    hi = brentq(excess, value + near, 1.0) if value < 1 - near and excess(value + near) < 0 < excess(1.0) else value
    return _interval(value, lo, hi)


# ---------------------------------------------------------------------------------------------------- parts


def _rates(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, Any]:
    there = ~np.isnan(p)
    positive, true = p[there] >= threshold, y[there]
    counts = {
        "tp": int((positive & true).sum()),
        "fp": int((positive & ~true).sum()),
        "tn": int((~positive & ~true).sum()),
        "fn": int((~positive & true).sum()),
    }
    tp, fp, tn, fn = counts.values()
    return {
        "n": int(there.sum()),
        "failures": int((~there).sum()),
        "threshold": threshold,
        "counts": counts,
        "accuracy": proportion(tp + tn, tp + fp + tn + fn),
        "sensitivity": proportion(tp, tp + fn),
        "specificity": proportion(tn, tn + fp),
    }


def _kappa(cells: np.ndarray) -> np.ndarray:
    """(B,) kappa of cells (B, 4) tp, fp, fn, tn; NaN where chance alone agrees on everything."""
    tp, fp, fn, tn = (cells / cells.sum(axis=1, keepdims=True)).T
    chance = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    return np.divide(tp + tn - chance, 1 - chance, out=np.full(len(cells), np.nan), where=chance < 1)


def _interval(value: float | None, lo: float | None, hi: float | None) -> dict[str, float | None]:
    return (
        {"value": value, "lo": lo, "hi": hi}
        if value is None
        else {"value": float(value), "lo": float(lo), "hi": float(hi)}
    )
