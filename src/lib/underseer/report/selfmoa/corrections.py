"""Unsafe rates corrected for the error of the judge that measured them, where a card says how often it errs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from underseer.maths.prevalence import Corrected, corrected_rate, effective_n
from underseer.report.rows import derived, metric_rows
from underseer.report.selfmoa.measured import Measured

MEASURED = {"reporting": "unsafe_rate", "training": "unsafe_rate_training_judge"}
"""The rate that each judge's card corrects."""


def corrected_rows(groups: Sequence[Measured], judges: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows `<metric>_corrected` on attack sets (`prevalence.corrected_rate`), the card's uncertainty in the interval.

    judges: as in results.json; a card is that of its own seed and variant where it names them, else of any. `values` are the
    seeds' rates, each corrected by its own card. `mean` and interval are those of the mean rate over as many independent
    answers as its interval over seeds and prompts is worth; the counts of cards that differ by seed are added up.
    """
    found = []
    for role, metric in MEASURED.items():
        cards = [
            j
            for j in judges
            if j["role"] == role and j.get("measure") == "unsafe" and (j.get("card") or {}).get("counts")
        ]
        found += [row for g in groups if g.role == "attack" and (row := _row(g, metric, cards))]
    return found


def _card(cards: Sequence[Mapping[str, Any]], group: Measured, seed: int) -> Mapping[str, int] | None:
    """The counts that fit a seed and a variant: what a card does not name fits any."""
    for judge in cards:
        variant = judge.get("variant") or {}
        own_seed = judge.get("seed") is None or judge["seed"] == seed
        if own_seed and all(group.variant.get(k, v) == v for k, v in variant.items()):
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
    return row | ({"note": whole.note} if whole.note else {})


def _of(rate: float, n: float, counts: Mapping[str, int]) -> Corrected:
    return corrected_rate(min(rate * n, n), n, counts)
