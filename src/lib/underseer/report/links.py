"""Where a report leads: to the rows behind a number (part and filters of ``rows.html``, look/viewer), and to documents of the
repository, as pages beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from underseer import paths
from underseer.report import wording as w
from underseer.report.names import METRICS, iteration
from underseer.report.selfmoa.measured import AVERAGE
from underseer.report.selfmoa.stages import ATTACKS

ROWS, STAGES = "rows.html", "stages/index.html"
HOLDS = {
    "unsafe_rate": "unsafe",
    "unsafe_rate_training_judge": "unsafe_training",
    "unsafe_rate_judge_gap": "disagree",
    "refusal_rate": "refused",
    "over_refusal": "refused",
    "judge_failures": "failed",
    "accuracy": "right",
    "pgr": "gained",
    "toxic_share": "toxic",
    "empty_share": "empty",
    "attack_success": "success",
}
"""Metric -> the filter that holds of what it counts; of other metrics all rows are shown."""
HEADS = {w.metric_head(m): m for m in METRICS} | {"PGR (accuracy)": "pgr", "PGR": "pgr", "Refused, %": "over_refusal"}
HEADS |= {"Reporting judge, %": "unsafe_rate", "Training judge, %": "unsafe_rate_training_judge"}
"""Column of a table -> metric, where its head names one."""


def address(row: Mapping[str, Any], metric: str | None = None) -> str:
    """The address of the rows that a result row (method, variant, dataset; strategy, category) was made from, relative to the report.

    metric: what the number counts, in place of the row's own.
    """
    metric, dataset, method = metric or row.get("metric"), str(row.get("dataset", "")), row.get("method", "")
    holds, k = HOLDS.get(metric or ""), iteration(str(method))
    query: dict[str, Any] = {"part": "evaluation", "set": dataset, "method": method, "is": holds}
    if dataset == "red_team":
        query = {"part": "learnt", "method": f"red_team_{k}" if k else "", "is": holds, "strategy": row.get("strategy")}
    elif dataset == "pairs":
        query = {"part": "learnt", "method": f"pairs_{k}" if k else "", "is": "chosen"}
    elif dataset == w.TRANSFER:
        query = {"part": "transfer", "method": f"vote_{method}", "is": holds}
    elif dataset.startswith("test"):
        query = {"part": "test", "method": method, "is": holds}
    elif dataset in (AVERAGE, ATTACKS):
        query |= {"set": None, "role": "attack"}
    query |= {"category": row.get("category")}
    if row.get("variant") and dataset not in ("red_team", "pairs"):
        query["variant"] = json.dumps(row["variant"], sort_keys=True, separators=(",", ":"))
    return f"{ROWS}#{urlencode({key: value for key, value in query.items() if value})}"


def cells(line: Mapping[str, Any] | None, column: str) -> str | None:
    """The address for a cell of a table's line; None where the line was made from no rows. line: a result row; its ``columns`` may
    give another by the column's name."""
    if not line:
        return None
    row = (line.get("columns") or {}).get(column, line)
    return address(row, HEADS.get(column)) if row.get("dataset") else None


def documented(text: str) -> str:
    """Escaped text in which each document of the repository, such as docs/tuning.md, leads to its page beside the report."""

    def link(match: re.Match[str]) -> str:
        known = (paths.ROOT / match[0]).is_file()
        return f'<a href="docs/{match[1]}.html">{match[0]}</a>' if known else match[0]

    return re.sub(r"\bdocs/(\w+)\.md\b", link, escape(text))


def documents(html: str) -> list[Path]:
    """The documents of the repository to whose pages a report leads."""
    names = sorted(set(re.findall(r'href="docs/(\w+)\.html"', html)))
    return [file for name in names if (file := paths.ROOT / "docs" / f"{name}.md").is_file()]
