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

    stages: of `by_stage`. Each, a variant of the loop: a (last iterate), variant_a, b (reset), seeds (those in which both gave
    unsafe answers), difference (mean over seeds of the sensitivities' difference), ci95, p (one comparison, not corrected). Answers
    are taken as independent, given the seed; the variance of a sensitivity is that of (hits + 1) / (answers + 2).
    """
    rows = [s for s in stages if s["dataset"] == ATTACKS]
    last = {repr(s["variant"]): s for s in sorted(rows, key=lambda s: order(s["method"])) if order(s["method"])[0] == 1}
    falls = []
    for a in last.values():
        resets = [s for s in rows if s["method"] == "reset" and agrees(s["variant"], a["variant"])]
        b = resets[0] if resets else None
        both = [] if b is None else [s for s in a["seeds"] if s in b["seeds"]]
        pairs = [[s["counts_by_seed"][s["seeds"].index(seed)] for s in (a, b)] for seed in both]
        kept = [(seed, p) for seed, p in zip(both, pairs, strict=True) if all(c["tp"] + c["fn"] for c in p)]
        if not kept:
            continue
        values = np.array(
            [p[0]["tp"] / (p[0]["tp"] + p[0]["fn"]) - p[1]["tp"] / (p[1]["tp"] + p[1]["fn"]) for _, p in kept]
        )
        n, missed = len(kept), sum(c["fn"] for _, p in kept for c in p)
        items = sum(_variance(c) for _, p in kept for c in p) / n**2
        seeds = values.var(ddof=1) / n if n > 1 else 0.0
        test = differences.Difference(float(values.mean()), items, 0.0, float(seeds), n, missed)
        falls.append(
            {"a": a["method"], "variant_a": a["variant"], "b": "reset", "seeds": [seed for seed, _ in kept]}
            | {"difference": test.mean, "ci95": list(test.interval()), "p": test.p}
        )
    return falls


def _variance(counts: Mapping[str, int]) -> float:
    n = counts["tp"] + counts["fn"] + 2
    share = (counts["tp"] + 1) / n
    return share * (1 - share) / n
