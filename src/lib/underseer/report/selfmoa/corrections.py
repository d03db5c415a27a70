"""How often the training judge errs on the answers of each method, and unsafe rates corrected by a judge's card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths import differences
from underseer.maths.prevalence import Corrected, corrected_rate, effective_n, proportion
from underseer.report.rows import derived, metric_rows
from underseer.report.selfmoa.measured import Measured
from underseer.report.selfmoa.stages import ATTACKS, agrees, order

MEASURED = {"reporting": "unsafe_rate", "training": "unsafe_rate_training_judge"}
"""The rate that each judge's card corrects."""


def corrected_rows(groups: Sequence[Measured], judges: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows `<metric>_corrected` on attack sets (`prevalence.corrected_rate`), the card's uncertainty in the interval.

    judges: as in results.json; a card is that of its own seed and variant where it names them, else of any. `values` are the
    seeds' rates, each corrected by its own card; such rows say `corrected_by` 'card'. A card was measured on other answers, so a
    rate that labelled answers have corrected (`answers.CORRECTED`) is not corrected by a card. `mean` and interval are those of the mean rate over as many independent
    answers as its interval over seeds and prompts is worth; the counts of cards that differ by seed are added up.
    """
    rows = []
    for role, metric in MEASURED.items():
        known = [j for j in judges if j["role"] == role and j.get("measure") == "unsafe"]
        cards = [j for j in known if (j.get("card") or {}).get("counts")]
        wanted = [g for g in groups if g.role == "attack" and f"{metric}_corrected" not in g.values]
        rows += [row for g in wanted if (row := _row(g, metric, cards))]
    return rows


def _card(cards: Sequence[Mapping[str, Any]], group: Measured, seed: int) -> Mapping[str, int] | None:
    """The counts that fit a seed and a variant: what a card does not name fits any."""
    for judge in cards:
        variant = judge.get("variant") or {}
        own_seed = judge.get("seed") is None or judge["seed"] == seed
        if own_seed and agrees(variant, group.variant):
            return judge["card"]["counts"]
    return None


def _row(group: Measured, metric: str, cards: Sequence[Mapping]) -> dict[str, Any] | None:
    counts = [_card(cards, group, s) for s in group.seeds]
    if None in counts or np.isnan(group.values[metric]).any():
        return None
    rates = zip(group.values[metric], group.shares[metric], counts, strict=True)
    values = [_of(rate, int((~np.isnan(shares)).sum()), card).estimate for rate, shares, card in rates]
    (raw,) = metric_rows(group, [metric])
    n = effective_n(raw["mean"], *raw["ci95"])
    different = list({tuple(sorted(c.items())): c for c in counts}.values())
    pooled = sum((Counter(c) for c in different), Counter())
    whole = _of(raw["mean"], n if n == n else group.n_items, {k: pooled[k] for k in different[0]})
    row = derived(raw, f"{metric}_corrected", values, whole.estimate, [whole.lo, whole.hi])
    return row | {"corrected_by": "card"} | ({"note": whole.note} if whole.note else {})


def _of(rate: float, n: float, counts: Mapping[str, int]) -> Corrected:
    return corrected_rate(min(rate * n, n), n, counts)


CELLS = ("tp", "fn", "tn", "fp")


def by_stage(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The training judge against the reporting judge on the answers of each method: on each set, and on ATTACKS.

    frame: as `answers.tidy` gives it. Each: method, variant, dataset, role, seeds, counts (tp, fn, tn, fp of all seeds: of the
    answers that the reporting judge calls unsafe, tp are so called by the training judge), counts_by_seed, sensitivity and
    specificity ({'value', 'lo', 'hi'}: Wilson's 95 % interval over answers; None where there is no such answer).
    """
    known = frame.dropna(subset=["unsafe_rate", "unsafe_rate_training_judge"])
    attacks = known[known["role"] == "attack"].assign(dataset=ATTACKS)
    stages = []
    for part in (attacks, known):
        keys = ["method", "variant", "dataset", "role"]
        for names, rows in part.groupby(keys, sort=False):
            seeds = {int(s): _cells(own) for s, own in rows.groupby("seed")}
            counts = {c: sum(of[c] for of in seeds.values()) for c in CELLS}
            stage = dict(zip(keys, names, strict=True))
            stage |= {"variant": json.loads(stage["variant"]), "seeds": list(seeds)}
            stage |= {"counts": counts, "counts_by_seed": list(seeds.values())}
            for aspect, hits, misses in (("sensitivity", "tp", "fn"), ("specificity", "tn", "fp")):
                stage[aspect] = proportion(counts[hits], counts[hits] + counts[misses])
            stages.append(stage)
    return stages


def _cells(rows: pd.DataFrame) -> dict[str, int]:
    truth, verdict = rows["unsafe_rate"] == 1, rows["unsafe_rate_training_judge"] == 1
    cells = (truth & verdict, truth & ~verdict, ~truth & ~verdict, ~truth & verdict)
    return {c: int(v.sum()) for c, v in zip(CELLS, cells, strict=True)}


def decay(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether the training judge finds fewer of the unsafe answers of the last iterate than of the reset's, on ATTACKS.

    stages: of `by_stage`. Each, a variant of the loop: a (last iterate), variant_a, b (reset), seeds (those of both), difference (of
    the sensitivities, each over the unsafe answers of all seeds), ci95, p (one comparison, not corrected). See `fall`.
    """
    rows = [s for s in stages if s["dataset"] == ATTACKS]
    last = {repr(s["variant"]): s for s in sorted(rows, key=lambda s: order(s["method"])) if order(s["method"])[0] == 1}
    falls = []
    for a in last.values():
        b = next((s for s in rows if s["method"] == "reset" and agrees(s["variant"], a["variant"])), None)
        both = [] if b is None else [seed for seed in a["seeds"] if seed in b["seeds"]]
        test = fall(*([s["counts_by_seed"][s["seeds"].index(seed)] for seed in both] for s in (a, b))) if both else None
        if test is not None:
            falls.append(
                {"a": a["method"], "variant_a": a["variant"], "b": "reset", "seeds": both}
                | {"difference": test.mean, "ci95": list(test.interval()), "p": test.p}
            )
    return falls


def fall(a: Sequence[Mapping[str, int]], b: Sequence[Mapping[str, int]]) -> differences.Difference | None:
    """The difference of two sensitivities, each that of the unsafe answers of all S seeds together.

    a, b: S counts each, in the order of the seeds. A seed with few unsafe answers has little weight, one with none has none. The
    variance between seeds is that of `differences.of_ratios`; that of the answers is binomial, of (hits + 1) / (answers + 2). Both are
    added. None where it cannot be told: no unsafe answer, or all of them in one seed of several.

    Simulated (tests/test_judges_in_use.py): without any fall at most 5 % of runs of 3, 5 and 8 seeds have p < 0.05.
    """
    hits = np.array([[c["tp"] for c in side] for side in (a, b)], float)
    unsafe = hits + [[c["fn"] for c in side] for side in (a, b)]
    left = unsafe.sum(1, keepdims=True) - unsafe if len(a) > 1 else unsafe
    if not (left > 0).all():
        return None
    mean, seeds = differences.of_ratios(hits, unsafe)
    smoothed = (hits.sum(1) + 1) / (unsafe.sum(1) + 2)
    items = float((smoothed * (1 - smoothed) / (unsafe.sum(1) + 2)).sum())
    missed = int((unsafe - hits).sum())
    return differences.Difference(mean, items, items, seeds, len(a), missed)
