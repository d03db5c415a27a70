"""What results.json says of an experiment beside its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from underseer.report.rows import records

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The same for all pipelines.

    synthetic: of the testbed. cost: ledger, flat or by stage (by stage instance, each optionally with 'role', of the loop).
    provenance: whatever says where the numbers come from (commit, parameters, keys, hashes). hygiene: rows check, scope, rows,
    share. curves: method, seed, step, metric, value. texts: id -> text, for the case study; guarded texts are not stored.
    published: {'source', 'note', 'values': {method: {metric: value}}}; never kept for synthetic data.
    """

    name: str
    pipeline: str
    task: str
    synthetic: bool
    cost: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    hygiene: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    texts: Mapping[str, str] | None = None
    published: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    def heading(self, primary_metric: str) -> dict[str, Any]:
        """The first entries of results.json."""
        named = {"schema": SCHEMA, "name": self.name, "pipeline": self.pipeline, "task": self.task}
        return named | {"synthetic": bool(self.synthetic), "primary_metric": primary_metric}

    def facts(self) -> dict[str, Any]:
        """What it rests on, and what the paper states."""
        published = None if self.synthetic or not self.published else dict(self.published)
        known = {"cost": dict(self.cost), "provenance": dict(self.provenance), "published": published}
        return known | {"hygiene": records(self.hygiene), "curves": records(self.curves)}
