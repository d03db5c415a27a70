"""Ablations: scores and PGR against the values of one swept parameter, as tidy tables for a figure and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from underseer.report import tidy
from underseer.report import wording as w
from underseer.report.figures import axis_label
from underseer.report.names import iteration
from underseer.report.tabulate import Results, Table, ends, mark

METHOD_KEYS = ("student_loss", "voting")
"""Keys that a method's name tells: sweeping them makes other methods, not other variants of one."""

HEADS = {
    "bootstraps": "Supervisors",
    "voting": "Vote",
    "weak_model": "Weak model",
    "strong_model": "Strong model",
    "student_loss": "Student loss",
    "n_supervise": "Rows with ground truth",
    "n_transfer": "Rows that the supervisors label",
    "label_noise": "Share of weak labels that are turned",
    "iterations": "Iterations",
    "training_judge": "Training judge",
    "nll_weight": "Weight of the NLL term",
    "drop_both_unsafe": "Pairs of two unsafe answers",
    "clean": "Data cleaned",
    "min_agreement": "Smallest agreement kept",
    "judge_noise": "Errors of the training judges (strength)",
    "judge_error": "Kind of error",
    "n_judged": "Judged exchanges for the judges",
    "baseline_beta": "Temperature of plain DPO",
    "objective_weights": "Objective weights",
    "answers_per_prompt": "Answers per prompt",
    "replay_attacks": "Earlier attacks among a round's prompts",
    "reference": "Reference model",
    "reset": "Safety reset",
    "attack_strategies": "Attack strategies",
    "divide_by_weight": "Margin divided by the weight (MODPO)",
    "n_human_pairs": "Human preference pairs",
    "n_prompts": "Prompts per iteration",
    "beta": "beta (DPO temperature, no unit)",
}
"""Axis labels of swept parameters; others are shown by their name."""

VALUES = {
    "voting": {"none": "single", "hard": "hard vote", "soft": "soft vote"}
    | {"best_of_b": "best of B", "least_toxic": "least toxic", "mbr": "MBR"},
    "student_loss": {"hard_ce": "hard CE", "soft_ce": "soft CE", "aux_conf": "aux. confidence"}
    | {"filtered_ce": "filtered CE", "weighted_ce": "weighted CE"},
    "clean": {"True": "cleaned", "False": "raw"},
    "reset": {"True": "with reset", "False": "without"},
    "replay_attacks": {"True": "with earlier ones", "False": "new ones alone"},
    "reference": {"reset": "reset model", "previous": "previous iterate"},
    "divide_by_weight": {"True": "divided by w", "False": "not divided"},
    "drop_both_unsafe": {"True": "dropped", "False": "kept"},
}
SPELLED = {"naive": "none", "hard_vote": "hard", "soft_vote": "soft"}


@dataclass(frozen=True)
class Sweep:
    """A swept key, its values in order, and for each score a tidy table with ``line`` (the method), ``place`` (of the value; NaN:
    the key does not decide the method), ``tick``, ``gap`` (whether it is a PGR), and ``row`` (of results.json)."""

    key: str
    values: list[Any]
    scores: dict[str, pd.DataFrame]
    gaps: pd.DataFrame

    @property
    def head(self) -> str:
        """The key as an axis label."""
        return HEADS.get(self.key, self.key)

    @property
    def ticks(self) -> list[str]:
        """The values as labels."""
        known = VALUES.get(self.key, {})
        return [known.get(str(v), s) for v, s in zip(self.values, w.labels(self.values), strict=True)]

    @property
    def panels(self) -> list[tuple[pd.DataFrame, str]]:
        """Tables with axis labels, as ``figures.sweep`` takes them."""
        panels = [(table, axis_label(metric)) for metric, table in self.scores.items()]
        return panels + ([(self.gaps, "Performance gap\nrecovered (no unit)")] if len(self.gaps) else [])


def sweep(results: Results) -> Sweep | None:
    """The key that the experiment sweeps, other than seed; None where it sweeps none.

    Voting alone counts in experiments named 'ablations/...' only: everywhere else votes are methods beside each other.
    Of several keys, the one along which most points lie in one series.
    """
    scores = _scored(results)
    keys = {metric: _swept(results["name"], rows) for metric, rows in scores.items()}
    key = next((k for k in keys.values() if k), None)
    if key is None:
        return None
    scores = {metric: rows for metric, rows in scores.items() if keys[metric] == key}
    values = _ordered([v for vs in _by_series(next(iter(scores.values())), key).values() for v in vs])
    pgr = w.pick(results["pgr"], dataset=w.main_dataset(results), metric=w.primary(results))
    tables = {metric: _table(results, rows, key, values, gap=False) for metric, rows in scores.items()}
    swept = Sweep(key, values, tables, _table(results, pgr, key, values, gap=True))
    for series in (*swept.scores.values(), swept.gaps):
        if len(series):
            series["tick"] = [None if pd.isna(p) else swept.ticks[int(p)] for p in series["place"]]
    return swept


def _scored(results: Results) -> dict[str, list[Mapping]]:
    """Metric -> the rows that may be swept: the primary metric; of the loop safety, helpfulness and over-refusal of the last
    iterates and of the models beside them."""
    if results["pipeline"] != "selfmoa":
        return {w.primary(results): w.pick(results["rows"], dataset=w.main_dataset(results), metric=w.primary(results))}
    from underseer.report.selfmoa import stages
    from underseer.report.selfmoa.tidy import SCORED

    by_metric = {}
    for role, metric in SCORED:
        rows = stages.rows_of(results, stages.main_of(results, role), metric)
        last = {line.last for line in stages.lines(results, rows)}
        by_metric[metric] = [r for r in rows if not iteration(r["method"]) or r["method"] in last]
    return {metric: rows for metric, rows in by_metric.items() if rows}


def _swept(name: str, rows: Sequence[Mapping]) -> str | None:
    keys = [k for k in dict.fromkeys(k for r in rows for k in r["variant"]) if k != "voting"]
    if name.startswith("ablations/"):
        keys.append("voting")
    best, most = None, 1
    for key in keys:
        longest = max((len({repr(v) for v in vs}) for vs in _by_series(rows, key).values()), default=0)
        if longest > most:
            best, most = key, longest
    return best


def _value(row: Mapping[str, Any], key: str) -> Any:
    """A row's value of a key, from its variant, or from its method's name where that tells it; None: it has none."""
    if key in row["variant"]:
        return None if key in METHOD_KEYS and not w.method_parts(row["method"]) else row["variant"][key]
    parts = w.method_parts(row["method"])
    if key not in METHOD_KEYS or parts is None:
        return None
    return SPELLED.get(parts[0], parts[0]) if key == "voting" else parts[1]


def _identity(row: Mapping[str, Any], key: str) -> tuple[str, tuple]:
    """What stays the same along a series: the method without what the key changes, and the variant's other keys."""
    method, parts = row["method"], w.method_parts(row["method"])
    if parts and key == "voting":
        method = "student" if parts[1] == "hard_ce" else f"student {parts[1]}"
    elif parts and key == "student_loss":
        method = f"w2s_{parts[0]}"
    return method, tuple(sorted((k, repr(v)) for k, v in _plain(row, key).items()))


def _plain(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row["variant"].items() if k != key and k not in METHOD_KEYS}


def _by_series(rows: Sequence[Mapping], key: str) -> dict[tuple, list[Any]]:
    series: dict[tuple, list[Any]] = {}
    for row in rows:
        value = _value(row, key)
        if value is not None:
            series.setdefault(_identity(row, key), []).append(value)
    return series


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once, numbers in order, others as first met."""
    unique = list({repr(v): v for v in values}.values())
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in unique)
    return sorted(unique) if numbers else unique


def _table(results: Results, rows: Sequence[Mapping], key: str, values: Sequence[Any], *, gap: bool) -> pd.DataFrame:
    """Rows with their series and their place among the values."""
    where = {repr(v): k for k, v in enumerate(values)}
    of = [(*_identity(r, key), (v := _value(r, key)) is None, where.get(repr(v))) for r in rows]
    first: dict[tuple, dict[str, Any]] = {}
    for (method, rest, constant, _), row in zip(of, rows, strict=True):
        first.setdefault((method, rest, constant), {"method": method, "variant": _plain(row, key)})
    named = ["W2S student" if n == "student" else w.capital(n) for n in w.row_names(list(first.values()))]
    names = dict(zip(first, named, strict=True))
    table = tidy.frame(results, rows, "" if gap else None)
    lines = [names[o[:3]] for o in of]
    places = pd.Series([None if o[2] else o[3] for o in of], dtype=float)
    return table.assign(line=lines, place=places, gap=gap, row=list(rows))


def table(results: Results) -> Table | None:
    """Every score, and PGR, at each value of the swept key; methods that it does not decide last."""
    swept = sweep(results)
    if swept is None:
        return None
    lines, data, first = [], [], []
    names = list(dict.fromkeys(n for t in swept.scores.values() for n in t["line"]))
    for place, value in enumerate([*swept.values, None]):
        for name in names:
            rows = {m: _at(t, name, place, value) for m, t in swept.scores.items()}
            rows = {m: r for m, r in rows.items() if r}
            if not rows:
                continue
            gap = _at(swept.gaps, name, place, value)
            shown = {w.metric_head(m): w.with_interval(rows.get(m), m) for m in swept.scores}
            shown |= {"PGR": w.pgr_text(gap) if gap else ""} if len(swept.gaps) else {}
            tick = "any" if value is None else swept.ticks[place]
            seeds = str(max(len(r["seeds"]) for r in rows.values()))
            lines.append({swept.head: tick, "Method": name} | shown | {"Seeds": seeds})
            first.append(next(iter(rows.values())))
            data += [{swept.key: value, "series": name} | _numbers(r, gap) for r in rows.values()]
    title = f"Ablation of {swept.key}"
    sample = w.sample_text([r for t in swept.scores.values() for r in t["row"]], results["interval"]["covers"])
    text = f"{caption(results, swept)} {w.capital(sample)}.{mark(results)}"
    return Table("ablation", title, text, pd.DataFrame(lines), pd.DataFrame(data), first)


def _at(rows: pd.DataFrame, line: str, place: int, value: Any) -> Mapping[str, Any] | None:
    if not len(rows):
        return None
    here = rows["place"].isna() if value is None else rows["place"] == place
    return next(iter(rows.loc[here & (rows["line"] == line), "row"]), None)


def _numbers(row: Mapping[str, Any], gap: Mapping[str, Any] | None) -> dict[str, Any]:
    numbers = {k: row[k] for k in ("method", "dataset", "metric", "mean")} | ends(row)
    numbers |= {"pgr": gap["mean"], **ends(gap, "pgr_ci95")} if gap else {}
    return numbers | {"seeds": len(row["seeds"])}


def caption(results: Results, swept: Sweep | None = None) -> str:
    """What is swept, and how to read it, without the sample; empty where nothing is."""
    swept = swept or sweep(results)
    if swept is None:
        return ""
    metrics = [w.spoken(m) + (", lower is better," if w.lower_is_better(m) else "") for m in swept.scores]
    metrics += ["performance gap recovered"] if len(swept.gaps) else []
    head = "" if swept.head.lower() == swept.key.replace("_", " ") else f" ({swept.head[:1].lower()}{swept.head[1:]})"
    return (
        f"{w.capital(w.listing(metrics))} against {swept.key}{head}, values at equal distances, with 95 % intervals. A method "
        f"that {swept.key} does not decide is one horizontal line with its band, or where there are many with its interval at the end."
    )
