"""results.json: what it says of an experiment, built from per-item predictions; the one source of every table, figure and page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from underseer.maths import metrics, stats
from underseer.report import compare, rows
from underseer.report.case import case_study
from underseer.report.rows import metric_rows, pgr_rows, records, strict
from underseer.report.scores import Classified, Scored, score

SCHEMA = 1
LABELS = {"safety": ("safe", "unsafe"), "toxicity": ("civil", "toxic"), "legal": ("irrelevant", "relevant")}
UNITS = {"legal": "questions"}
"""What the clusters of a task's predictions are."""
VOTES = ("single", "hard", "soft")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What results.json says of an experiment beside its scores, the same for all pipelines.

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


def build_results(
    experiment: Experiment,
    predictions: pd.DataFrame,
    *,
    labels: pd.DataFrame | None = None,
    classes: Sequence[str] | None = None,
    n_boot: int = stats.N_BOOT,
    seed: int = 0,
) -> dict[str, Any]:
    """Results of a classification experiment, ready for strict JSON (NaN becomes null).

    predictions: tidy, one row per item: method, variant (JSON of a dict), seed, dataset, id, label (0/1), p
        (probability of class 1), cluster (optional: the question that rows share). The first data set is the main one.
    labels: the votes' labels on the transfer split: vote ('single', 'hard', 'soft', ...), variant (optional), seed, id, label
    (truth), p, and weak_label (0/1) where it is not p >= 0.5. classes: names of class 0 and 1.
    Raises ValueError for malformed tables.
    """
    task, unit = experiment.task, UNITS.get(experiment.task, "clusters")
    names = tuple(classes or LABELS.get(task, ("0", "1")))
    groups, given = score(predictions, n_boot=n_boot, seed=seed, unit=unit), _label_groups(labels, n_boot, seed, unit)
    tests, label_tests = compare.corrected(compare.comparisons(groups), compare.comparisons(given))
    pgr = pgr_rows(groups)
    case = case_study(predictions, task=task, synthetic=experiment.synthetic, labels=names, texts=experiment.texts)
    results = {
        **experiment.heading("accuracy"),
        "rows": [row for g in groups for row in metric_rows(g, start={"accuracy": g.chance})],
        "pgr": pgr,
        **experiment.facts(),
        "classes": list(names),
        "tests": {"rule": compare.rule(groups), "rows": tests},
        "label_quality": label_quality(given, label_tests),
        "calibration": [_calibration(g) for g in groups],
        "confusion": [_confusion(g) for g in groups],
        "case_study": case,
        "interval": {"level": stats.LEVEL, "n_boot": n_boot, "covers": rows.covers(groups)},
        "notes": [*experiment.notes, *rows.pgr_notes(pgr, "accuracy")],
    }
    return strict(results)


def _label_groups(labels: pd.DataFrame | None, n_boot: int, seed: int, unit: str) -> list[Classified]:
    """The labels of each vote on the transfer rows, scored as a classifier."""
    if labels is None or not len(labels):
        return []
    frame = labels.rename(columns={"vote": "method", "weak_label": "predicted"}).assign(dataset="transfer")
    first = {v: k for k, v in enumerate(VOTES)}
    return sorted(score(frame, n_boot=n_boot, seed=seed, unit=unit), key=lambda g: first.get(g.method, len(first)))


def label_quality(
    groups: Sequence[Scored], tests: list[dict[str, Any]], names: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """The block of results.json about the votes' labels; None without any. names: metrics, where not all are kept."""
    if not groups:
        return None
    starts = [{"accuracy": g.chance} if isinstance(g, Classified) else {} for g in groups]
    made = [r for g, start in zip(groups, starts, strict=True) for r in metric_rows(g, names, start)]
    return {"rows": made, "tests": tests, "covers": rows.covers(groups)}


def _calibration(g: Classified) -> dict[str, Any]:
    """Reliability of the pooled seeds."""
    curve = metrics.calibration_curve(np.concatenate(g.y), np.concatenate(g.p))
    return {**g.named, "n_seeds": len(g.seeds), **curve}


def _confusion(g: Classified) -> dict[str, Any]:
    """Counts summed over seeds: rows truth, columns prediction."""
    counts = sum(metrics.confusion(*x) for x in zip(g.y, g.p, g.predicted, strict=True))
    return {**g.named, "n_seeds": len(g.seeds), "counts": counts}


def save_results(results: Mapping, path: Path) -> None:
    """Write strict, indented, UTF-8 JSON; raises ValueError on NaN."""
    path.write_text(json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def load_results(path: Path) -> dict[str, Any]:
    """Read results.json. Raises ValueError where its schema is another."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {results.get('schema')!r}, this version reads {SCHEMA}")
    return results
