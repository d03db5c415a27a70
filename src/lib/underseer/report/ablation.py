"""Ablations: the primary metric and PGR against the values of one swept parameter, as a figure and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.canvas import axis_label, colour, figure, foot, main_rows, sample, wrapped
from underseer.report.tabulate import Results, Table, capital, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    "clean": "Data cleaned",
    "min_agreement": "Smallest agreement kept",
    "judge_noise": "Noise of the training judges (share of verdicts turned)",
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
}
SPELLED = {"naive": "none", "hard_vote": "hard", "soft_vote": "soft"}


@dataclass
class Series:
    """One line of the figure: rows by position on the swept axis; `constant` where the key does not decide the method."""

    method: str
    name: str
    points: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    constant: Mapping[str, Any] | None = None


@dataclass
class Sweep:
    """A swept key, its values in order, and every method's scores and PGR along it."""

    key: str
    values: list[Any]
    scores: list[Series]
    pgr: list[Series]

    @property
    def ticks(self) -> list[str]:
        told = VALUES.get(self.key, {})
        return [told.get(str(v), s) for v, s in zip(self.values, w.labels(self.values), strict=True)]


def _told(row: Mapping[str, Any], key: str) -> Any:
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
    rest = {k: v for k, v in row["variant"].items() if k != key and k not in METHOD_KEYS}
    return method, tuple(sorted((k, repr(v)) for k, v in rest.items()))


def sweep(results: Results) -> Sweep | None:
    """The key that the experiment sweeps, other than seed; None where it sweeps none.

    Voting alone counts in experiments named 'ablations/...' only: everywhere else votes are methods beside each other.
    Of several keys, the one along which most points lie in one series.
    """
    rows = [r for r in main_rows(results) if r["metric"] == w.primary(results)]
    keys = [k for k in dict.fromkeys(k for r in rows for k in r["variant"]) if k != "voting"]
    if results["name"].startswith("ablations/"):
        keys.append("voting")
    best, most = None, 1
    for key in keys:
        longest = max((len({repr(v) for v in vs}) for vs in _by_series(rows, key).values()), default=0)
        if longest > most:
            best, most = key, longest
    if best is None:
        return None
    values = _ordered([v for vs in _by_series(rows, best).values() for v in vs])
    pgr = w.pick(results["pgr"], dataset=w.main_dataset(results), metric=w.primary(results))
    return Sweep(best, values, _series(rows, best, values), _series(pgr, best, values))


def _by_series(rows: Sequence[Mapping], key: str) -> dict[tuple, list[Any]]:
    found: dict[tuple, list[Any]] = {}
    for row in rows:
        value = _told(row, key)
        if value is not None:
            found.setdefault(_identity(row, key), []).append(value)
    return found


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once, numbers in order, others as first met."""
    unique = list({repr(v): v for v in values}.values())
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in unique)
    return sorted(unique) if numbers else unique


def _series(rows: Sequence[Mapping], key: str, values: Sequence[Any]) -> list[Series]:
    where = {repr(v): k for k, v in enumerate(values)}
    found: dict[tuple, Series] = {}
    for row in rows:
        identity, value = _identity(row, key), _told(row, key)
        series = found.setdefault((*identity, value is None), Series(row["method"], ""))
        if value is None:
            series.constant = row
        else:
            series.points[where[repr(value)]] = row
    named = [{"method": i[0], "variant": dict(_plain(s, key))} for i, s in found.items()]
    for series, name in zip(found.values(), w.row_names(named), strict=True):
        series.name = "W2S student" if name == "student" else name[:1].upper() + name[1:]
    return list(found.values())


def _plain(series: Series, key: str) -> dict[str, Any]:
    row = series.constant or next(iter(series.points.values()))
    return {k: v for k, v in row["variant"].items() if k != key and k not in METHOD_KEYS}


def table(results: Results) -> Table | None:
    """The primary metric and PGR at each value of the swept key; methods that it does not decide last."""
    found, metric = sweep(results), w.primary(results)
    if found is None:
        return None
    head = HEADS.get(found.key, found.key)
    ratios = {s.name: s for s in found.pgr}
    lines, data = [], []
    for place, (value, tick) in enumerate([*zip(found.values, found.ticks, strict=True), (None, "any")]):
        for series in found.scores:
            row = series.constant if value is None else series.points.get(place)
            if row is None:
                continue
            ratio = ratios.get(series.name)
            pgr = ratio and (ratio.constant if value is None else ratio.points.get(place))
            lines.append(
                {head: tick, "Method": series.name, w.metric_head(metric): w.with_interval(row, metric)}
                | {"PGR": w.pgr_text(pgr) if pgr else "", "Seeds": str(len(row["seeds"]))}
            )
            data.append(_numbers(found.key, value, series, row, pgr))
    shown = pd.DataFrame(lines)
    return Table("ablation", f"Ablation of {found.key}", caption(results), shown, pd.DataFrame(data))


def _numbers(key: str, value: Any, series: Series, row: Mapping, pgr: Mapping | None) -> dict[str, Any]:
    ends = row["ci95"] or (None, None)
    ratio = (pgr or {}).get("ci95") or (None, None)
    return {
        key: value,
        "method": row["method"],
        "series": series.name,
        "metric": row["metric"],
        "mean": row["mean"],
        "ci95_low": ends[0],
        "ci95_high": ends[1],
        "pgr": (pgr or {}).get("mean"),
        "pgr_ci95_low": ratio[0],
        "pgr_ci95_high": ratio[1],
        "seeds": len(row["seeds"]),
    }


def caption(results: Results) -> str:
    """What is swept, and how to read it."""
    found, metric = sweep(results), w.primary(results)
    what = HEADS.get(found.key, found.key)
    direction = ", lower is better," if w.lower_is_better(metric) else ""
    return (
        f"{capital(w.spoken(metric))}{direction} and performance gap recovered against {found.key} ({what.lower()}), values "
        f"at equal distances, with 95 % intervals. A method that {found.key} does not decide is one horizontal line with "
        f"its band. {capital(sample(main_rows(results), results))}.{mark(results)}"
    )


def plot(results: Results) -> Figure | None:
    """The metric above, PGR below, against the swept value."""
    found, metric = sweep(results), w.primary(results)
    if found is None:
        return None
    rows = 2 if found.pgr else 1
    fig, axes = figure(7.2, 0.6 + 2.6 * rows, rows=rows, sharex=True, height_ratios=[1.3, 1][:rows])
    scale = 100 if metric in w.PERCENT else 1
    draw(axes[0, 0], found.scores, found, scale)
    axes[0, 0].set_ylabel(axis_label(metric).replace(", lower", ",\nlower"))
    if found.pgr:
        ax = axes[1, 0]
        ends = draw(ax, found.pgr, found, 1)
        for y, name in ((0, "weak"), (1, "ceiling")):
            ax.axhline(y, color="#555555", lw=1, ls=(0, (4, 3)), zorder=1)
            ax.annotate(name, (1.0, y), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
                        va="center", fontsize=8, color="#555555")  # fmt: skip
        ax.set_ylim(max(-2.0, min([-0.1, *ends]) - 0.05), min(3.0, max([1.1, *ends]) + 0.05))
        ax.set_ylabel("Performance gap\nrecovered (no unit)")
    axes[-1, 0].set_xticks(range(len(found.values)), [wrapped(t) for t in found.ticks])
    axes[-1, 0].set_xlim(-0.5, len(found.values) - 0.5)
    axes[-1, 0].set_xlabel(HEADS.get(found.key, found.key))
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    known = [handles[s.name] for s in found.scores if s.name in handles]
    fig.legend(handles=known, loc="outside upper left", ncols=3, fontsize=8)
    lacking = any(r["mean"] is not None and not r["ci95"] for s in found.pgr for r in s.points.values())
    foot(fig, results, sample(main_rows(results), results) + ("; hollow: no finite interval" if lacking else ""))
    return fig


def draw(ax: Axes, drawn: Sequence[Series], found: Sweep, scale: float) -> list[float]:
    """Series as points with intervals, side by side at each value; constants as a line with its band. Returns the ends."""
    ends: list[float] = []
    moving = [s for s in drawn if s.points]
    ink = {s.name: colour(s.method, k) for k, s in enumerate(found.scores)}
    for series in drawn:
        if series.constant is not None and series.constant["mean"] is not None:
            ax.axhline(scale * series.constant["mean"], color=ink[series.name], lw=1.6, label=series.name, zorder=1.5)
            if series.constant["ci95"] and series.constant["ci95"][0] is not None:
                low, high = (scale * v for v in series.constant["ci95"])
                ax.axhspan(low, high, color=ink[series.name], alpha=0.12, lw=0)
                ends += [low, high]
    for k, series in enumerate(moving):
        shift = (k - (len(moving) - 1) / 2) * min(0.12, 0.6 / len(moving))
        ends += _points(ax, series, shift, scale, ink[series.name])
    ax.grid(axis="y")
    return ends


def _points(ax: Axes, series: Series, shift: float, scale: float, ink: str) -> list[float]:
    ends: list[float] = []
    places = [p for p in sorted(series.points) if series.points[p]["mean"] is not None]
    means = [scale * series.points[p]["mean"] for p in places]
    ax.plot([p + shift for p in places], means, color=ink, lw=1.3, alpha=0.8, label=series.name)
    for place, mean in zip(places, means, strict=True):
        ci = series.points[place]["ci95"]
        bounded = bool(ci) and ci[0] is not None
        ax.plot(
            place + shift,
            mean,
            "o",
            ms=7.5,
            color=ink,
            mec="white" if bounded else ink,
            mfc=ink if bounded else "white",
        )
        ends.append(mean)
        if bounded:
            ax.plot([place + shift] * 2, [scale * v for v in ci], color=ink, lw=2, solid_capstyle="butt")
            ends += [scale * v for v in ci]
    return ends
