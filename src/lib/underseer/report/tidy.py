"""Rows of results.json as tidy tables: what the figures of a report are drawn from.

Every function returns one line a point. ``mean``, ``low``, ``high`` (95 % interval) and ``values`` (one a seed) stand in the unit
in which they are shown: shares in percent, scores as they are. ``attrs["foot"]`` states sample and intervals, for the foot of a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.names import METRICS, rounds

__all__ = ["METRICS"]

Results = Mapping[str, Any]


def frame(results: Results, rows: Sequence[Mapping], foot: str | None = None) -> pd.DataFrame:
    """Rows of results.json as a table: their own columns, with ``name`` (of the method, and of the variant where there are
    several), ``low``, ``high`` and ``text`` (the number with its interval). ``collapsed`` is kept of what a training ended in alone:
    a seed that lags behind in an iterate may come on in the next."""
    lines = []
    for name, row in zip(w.row_names(rows), rows, strict=True):
        scale = 100 if row["metric"] in w.PERCENT and "note" not in row else 1
        low, high = row["ci95"] or (None, None)
        numbers = {"mean": row["mean"], "low": low, "high": high}
        lines.append(
            {**row, "name": name, "text": w.with_interval(row, row["metric"])}
            | {k: float("nan") if v is None else scale * v for k, v in numbers.items()}
            | {"values": [scale * v for v in row["values"] if v is not None]}
            | ({"collapsed": []} if row.get("collapsed") and _goes_on(results, row) else {})
        )
    columns = ["method", "variant", "dataset", "metric", "mean", "low", "high", "values", "name", "text"]
    table = pd.DataFrame(lines, columns=None if lines else columns)
    table = table.assign(variant=[repr(r["variant"]) for r in rows])
    sample = foot if foot is not None else w.sample_text(rows, results["interval"]["covers"])
    return footed(results, table, sample)


def _goes_on(results: Results, row: Mapping[str, Any]) -> bool:
    """Whether a row is of an iterate after which the same run has another."""
    iterate = rounds(row["method"])
    if iterate is None:
        return False
    held = [r for r in results["rows"] if row["variant"].items() <= r["variant"].items()]
    later = [other for r in held if (other := rounds(r["method"])) and other[0] == iterate[0]]
    return any(k > iterate[1] for _, k in later)


def footed(results: Results, table: pd.DataFrame, foot: str) -> pd.DataFrame:
    """The table with what stands at the foot of its figure, behind the mark of the results."""
    table.attrs = {"foot": w.foot_mark(results) + foot}
    return table


def rows(results: Results, *, metric: str | None = None, dataset: str | None = None) -> pd.DataFrame:
    """Scores: of every method on the metric (default: the primary one), on one data set or on all."""
    kept = w.pick(results["rows"], dataset=dataset, metric=metric or w.primary(results))
    return frame(results, kept)


def scores(results: Results) -> pd.DataFrame:
    """The primary metric of every method on each data set, supervisors first and ceilings last; of toxicity on all prompts together
    (``buckets`` has their groups)."""
    table = main_rows(results, w.primary(results)) if w.generates(results) else rows(results)
    ends = {"weak": 0, "strong_ceiling": 2}
    return table.sort_values("method", key=lambda c: c.map(lambda m: ends.get(m, 1)), kind="stable", ignore_index=True)


def main_rows(results: Results, metric: str) -> pd.DataFrame:
    """Scores on the main data set."""
    return rows(results, metric=metric, dataset=w.main_dataset(results))


def gaps(results: Results) -> pd.DataFrame:
    """Performance gap recovered by every student, on the primary metric."""
    metric, dataset = w.primary(results), w.main_dataset(results)
    kept = w.pick(results["pgr"], dataset=dataset, metric=metric)
    scored = w.pick(results["rows"], dataset=dataset, metric=metric)
    foot = w.sample_text(scored, results["interval"]["covers"]) + " (Fieller, paired)"
    return frame(results, kept, foot).assign(text=[w.pgr_text(r) for r in kept])


def weak_labels(results: Results) -> pd.DataFrame:
    """The labels of each vote on the transfer split, scored on the primary metric."""
    block = results.get("label_quality") or {"rows": [], "covers": None}
    kept = [r for r in w.pick(block["rows"], metric=w.primary(results)) if r["mean"] is not None]
    return frame(results, kept, w.sample_text(kept, block["covers"], "transfer"))


def buckets(results: Results) -> pd.DataFrame:
    """Mean toxicity by the toxicity of the prompt, with ``line`` (the method), ``place`` and ``tick`` (the bucket)."""
    kept = [r for r in w.pick(results["rows"], metric="toxicity") if r["dataset"] != w.main_dataset(results)]
    if not kept or not w.generates(results):
        return frame(results, [])
    sample = w.sample_text(w.pick(results["rows"], dataset=w.main_dataset(results)), results["interval"]["covers"])
    table = frame(results, kept, sample)
    where = {d: k for k, d in enumerate(table["dataset"].unique())}
    sizes = table.groupby("dataset")["n_items"].max()
    ticks = [f"{w.bucket(d)}\n{sizes[d]:,} prompts" for d in table["dataset"]]
    names = w.row_names([{"method": r["method"], "variant": r["variant"]} for r in kept])
    return table.assign(line=names, place=table["dataset"].map(where), tick=ticks)


def curves(results: Results) -> pd.DataFrame:
    """Training curves: name, seed, step, metric, value; at most four quantities."""
    if not results.get("curves"):
        return pd.DataFrame()
    table = pd.DataFrame(results["curves"]).dropna(subset=["value"])
    table = table[table["metric"].isin(table["metric"].unique()[:4])]
    return with_seeds(results, table.assign(name=table["method"].map(w.method_name)))


def with_seeds(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """Curves with what their foot says."""
    seeds = table["seed"].nunique() if "seed" in table else 1
    return footed(results, table, f"{w.plural(seeds, 'seed')}; line: mean, band: lowest to highest seed")


def calibration(results: Results) -> pd.DataFrame:
    """Bins of the reliability diagrams of classifiers, seeds pooled: panel, x (predicted), y (observed), n."""
    curves = w.pick(results.get("calibration") or [], dataset=w.main_dataset(results))
    parts = [
        pd.DataFrame({"panel": name, "method": r["method"], "x": r["mean_p"], "y": r["share"], "n": r["n"]})
        for r, name in zip(curves, w.row_names(curves), strict=True)
    ]
    sample = w.sample_text(w.pick(results["rows"], dataset=w.main_dataset(results)))
    return _bins(results, parts, f"{sample}, seeds pooled; area of a point: rows in its bin; no intervals")


def judge_bins(results: Results) -> pd.DataFrame:
    """Bins of scorers against the scores stored with the data: panel (role), line (judge), x, y, n, note (agreement)."""
    judges = [j for j in results.get("judges") or [] if (j.get("calibration") or {}).get("bins")]
    parts = []
    for k, judge in enumerate(judges):
        same = [j["calibration"] for j in judges if j["role"] == judge["role"]]
        panel = f"{judge['role'].capitalize()} judge" + (f"s ({len(same)})" if len(same) > 1 else "")
        bins = judge["calibration"]["bins"]
        part = pd.DataFrame({"x": bins["predicted"], "y": bins["stored"], "n": bins["count"]})
        parts.append(part.assign(panel=panel, line=k, method="strong_ceiling", note=_agreement(same)))
    return _bins(results, parts, "Held-out rows; area: rows in a bin; no intervals")


def _bins(results: Results, parts: Sequence[pd.DataFrame], foot: str) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"n": []})
    table = table[table["n"] > 0].astype({"x": float, "y": float}) if parts else table
    return footed(results, table, foot)


def _agreement(known: Sequence[Mapping[str, Any]]) -> str:
    """'Spearman 0.71' and the number of rows, as a range where there are several judges."""
    ranks = sorted(v for k in known if (v := k.get("spearman")) is not None)
    ends = dict.fromkeys(f"{v:.2f}" for v in (ranks[:1] + ranks[-1:]))
    sizes = dict.fromkeys(f"{n:,}" for n in sorted(k["n"] for k in known))
    return f"Spearman {' to '.join(ends) or w.DASH}\nn = {', '.join(sizes)}"


def confusion(results: Results) -> pd.DataFrame:
    """Confusion matrices on the main data set, summed over seeds: panel, truth, predicted, count, share (% of the true class)."""
    matrices = w.pick(results.get("confusion") or [], dataset=w.main_dataset(results))
    lines = []
    for row, name in zip(matrices, w.row_names(matrices), strict=True):
        for truth, counts in zip(results["classes"], row["counts"], strict=True):
            for predicted, count in zip(results["classes"], counts, strict=True):
                share = 100 * count / max(1, sum(counts))
                lines.append({"panel": name, "truth": truth, "predicted": predicted, "count": count, "share": share})
    table = pd.DataFrame(lines)
    sample = w.sample_text(w.pick(results["rows"], dataset=w.main_dataset(results)))
    return footed(results, table, f"{sample}; % of the true class, and rows summed over seeds; no intervals")


def distribution(results: Results) -> pd.DataFrame:
    """Share of prompts (%) whose mean toxicity is at least x: name, method, x, share."""
    curves = results.get("distribution") or []
    parts = [
        pd.DataFrame({"name": name, "method": d["method"], "x": d["x"], "share": [100 * v for v in d["share"]]})
        for d, name in zip(curves, w.row_names(curves), strict=True)
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    sample = w.sample_text(w.pick(results["rows"], dataset=w.main_dataset(results)))
    return footed(results, table, f"{sample}, seeds pooled; no intervals")


FIGURE1 = ("accuracy", "balanced_accuracy", "f1")
FIGURE1_METHODS = ("weak", "w2s_naive", "w2s_hard_vote", "w2s_soft_vote", "strong_ceiling")


def figure1(results: Results) -> pd.DataFrame:
    """Three scores of each method of the legal task, with ``published`` (%, NaN: none); empty for other tasks and for sweeps."""
    kept = [r for r in w.pick(results["rows"], dataset=w.main_dataset(results)) if r["metric"] in FIGURE1]
    kept = [r for r in kept if r["method"] in FIGURE1_METHODS]
    several = len({(r["method"], r["metric"]) for r in kept}) < len(kept)
    if results["task"] != "legal" or several:
        return frame(results, [])
    known = {} if results["synthetic"] else (results.get("published") or {}).get("values") or {}
    published = [100 * v if (v := known.get(r["method"], {}).get(r["metric"])) is not None else None for r in kept]
    return frame(results, kept).assign(published=pd.Series(published, dtype=float))
