"""Tables of what an experiment rests on: the state of its data, and what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.tabulate import Results, Table, cell, table


def hygiene(results: Results) -> Table | None:
    """What the data stage found: duplicates, conflicts, overlap between splits."""
    if not results.get("hygiene"):
        return None
    data = pd.DataFrame(results["hygiene"])
    shown = data.rename(columns=_head)
    for column in shown.columns:
        shown[column] = [cell(v, percent=column == "Share") for v in shown[column]]
    caption = (
        "Duplicates, label conflicts and overlap between splits, as measured on the data that this experiment used."
    )
    return table(results, "hygiene", "Data hygiene", caption, shown.rename(columns={"Share": "Share, %"}), data)


def _head(column: str) -> str:
    return w.capital(column.replace("_", " "))


def cost(results: Results) -> Table | None:
    """The ledger: what was spent, by stage where it is known by stage."""
    by_stage = cost_by_stage(results["cost"])
    if not by_stage:
        return None
    data = pd.DataFrame([{"stage": k, **v} for k, v in by_stage.items()]).fillna(0)
    shown = data.rename(columns=_head).rename(columns={"Seconds": "Time, s", "Peak memory mb": "Peak memory, MB"})
    for column in shown.columns[1:]:
        shown[column] = shown[column].map(cell)
    caption = (
        "What this report rests on, each stage instance counted once. Tokens without padding; peak memory is the "
        "largest of the instances."
    )
    return Table("cost", "Cost", caption, shown, data)


def cost_by_stage(ledger: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """A ledger summed by stage, a total last; peaks are the largest. Flat ledgers have one line; keys like 'w2s/4_student/<key>'
    lose the key."""
    nested = {k: v for k, v in ledger.items() if isinstance(v, Mapping)}
    if not nested:
        numbers = {k: v for k, v in ledger.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return {"all stages": numbers} if numbers else {}
    table = pd.DataFrame([{"instances": 1, **spent} for spent in nested.values()]).select_dtypes("number")
    stage = [name.rpartition("/")[0] if name.count("/") > 1 else name for name in nested]
    rules = {c: "max" if c.startswith("peak") else "sum" for c in table.columns}
    sums = table.groupby(stage).agg(rules).to_dict("index")
    known = {
        k: {c: v for c, v in row.items() if table.loc[[s == k for s in stage], c].notna().any()}
        for k, row in sums.items()
    }
    return known | {"total": table.agg(rules).to_dict()}
