"""Paired tests between the stages of the loop and its baselines, and how far a score changes from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from underseer.maths import differences, stats
from underseer.report import compare
from underseer.report.names import iteration
from underseer.report.scores import compatible, paired_seeds
from underseer.report.selfmoa.answers import GAP
from underseer.report.selfmoa.measured import Measured
from underseer.report.selfmoa.stages import last_control, order
from underseer.selfmoa.checks import BASELINES

TESTED = {
    "attack": ("unsafe_rate", "safety_score", "helpfulness", GAP),
    "safe": ("helpfulness", "over_refusal"),
    "borderline": ("helpfulness", "over_refusal"),
}
"""Metrics that are tested, by what a set of prompts is for."""

PRIMARY = (
    ("attack", "unsafe_rate"),
    ("held_out", "unsafe_rate"),
    ("safe", "helpfulness"),
    ("borderline", "over_refusal"),
)
"""The comparisons stated beforehand, each of the last iterate with the reset: kind of the set of prompts (the one that stands for
its kind, see `stages.main_of`; all held-out attacks), and metric. All others are secondary, those with baselines too."""
STATED = (
    "the last iteration with the reset, in unsafe answers to attacks and to held-out attacks, in helpfulness on safe prompts, and "
    "in refusals of borderline prompts"
)
"""PRIMARY in words."""

CHANGED = ("safety_score", "unsafe_rate")
"""Metrics whose relative change is reported, on attack sets."""

_COMPARED = (
    ", of all metrics together (each iterate with the one before, with the reset and with the aligned model, the last one "
    "with every baseline and control, each of these with the reset)"
)


def rule(groups: Sequence[Measured]) -> str:
    """What the tests compare and when they call a method better, in words."""
    return compare.rule_text(
        groups, "Mean scores (draws of a prompt averaged first)", "prompt", metrics=_COMPARED, stated=STATED
    )


def tests(groups: Sequence[Measured]) -> list[dict[str, Any]]:
    """All tests of `groups`, in the form of `compare.comparisons`. A metric that is another one under a second name (a
    judge that says 0 or 1 makes the safety score the unsafe rate) is not tested twice."""
    asked = [g.on(m) for g in groups for m in _metrics(groups, g) if m in g.shares]
    (corrected,) = compare.corrected(compare.comparisons(asked, _pairs, _stated(groups)))
    return corrected


def _stated(groups: Sequence[Measured]) -> compare.Stated:
    """The comparisons of PRIMARY among those of `groups`, whose first is of the set that stands for all attacks."""
    main = {g.role: g.dataset for g in reversed(groups)} | {"attack": groups[0].dataset if groups else None}
    held_out = {g.dataset for g in groups if g.dataset.startswith("held_out")}
    wanted = {(d, m) for role, m in PRIMARY for d in (held_out if role == "held_out" else {main.get(role)})}
    last = {repr(g.variant): g.method for g in sorted(groups, key=lambda g: order(g.method)) if iteration(g.method)}

    def primary(a: Measured, b: Measured) -> bool:
        return (a.dataset, a.primary) in wanted and b.method == "reset" and last.get(repr(a.variant)) == a.method

    return primary


def _metrics(groups: Sequence[Measured], group: Measured) -> tuple[str, ...]:
    same = [g for g in groups if g.dataset == group.dataset]
    equal = all(np.array_equal(g.values["unsafe_rate"], g.values["safety_score"], equal_nan=True) for g in same)
    return tuple(m for m in TESTED[group.role] if not (equal and m == "safety_score"))


def _pairs(groups: list[Measured]) -> list[tuple[Measured, Measured]]:
    pairs = []
    for metric in dict.fromkeys(g.primary for g in groups):
        same = sorted((g for g in groups if g.primary == metric), key=lambda g: order(g.method))
        last = {repr(g.variant): g.method for g in same if iteration(g.method)}
        methods = [g.method for g in same]
        others = {m for m in methods if m in BASELINES or last_control(m, methods)}
        pairs += [
            (a, b)
            for a in same
            for b in same
            if _wanted(a, b, last.get(repr(a.variant)) == a.method, others) and compatible(a.variant, b.variant)
        ]
    return pairs


def _wanted(a: Measured, b: Measured, a_is_last: bool, others: set[str]) -> bool:
    """Whether `a` is compared with `b`; of the gap between judges only that of the last iterate. others: the baselines and
    controls that the last iterate is compared with."""
    k = iteration(a.method)
    if a.primary == GAP:
        return a_is_last and b.method in ("reset", "aligned")
    if k is not None:
        return b.method in ("reset", "aligned") or iteration(b.method) == k - 1 or (a_is_last and b.method in others)
    return b.method == ("aligned" if a.method == "reset" else "reset" if a.method in others else None)


def changes(groups: Sequence[Measured], tests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far a score of each iterate lies from that of the reset and of the aligned model, as a share of the latter.

    tests: those of the same groups. Each: dataset, metric, a, variant_a, b, variant_b, mean ((a - b) / b of the means over seeds),
    ci95 (Fieller's, from the bootstrap paired by prompt, with the variances and quantiles of the test; None where it has no finite
    end), ci95_holm (the same at the level at which the difference is tested, so that it holds 0 exactly where no difference is
    shown), seeds. Intervals end at -1, since no rate falls further.
    """
    levels = {_key(t): 1 - t["level_holm"] for t in tests}
    moves = []
    for a, b in _pairs([g.on(m) for g in groups if g.role == "attack" for m in CHANGED]):
        if not iteration(a.method) or b.method not in ("reset", "aligned") or a.dataset != b.dataset:
            continue
        seeds = paired_seeds(a, b)
        if not seeds:
            continue
        (va, ba), (vb, bb) = a.at(a.primary, seeds), b.at(a.primary, seeds)
        row = {"dataset": a.dataset, "metric": a.primary, "a": a.method, "variant_a": a.variant, "b": b.method}
        row |= {"variant_b": b.variant, "seeds": seeds}
        same = [key for m in (a.primary, *CHANGED) if (key := _key({**row, "metric": m})) in levels]
        for name, alpha in (("ci95", differences.ALPHA), ("ci95_holm", levels[same[0]] if same else None)):
            half = partial(differences.half_width, alpha=alpha or differences.ALPHA)
            ratio = stats.ratio_interval(va, ba, vb, bb, half)
            ends = [max(-1.0, ratio.lo - 1), ratio.hi - 1] if ratio.kind == "bounded" and alpha else None
            row |= {"mean": ratio.value - 1, name: ends}
        moves.append(row)
    return moves


def _key(test: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(repr(test[k]) for k in ("dataset", "metric", "a", "variant_a", "b", "variant_b"))
