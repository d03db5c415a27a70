"""Paired tests between methods, and the only place that may call one better."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from underseer.maths import differences
from underseer.report.names import lower_is_better
from underseer.report.scores import Scored, compatible, paired_seeds

PRIMARY = (("w2s_naive", "weak"), ("strong_ceiling", "w2s_naive"))
"""W2S: the comparisons stated beforehand, on the primary metric and the main data set; every vote's labels against those of one
supervisor (SINGLE) belong to them. Those of Self-MOA stand in `selfmoa.verdicts`."""
SINGLE = "single"
STATED = (
    "the student of a single supervisor with the weak supervisor, the ceiling with that student, and the labels of each vote with "
    "those of a single supervisor"
)
"""PRIMARY and SINGLE in words."""

ALL_PAIRS = 15
"""Up to so many pairs all are tested; beyond, only those with the weak supervisor, the ceiling, the naive student, or the labels
of a single supervisor."""

_RULE = (
    "{score}, paired by {item}{cluster}. {covers} p belongs to that interval: it is below 0.05 where the 95 % interval "
    "excludes zero. Some comparisons were stated before any result was seen, and are called primary: {stated}. Their p is "
    "corrected by Holm's method over all of them. All other comparisons are secondary, and corrected in the same way among "
    "the secondary ones of their data set{metrics}. One method is called {better} where the corrected p is below 0.05, which is "
    "where the interval at the corrected level excludes zero. So a false finding among the primary comparisons has a "
    "probability of at most 5 %, and so has one in each family of secondary comparisons: among all of them together it is "
    "likelier, and one alone is a hint."
)
_SEVERAL = (
    "The interval of a difference, a mean over seeds, counts two sources of chance: training seeds by Student's t with one "
    "degree of freedom fewer than seeds, and test {unit} by the bootstrap. So it covers another training on other {unit}, from the same "
    "pre-trained models and by the same judges where all seeds share them."
)
_ONE = "With one seed the interval counts test {unit} alone, by the bootstrap: it says nothing about another training."


def rule_text(
    groups: Sequence[Scored],
    score: str,
    item: str = "test item",
    better: str = "better",
    metrics: str = "",
    stated: str = STATED,
) -> str:
    """What the tests compare and when they call a method better, in words."""
    unit = groups[0].unit if groups else "items"
    several = any(len(g.seeds) > 1 for g in groups)
    clustered = any(g.clustered for g in groups)
    cluster = f"; rows that share one of the {unit} are one independent item" if clustered else ""
    covers = (_SEVERAL if several else _ONE).format(unit=unit)
    return _RULE.format(
        score=score, item=item, cluster=cluster, covers=covers, metrics=metrics, better=better, stated=stated
    )


def rule(groups: Sequence[Scored]) -> str:
    """The rule of classification and of continuation experiments, in words."""
    if groups and groups[0].primary == "toxicity":
        return rule_text(groups, "Mean toxicity of a prompt's sampled continuations", "prompt", "less toxic")
    return rule_text(groups, "Accuracy", "row" if any(g.clustered for g in groups) else "test item")


Pairs = Callable[[list[Scored]], list[tuple[Scored, Scored]]]
"""Which methods of a data set are compared, the later one first."""
Stated = Callable[[Scored, Scored], bool]
"""Whether a comparison was stated beforehand."""
Block = list[tuple[dict[str, Any], differences.Difference]]
"""Tests that are not corrected yet, each with its difference."""


def stated(groups: Sequence[Scored]) -> Stated:
    """The primary comparisons of a W2S experiment: PRIMARY on the first data set, and the labels of votes."""
    main = groups[0].dataset if groups else None

    def primary(a: Scored, b: Scored) -> bool:
        labels = b.method == SINGLE != a.method
        return a.dataset == main and (labels or (a.method, b.method) in PRIMARY)

    return primary


def comparisons(groups: Sequence[Scored], pairs: Pairs | None = None, primary: Stated | None = None) -> Block:
    """All paired tests of one data set (or more), each on its groups' primary metric, for `corrected`. pairs: which of them are
    compared; by default those of `_pairs`. primary: which were stated beforehand; by default `stated`.

    Each test: dataset, a, b, variant_a, variant_b, metric, family ('primary' or 'secondary'), difference (a minus b), ci95,
    seeds, n_items, test ('seeds_and_items', or 'items_only' of one seed), mcnemar_p (exact, per seed; empty where items are no
    single right or wrong).
    """
    block, primary = [], primary or stated(groups)
    for dataset in dict.fromkeys(g.dataset for g in groups):
        for a, b in (pairs or _pairs)([g for g in groups if g.dataset == dataset]):
            seeds = paired_seeds(a, b)
            test, difference = _test(a, b, seeds) if seeds else (None, None)
            if test and not np.isnan(difference.mean):
                family = "primary" if primary(a, b) else "secondary"
                block.append(({**test, "family": family}, difference))
    return block


def corrected(*blocks: Block) -> list[list[dict[str, Any]]]:
    """The tests of each block, the primary ones first, corrected by Holm's method: the primary ones of all blocks together, the
    secondary ones of each data set together.

    What is added: p, p_holm, ci95_holm (the interval at `level_holm`, at which Holm's procedure tests this comparison: it excludes
    zero exactly where p_holm is below 0.05), smallest_effect (the smallest difference either way that a test at that level shows
    with 80 % power, which may lie beyond the score's range: then it could show nothing; NaN without variance), better ('a', 'b'
    or None: lower is better where `names.lower_is_better` says so).
    """
    families: dict[Any, Block] = {}
    for test, difference in itertools.chain(*blocks):
        family = test["family"], test["family"] == "secondary" and test["dataset"]
        families.setdefault(family, []).append((test, difference))
    for tests in families.values():
        p_values = [d.p for _, d in tests]
        levels = zip(p_values, differences.holm(p_values), differences.holm_levels(p_values), strict=True)
        for (test, difference), (p, p_holm, alpha) in zip(tests, levels, strict=True):
            test |= {"p": p, "p_holm": float(p_holm), "ci95_holm": list(difference.interval(alpha))}
            test |= {"level_holm": float(1 - alpha), "smallest_effect": difference.smallest_effect(alpha)}
            test["better"] = _better(test)
    return [sorted((t for t, _ in block), key=lambda t: t["family"] != "primary") for block in blocks]


def _better(test: dict[str, Any]) -> str | None:
    if test["p_holm"] >= differences.ALPHA:
        return None
    return "a" if (test["difference"] > 0) != lower_is_better(test["metric"]) else "b"


def _pairs(groups: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Later rows first, so that a difference reads as what the later method adds."""
    pairs = [(b, a) for a, b in itertools.combinations(groups, 2) if compatible(a.variant, b.variant)]
    if len(pairs) > ALL_PAIRS:
        anchors = {"weak", "strong_ceiling", "w2s_naive", SINGLE}
        pairs = [(a, b) for a, b in pairs if a.method != b.method and anchors & {a.method, b.method}]
    return pairs


def _test(a: Scored, b: Scored, seeds: list[int]) -> tuple[dict[str, Any], differences.Difference]:
    metric = a.primary
    items = [a.items[a.seeds.index(s)] for s in seeds]
    (va, ba), (vb, bb) = a.at(metric, seeds), b.at(metric, seeds)
    n_differ = _n_differ([a.outcomes(s) - b.outcomes(s) for s in seeds], items)
    difference = differences.paired_difference(va - vb, ba - bb, n_differ)
    exact = metric == "accuracy" and not a.clustered
    test = {
        "dataset": a.dataset,
        "a": a.method,
        "variant_a": a.variant,
        "b": b.method,
        "variant_b": b.variant,
        "metric": metric,
        "difference": difference.mean,
        "ci95": list(difference.interval()),
        "seeds": seeds,
        "n_items": len(np.unique(np.concatenate(items))),
        "test": "seeds_and_items" if len(seeds) > 1 else "items_only",
        "mcnemar_p": [differences.mcnemar(a.outcomes(s), b.outcomes(s)) for s in seeds] if exact else [],
    }
    return test, difference


def _n_differ(outcomes: list[np.ndarray], items: list[np.ndarray]) -> int:
    """How many unique items have another outcome under the two methods, from differences of rows (n_s,) of each seed.

    Rows of a cluster, repeated rows and further seeds are not independent of each other, so they are summed, each seed's
    rows counting as their mean. Rows without an outcome are left out.
    """
    there = [~np.isnan(d) for d in outcomes]
    kept = [d[t] / max(1, t.sum()) for d, t in zip(outcomes, there, strict=True)]
    where = [i[t] for i, t in zip(items, there, strict=True)]
    sums = np.bincount(np.concatenate(where), np.concatenate(kept), minlength=1)
    return int((np.abs(sums) > 1e-12).sum())
