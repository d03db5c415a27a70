"""What MLflow shows first of an experiment: few headline numbers, and the view that ``underseer mlflow`` opens.

MLflow's page reads a view from a tag of the experiment, as its "Share" button writes it; the address names the tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from underseer.runs.plan import Plan

KEY = "underseer"
"""Names the view in the address, and in the tag ``mlflow.sharedViewState.<KEY>``."""
TAG = f"mlflow.sharedViewState.{KEY}"
HALF_WIDTH = ".half_width"
"""After a headline metric's name: half the width of its 95 % interval."""
FURTHER = "all/"
"""Before the names of all metrics as the report has them: MLflow folds what stands before a slash."""
DIGITS = 4
"""Decimals of the headline metrics: MLflow shows every digit that it holds."""
LOOP = (r"selfmoa_unsafe_rate_(?!training_judge)", r"selfmoa_helpfulness_(?!attack)", r"selfmoa_over_refusal_(?!safe)",
        r"reset_unsafe_rate_(?!training_judge)")  # fmt: skip
W2S = ("pgr", "student", "weak", "ceiling")


def headline(pipeline: str, primary: str, names: Iterable[str]) -> list[str]:
    """The few metrics of a report that answer its question, in order; ``primary`` is the report's primary metric."""
    plain = [name for name in names if ".ci95_" not in name]
    patterns = [rf"{role}_{primary}$" for role in W2S] if pipeline != "selfmoa" else LOOP
    return [name for pattern in patterns for name in plain if re.match(pattern, name)]


def arranged(metrics: Mapping[str, float | None], first: Iterable[str]) -> dict[str, float | None]:
    """A report's metrics under the names that MLflow gets: the headline ones rounded, with their half-widths, and all after ``all/``."""
    named: dict[str, float | None] = {}
    for name in (n for n in first if metrics.get(n) is not None):
        named[name] = round(metrics[name], DIGITS)
        low, high = (metrics.get(f"{name}.ci95_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            named[f"{name}{HALF_WIDTH}"] = round((high - low) / 2, DIGITS)
    if "n_seeds" in metrics:
        named["n_seeds"] = metrics["n_seeds"]
    return named | {f"{FURTHER}{name}": value for name, value in metrics.items()}


def view(plan: Plan, first: list[str]) -> str:
    """The view of an experiment: its configurations alone, what they differ in, the headline numbers; the best one first."""
    axes = [name for name in dict.fromkeys(n for v in plan.variants for n in v["values"]) if name != "seed"]
    columns = [f"params.`{name}`" for name in axes]
    for name in first:
        columns += [f"metrics.`{name}`", f"metrics.`{name}{HALF_WIDTH}`"]
    columns.append("metrics.`n_seeds`")
    state: dict[str, Any] = {
        "searchFilter": "tags.kind = 'configuration'",
        "orderByKey": f"metrics.`{first[0]}`" if first else "attributes.start_time",
        "orderByAsc": bool(first) and first[0].startswith("selfmoa_unsafe"),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {c: 130 if HALF_WIDTH in c else 8 * len(c) - 40 for c in columns},
        "runsHiddenMode": "SHOW_ALL",
    }
    return json.dumps(state)


def address(base: str, experiment: str) -> str:
    """The address of the view of an experiment (its id) below a server's."""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"


def beside(base: str, experiments: list[str], runs: list[str]) -> str:
    """The address that compares runs (their ids) of several experiments, with numbers and parallel coordinates: in a table of
    several experiments MLflow shows no columns that an address could name."""
    asked = {"runs": json.dumps(runs), "experiments": json.dumps(experiments)}
    return f"{base}/#/compare-runs?{urlencode(asked)}"
