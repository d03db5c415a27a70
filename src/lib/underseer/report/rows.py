"""Rows of results.json: scores and performance gaps with their intervals, and plain JSON out of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from underseer.engines.cuts import MAX_CUT
from underseer.maths import stats
from underseer.maths.collapse import collapsed
from underseer.maths.metrics import LOWER_IS_BETTER
from underseer.maths.prevalence import wilson
from underseer.report import wording as w
from underseer.report.scores import Scored, paired_seeds, reference

UNDEFINED = "undefined: the ceiling is not above the weak supervisor"
UNDEFINED_LOWER = "undefined: the ceiling is not below the weak supervisor"
UNBOUNDED = "no finite interval: the gap between weak supervisor and ceiling does not differ from zero"

PGR_METRICS = ("accuracy", "balanced_accuracy", "f1", "f1_macro", "auroc")
"""Scores of a classifier whose gap is reported."""

RATES = frozenset(
    {"accuracy", "toxic_share", "toxicity_probability", "empty_share", "unsafe_rate", "unsafe_rate_training_judge"}
    | {"refusal_rate", "over_refusal", "attack_success"}
)
"""Shares of items: each item is a trial, or a mean of trials."""

BOUNDS = {"perplexity": (0.0, math.inf), "n_tokens": (0.0, math.inf), "unsafe_rate_judge_gap": (-1.0, 1.0)}
"""Ranges of scores; all others lie in [0, 1]."""


def metric_rows(
    group: Scored, names: Sequence[str] | None = None, start: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One row of results per metric of one method (all, or `names`); metrics without bootstrap replicates have an
    interval over seeds alone.

    start: metric -> rate without learning, one number or one a seed; such rows name the seeds that have `collapsed` (see
    ``collapse``). Rows of RATES have Wilson's 95 % interval of each seed, `seed_ci95`: this model on new items. `ci95` is about new
    trainings on new items; of several seeds `ci95_items` is about the mean of these very trainings on new items.
    """
    rows = []
    for metric in names or group.values:
        values = group.values[metric]
        interval = _interval(group, metric)
        rows.append(
            {
                **group.named,
                "metric": metric,
                "values": values,
                "seeds": group.seeds,
                "mean": interval.mean,
                "ci95": [interval.lo, interval.hi],
                "n_items": group.n_items,
                "median": float(np.median(values)),
            }
            | _on_new_items(group, metric)
            | _by_seed(group, metric, start or {})
            | _unit(group)
        )
    return rows


def derived(row: Mapping[str, Any], metric: str, values: Sequence[float], mean: float, ci95: Any) -> dict[str, Any]:
    """A row for another metric of the same method, seeds and items."""
    kept = {k: v for k, v in row.items() if k not in ("seed_ci95", "ci95_items", "collapsed")}
    return kept | {"metric": metric, "values": values, "mean": mean, "ci95": ci95, "median": float(np.median(values))}


def _by_seed(group: Scored, metric: str, start: Mapping[str, Any]) -> dict[str, Any]:
    """Wilson's interval of each seed of a rate, on its unique items (prompts of several draws and clusters count once), and
    the seeds that have collapsed where it is known what they started from."""
    if metric not in RATES:
        return {}
    values, n = group.values[metric], [len(np.unique(i)) for i in group.items]
    fields: dict[str, Any] = {"seed_ci95": [list(wilson(v * k, k)) for v, k in zip(values, n, strict=True)]}
    if metric in start:
        seeds = np.array(group.seeds)[collapsed(values, n, start[metric])]
        fields["collapsed"] = [int(s) for s in seeds]
    return fields


def _on_new_items(group: Scored, metric: str) -> dict[str, Any]:
    if len(group.seeds) == 1 or metric not in group.boot:
        return {}
    interval = _interval(group, metric, fixed_seeds=True)
    return {"ci95_items": [interval.lo, interval.hi]}


def _interval(group: Scored, metric: str, fixed_seeds: bool = False) -> stats.Interval:
    values, nan = group.values[metric], float("nan")
    if metric in group.boot:
        bounds = BOUNDS.get(metric, (0.0, 1.0))
        options = {"bounds": bounds, "n_items": group.n_items, "fixed_seeds": fixed_seeds}
        return stats.seed_item_interval(values, group.boot[metric], **options)
    if np.isnan(values).any():
        return stats.Interval(nan, nan, nan)
    if metric in ("judge_failures", "cut_share"):  # counts: nothing to estimate
        return stats.Interval(float(np.mean(values)), nan, nan)
    return stats.Interval(*stats.mean_ci(values))


def _unit(group: Scored) -> dict[str, Any]:
    """What the items are called, and how many rows they hold, where they are not the rows themselves."""
    if group.unit == "items":
        return {}
    return {"unit": group.unit} | ({"n_rows": len(np.unique(np.concatenate(group.rows)))} if group.clustered else {})


def pgr_rows(groups: Sequence[Scored], metrics: Sequence[str] = PGR_METRICS) -> list[dict[str, Any]]:
    """PGR of every student and metric: `mean` is the PGR of the mean scores, `values` that of each seed.

    Where lower is better, scores are negated first: (weak - student) / (weak - ceiling).
    """
    rows = []
    for g in groups:
        if not g.method.startswith("w2s_"):
            continue
        weak, ceiling = reference(groups, g, "weak"), reference(groups, g, "strong_ceiling")
        seeds = paired_seeds(g, weak, ceiling) if weak and ceiling else []
        for metric in metrics if seeds else ():
            sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
            (w, bw), (v, bv), (c, bc) = ([sign * y for y in x.at(metric, seeds)] for x in (weak, g, ceiling))
            recovered = stats.pgr_interval(w, v, c, bw, bv, bc)
            values = [stats.pgr(*scores) for scores in zip(w, v, c, strict=True)]
            undefined = UNDEFINED_LOWER if sign < 0 else UNDEFINED
            rows.append(
                {
                    **g.named,
                    "metric": metric,
                    "values": values,
                    "seeds": seeds,
                    "mean": recovered.value,
                    "ci95": None if recovered.kind != "bounded" else [recovered.lo, recovered.hi],
                    "note": {"undefined": undefined, "unbounded": UNBOUNDED}.get(recovered.kind),
                }
            )
    return rows


def pgr_notes(pgr: Sequence[Mapping], primary: str) -> list[str]:
    """A sentence for each reason why a PGR on the primary metric has no value or no interval."""
    notes = {r["note"] for r in pgr if r["note"] and r["metric"] == primary}
    return [f"PGR has {n}." if n == UNBOUNDED else f"PGR is {n}." for n in sorted(notes)]


def cut_notes(what: str, shares: Iterable[tuple[str, float | None]]) -> list[str]:
    """A warning that names the methods of which more than MAX_CUT of a seed's ``what`` ran out of tokens; none where there is none.
    shares: method, and its share in one seed (None or NaN: not known)."""
    worst: dict[str, float] = {}
    for method, share in shares:
        if share is not None and share > MAX_CUT:
            worst[method] = max(share, worst.get(method, 0.0))
    if not worst:
        return []
    named = w.listing([f"{w.method_name(method)} (up to {100 * share:.1f} %)" for method, share in worst.items()])
    return [
        f"WARNING: more than {100 * MAX_CUT:.0f} % of the {what} ran out of tokens, by {named}. They are judged as they stand; raise "
        "max_new_tokens."
    ]


def covers(groups: Sequence[Scored]) -> str:
    """What intervals cover: 'seeds and test items', or 'test questions only (one seed)'."""
    unit = groups[0].unit if groups else "items"
    several = [len(g.seeds) > 1 for g in groups]
    if all(several):
        return f"seeds and test {unit}"
    if any(several):
        return f"seeds and test {unit}; test {unit} only where there is one seed"
    return f"test {unit} only (one seed)"


def records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows of a table as mappings; none for no table."""
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
