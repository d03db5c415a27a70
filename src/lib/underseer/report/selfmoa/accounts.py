"""What was spent: preference pairs up to each model, and the ledger of the loop's own stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from underseer.report.names import iteration, rounds
from underseer.report.selfmoa import stages
from underseer.report.selfmoa.stages import Results

LOOP_ROLES = re.compile(
    r"(red_team|preferences)_\d+|align_selfmoa_iter\d+|reset|(training|helpfulness|refusal)_judge|base"
)
"""Roles whose cost is the loop's own; evaluation and baselines are apart."""


def pairs_used(results: Results, method: str, variant: Mapping[str, Any]) -> list[float]:
    """Preference pairs up to a model, one number a seed: of an iterate, of the loop or of a control, the sum over all its
    iterations so far; empty where no row tells."""
    (name, upto), by_seed = rounds(method) or (method, None), {}
    for row in results["pairs"]:
        known = rounds(row["method"])
        mine = row["method"] == method if upto is None else known is not None and known[0] == name and known[1] <= upto
        if mine and row["n_pairs"] is not None and stages.agrees(row["variant"], variant):
            by_seed.setdefault(row["seed"], {})[row["method"]] = float(row["n_pairs"])
    whole = [p for p in by_seed.values() if upto is None or len(p) == upto]
    return [sum(p.values()) for p in whole]


def mean(values: list[float]) -> float | None:
    """Mean of some numbers; None of none."""
    return sum(values) / len(values) if values else None


def loop_cost(results: Results) -> dict[str, float]:
    """Columns of the ledger summed over the loop's own stages, each instance once; empty where the ledger names no
    roles."""
    total: dict[str, float] = {}
    for spent in results["cost"].values():
        if isinstance(spent, Mapping) and LOOP_ROLES.fullmatch(str(spent.get("role", ""))):
            for key, value in spent.items():
                if isinstance(value, int | float) and not key.startswith("peak"):
                    total[key] = total.get(key, 0) + value
    return total


def removed(results: Results) -> float | None:
    """Points of unsafe rate on attacks that the loop took away, reset (or aligned model, without one) minus last iterate,
    summed over seeds and variants; None where nothing is known."""
    total, known = 0.0, False
    dataset = stages.main_of(results, "attack")
    for line in stages.lines(results, stages.rows_of(results, dataset, "unsafe_rate")):
        first, last = line.rows.get("reset") or line.rows.get("aligned"), line.rows.get(line.last or "")
        if first and last:
            for seed in set(first["seeds"]) & set(last["seeds"]):
                before, after = (r["values"][r["seeds"].index(seed)] for r in (first, last))
                total, known = total + 100 * (before - after), True
    return total if known else None


def accepted(results: Results) -> float:
    """Preference pairs of all iterations, variants and seeds."""
    return sum(r["n_pairs"] or 0 for r in results["pairs"] if iteration(r["method"]))
