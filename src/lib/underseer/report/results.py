"""results.json: built from per-item predictions; the one source of every table, figure and page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer import metrics, stats
from underseer.report import compare
from underseer.report.scores import Scored, paired_seeds, reference, score
from underseer.w2s.pgr import pgr as recovered

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
LABELS = {"safety": ("safe", "unsafe"), "toxicity": ("civil", "toxic"), "legal": ("irrelevant", "relevant")}
PGR_METRICS = ("accuracy", "balanced_accuracy", "f1", "f1_macro", "auroc")
VOTES = ("single", "hard", "soft")

UNDEFINED = "undefined: the ceiling is not above the weak supervisor"
UNBOUNDED = "no finite interval: the gap between weak supervisor and ceiling does not differ from zero"


def build_results(
    name: str,
    pipeline: str,
    task: str,
    synthetic: bool,
    predictions: pd.DataFrame,
    cost: Mapping,
    provenance: Mapping,
    *,
    labels: pd.DataFrame | None = None,
    hygiene: pd.DataFrame | None = None,
    curves: pd.DataFrame | None = None,
    texts: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    published: Mapping | None = None,
    notes: Sequence[str] = (),
    n_boot: int = stats.N_BOOT,
    seed: int = 0,
) -> dict[str, Any]:
    """Results of a classification experiment in DESIGN.md's schema, ready for strict JSON (NaN becomes null).

    predictions: tidy, one row per item: method, variant (JSON of a dict; optional), seed, dataset, id, label (0/1), p
        (probability of class 1). The first data set is the main one.
    cost: ledger, flat or by stage. provenance: whatever says where the numbers come from (commit, parameters, keys,
    hashes). labels: the votes' labels on the transfer split: vote ('single', 'hard', 'soft', ...), seed, id, label
    (truth), p, and weak_label (0/1) where it is not p >= 0.5.
    hygiene: rows check, scope, rows, share. curves: method, seed, step, metric, value. texts: id -> text, for the
    case study; guarded texts are not stored. classes: names of class 0 and 1. published: {'source', 'note',
    'values': {method: {metric: value}}}; never kept for synthetic data.
    Raises ValueError for malformed tables.
    """
    from underseer.report.case import case_study

    if "variant" not in predictions.columns:
        predictions = predictions.assign(variant="{}")
    classes = tuple(classes or LABELS.get(task, ("0", "1")))
    groups = score(predictions, n_boot=n_boot, seed=seed)
    pgr = pgr_rows(groups)
    results = {
        "schema": SCHEMA,
        "name": name,
        "pipeline": pipeline,
        "task": task,
        "synthetic": bool(synthetic),
        "rows": [row for g in groups for row in metric_rows(g)],
        "pgr": pgr,
        "cost": dict(cost),
        "provenance": dict(provenance),
        "classes": list(classes),
        "tests": {"rule": compare.RULE, "rows": compare.comparisons(groups)},
        "label_quality": _label_quality(labels, n_boot, seed),
        "hygiene": _records(hygiene),
        "curves": _records(curves),
        "calibration": [_calibration(g) for g in groups],
        "confusion": [_confusion(g) for g in groups],
        "case_study": case_study(predictions, task=task, synthetic=synthetic, labels=classes, texts=texts),
        "published": None if synthetic or not published else dict(published),
        "interval": {"level": stats.LEVEL, "n_boot": n_boot, "covers": _covers(groups)},
        "notes": [*notes, *_notes(pgr)],
    }
    return strict(results)


def metric_rows(group: Scored) -> list[dict[str, Any]]:
    """One row of results per metric of one method."""
    rows = []
    for metric in metrics.METRICS:
        values = group.values[metric]
        found = stats.seed_item_interval(values, group.boot[metric], n_items=group.n_items)
        rows.append(
            {
                "method": group.method,
                "variant": group.variant,
                "dataset": group.dataset,
                "metric": metric,
                "values": values,
                "seeds": group.seeds,
                "mean": found.mean,
                "ci95": [found.lo, found.hi],
                "n_items": group.n_items,
            }
        )
    return rows


def pgr_rows(groups: Sequence[Scored]) -> list[dict[str, Any]]:
    """PGR of every student and metric: `mean` is the PGR of the mean scores, `values` that of each seed."""
    rows = []
    for g in groups:
        if not g.method.startswith("w2s_"):
            continue
        weak, ceiling = reference(groups, g, "weak"), reference(groups, g, "strong_ceiling")
        seeds = paired_seeds(g, weak, ceiling) if weak and ceiling else []
        for metric in PGR_METRICS if seeds else ():
            (w, bw), (v, bv), (c, bc) = (x.at(metric, seeds) for x in (weak, g, ceiling))
            found = stats.pgr_from_bootstrap(w, v, c, bw, bv, bc)
            values = [recovered(*scores) for scores in zip(w, v, c, strict=True)]
            note = {"undefined": UNDEFINED, "unbounded": UNBOUNDED}.get(found.kind)
            rows.append(
                {
                    "method": g.method,
                    "variant": g.variant,
                    "dataset": g.dataset,
                    "metric": metric,
                    "values": values,
                    "seeds": seeds,
                    "mean": found.value,
                    "ci95": None if found.kind != "bounded" else [found.lo, found.hi],
                    "note": note,
                }
            )
    return rows


def _label_quality(labels: pd.DataFrame | None, n_boot: int, seed: int) -> dict[str, Any] | None:
    if labels is None or not len(labels):
        return None
    frame = labels.rename(columns={"vote": "method", "weak_label": "predicted"}).assign(dataset="transfer")
    first = {v: k for k, v in enumerate(VOTES)}
    groups = sorted(score(frame, n_boot=n_boot, seed=seed), key=lambda g: first.get(g.method, len(first)))
    return {
        "rows": [r for g in groups for r in metric_rows(g)],
        "tests": compare.comparisons(groups),
        "covers": _covers(groups),
    }


def _calibration(g: Scored) -> dict[str, Any]:
    """Reliability of the pooled seeds."""
    curve = metrics.calibration_curve(np.concatenate(g.y), np.concatenate(g.p))
    return {"method": g.method, "variant": g.variant, "dataset": g.dataset, "n_seeds": len(g.seeds), **curve}


def _confusion(g: Scored) -> dict[str, Any]:
    """Counts summed over seeds: rows truth, columns prediction."""
    counts = sum(metrics.confusion(*x) for x in zip(g.y, g.p, g.predicted, strict=True))
    return {"method": g.method, "variant": g.variant, "dataset": g.dataset, "n_seeds": len(g.seeds), "counts": counts}


def _covers(groups: Sequence[Scored]) -> str:
    several = [len(g.seeds) > 1 for g in groups]
    if all(several):
        return "seeds and test items"
    return (
        "seeds and test items; test items only where there is one seed"
        if any(several)
        else "test items only (one seed)"
    )


def _notes(pgr: Sequence[Mapping]) -> list[str]:
    found = {r["note"] for r in pgr if r["note"] and r["metric"] == "accuracy"}
    return [f"PGR is {n}." if n == UNDEFINED else f"PGR has {n}." for n in sorted(found)]


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else table.to_dict("records")


def strict(value: Any) -> Any:
    """The same value in plain JSON types: NaN and infinities become null, floats keep 10 significant digits."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return strict(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [strict(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.generic):
        return strict(value.item())
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return str(value)


def save_results(results: Mapping, path: Path) -> None:
    """Write strict, indented, UTF-8 JSON; raises ValueError on NaN."""
    path.write_text(json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def load_results(path: Path) -> dict[str, Any]:
    """Read results.json. Raises ValueError where its schema is another."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {results.get('schema')!r}, this version reads {SCHEMA}")
    return results
