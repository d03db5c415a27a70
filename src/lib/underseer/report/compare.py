"""Paired tests between methods, and the only place that may call one better."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from underseer.maths import stats
from underseer.report.names import lower_is_better
from underseer.report.scores import Scored, compatible, paired_seeds

ALPHA = 0.05
ALL_PAIRS = 15
"""Up to so many pairs all are tested; beyond, only those with the weak supervisor, the ceiling or the naive
student."""

RULE = (
    "Accuracy, paired by test item. One seed: exact McNemar test; several: sign-flip permutation test of the items' "
    "differences averaged over seeds. p is corrected by Holm's method over all comparisons of a data set. One method "
    "is called better where the corrected p is below 0.05 and the 95 % interval of the difference, over seeds and "
    "items, excludes zero."
)

_PERMUTED = (
    " p is corrected by Holm's method over all comparisons of a data set. One method is called {better} where the "
    "corrected p is below 0.05 and the 95 % interval of the difference, over seeds and {unit}, excludes zero."
)


def rule(groups: Sequence[Scored]) -> str:
    """What the tests compare and when they call a method better, in words."""
    if groups and groups[0].primary == "toxicity":
        return (
            "Mean toxicity of a prompt's sampled continuations, paired by prompt: sign-flip permutation test of the "
            "prompts' differences averaged over seeds." + _PERMUTED.format(better="less toxic", unit="prompts")
        )
    if any(g.clustered for g in groups):
        unit = groups[0].unit
        return (
            f"Accuracy, paired by row; rows that share one of the {unit} are one independent item: sign-flip permutation "
            f"test of the differences summed within each of the {unit} and averaged over seeds."
            + _PERMUTED.format(better="better", unit=unit)
        )
    return RULE


Pairs = Callable[[list[Scored]], list[tuple[Scored, Scored]]]
"""Which methods of a data set are compared, the later one first."""


def comparisons(
    groups: Sequence[Scored], rng: np.random.Generator | None = None, pairs: Pairs | None = None
) -> list[dict[str, Any]]:
    """All paired tests of one data set (or more), Holm-corrected within each data set, each on its groups' primary
    metric. pairs: which of them are compared; by default those of `_pairs`.

    Each result: dataset, a, b, variant_a, variant_b, metric, difference (a minus b), ci95, seeds, n_items, test, p,
    p_holm, mcnemar_p (per seed; empty where items are no single right or wrong), better ('a', 'b' or None: lower is
    better where `names.lower_is_better` says so).
    """
    rng = np.random.default_rng(0) if rng is None else rng
    out: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(g.dataset for g in groups):
        found = (pairs or _pairs)([g for g in groups if g.dataset == dataset])
        both = [(a, b, paired_seeds(a, b)) for a, b in found]
        tests = [t for t in (_test(*of) for of in both if of[2]) if not np.isnan(t["difference"])]
        several = [k for k, t in enumerate(tests) if t["test"] == "paired_permutation"]
        if several:
            p = stats.paired_permutation(np.stack(_pad([tests[k]["_by_item"] for k in several]), axis=1), rng=rng)
            for k, value in zip(several, p, strict=True):
                tests[k]["p"] = float(value)
        for t, adjusted in zip(tests, stats.holm([t["p"] for t in tests]), strict=True):
            t["p_holm"] = float(adjusted)
            t["better"] = _better(t)
            del t["_by_item"]
        out += tests
    return out


def _better(test: dict[str, Any]) -> str | None:
    lo, hi = test["ci95"]
    if test["p_holm"] >= ALPHA or not (lo > 0 or hi < 0):
        return None
    return "a" if (lo > 0) != lower_is_better(test["metric"]) else "b"


def _pairs(groups: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Later rows first, so that a difference reads as what the later method adds."""
    pairs = [(b, a) for a, b in itertools.combinations(groups, 2) if compatible(a.variant, b.variant)]
    if len(pairs) > ALL_PAIRS:
        anchors = {"weak", "strong_ceiling", "w2s_naive"}
        pairs = [(a, b) for a, b in pairs if a.method != b.method and anchors & {a.method, b.method}]
    return pairs


def _test(a: Scored, b: Scored, seeds: list[int]) -> dict[str, Any]:
    metric = a.primary
    items = [a.items[a.seeds.index(s)] for s in seeds]
    (va, ba), (vb, bb) = a.at(metric, seeds), b.at(metric, seeds)
    interval = stats.seed_item_interval(va - vb, ba - bb, bounds=None)
    mcnemar = []
    if metric == "accuracy" and not a.clustered:
        mcnemar = [stats.mcnemar(a.outcomes(s), b.outcomes(s)) for s in seeds]
    exact = bool(mcnemar) and len(seeds) == 1 and len(np.unique(items[0])) == len(items[0])
    return {
        "dataset": a.dataset,
        "a": a.method,
        "variant_a": a.variant,
        "b": b.method,
        "variant_b": b.variant,
        "metric": metric,
        "difference": interval.mean,
        "ci95": [interval.lo, interval.hi],
        "seeds": seeds,
        "n_items": len(np.unique(np.concatenate(items))),
        "test": "mcnemar_exact" if exact else "paired_permutation",
        "p": mcnemar[0] if mcnemar else 1.0,
        "mcnemar_p": mcnemar,
        "_by_item": _by_item([a.outcomes(s) - b.outcomes(s) for s in seeds], items),
    }


def _by_item(differences: list[np.ndarray], items: list[np.ndarray]) -> np.ndarray:
    """One number per unique item, (items,): repeated rows, rows of a cluster and further seeds are not independent of
    each other, so they are summed, each seed's rows counting as their mean. Rows without an outcome are left out."""
    there = [~np.isnan(d) for d in differences]
    kept = [d[t] / max(1, t.sum()) for d, t in zip(differences, there, strict=True)]
    where = [i[t] for i, t in zip(items, there, strict=True)]
    return np.bincount(np.concatenate(where), np.concatenate(kept), minlength=1)


def _pad(vectors: list[np.ndarray]) -> list[np.ndarray]:
    n = max(len(v) for v in vectors)
    return [np.pad(v, (0, n - len(v))) for v in vectors]
