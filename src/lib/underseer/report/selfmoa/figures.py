"""Figures of the stages of the loop: safety, helpfulness, refusals, categories, and every method beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from underseer.report import wording as w
from underseer.report.canvas import axis_label, colour, figure, foot, halo, plot_intervals, value_labels, wrapped
from underseer.report.names import iteration
from underseer.report.selfmoa import stages
from underseer.report.selfmoa.stages import Line, Results
from underseer.report.tabulate import capital

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = tuple[str | None, str, str]
"""Data set, metric, and the panel's title."""

MARKERS = "osD^vPX*"


def plot_safety(results: Results) -> Figure | None:
    """Figure 2 of the paper: the safety score on attack sets per stage."""
    return _stages(results, _of(results, "attack", "safety_score"))


def plot_helpfulness_attack(results: Results) -> Figure | None:
    """Figure 3 of the paper: helpfulness on attack sets per stage."""
    return _stages(results, _of(results, "attack", "helpfulness"))


def plot_helpfulness_safe(results: Results) -> Figure | None:
    """Figure 4 of the paper: helpfulness on safe sets per stage; borderline sets beside them."""
    return _stages(results, _of(results, "safe", "helpfulness") + _of(results, "borderline", "helpfulness"))


def plot_refusal(results: Results) -> Figure | None:
    """Refusals per stage: of attacks, and of prompts that should be answered."""
    found = _of(results, "attack", "refusal_rate")[:1]
    found += _of(results, "borderline", "over_refusal") + _of(results, "safe", "over_refusal")
    return _stages(results, found, label="Refused answers (%)")


def _of(results: Results, role: str, metric: str) -> list[Panel]:
    """A panel for each data set of a role, the mean over attack sets first."""
    datasets = stages.of_role(results, role)
    if role == "attack" and w.main_dataset(results) not in datasets:
        datasets = [w.main_dataset(results), *datasets]
    return [(d, metric, capital(w.dataset_name(d)) if d else "") for d in datasets]


def _stages(results: Results, panels: Sequence[Panel], label: str | None = None) -> Figure | None:
    """One panel a data set: a line through the stages with intervals, for each variant of the loop."""
    drawn = [(p, stages.lines(results, stages.rows_of(results, p[0], p[1]))) for p in panels]
    drawn = [(p, lines) for p, lines in drawn if lines]
    if not drawn:
        return None
    columns = min(len(drawn), 3)
    several = max(len(lines) for _, lines in drawn) > 1
    rows = -(-len(drawn) // columns)
    fig, axes = figure(
        max(4.6, 3.3 * columns + 0.5), 2.75 * rows + (0.9 if several else 0.5), columns, rows, sharey=True
    )
    for ax in axes.ravel()[len(drawn) :]:
        ax.set_visible(False)
    for ax, ((_, metric, title), lines) in zip(axes.ravel(), drawn, strict=False):
        draw_lines(ax, lines, metric, labelled=not several)
        ax.set_title(wrapped(title) if columns > 1 else title)
    for row in axes:
        row[0].set_ylabel(label or axis_label(drawn[0][0][1]).replace(", lower", ",\nlower"))
    if several:
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    shown = [r for _, lines in drawn for line in lines for r in line.rows.values()]
    told = "" if several else _hollow(shown)
    foot(fig, results, w.sample_text(shown, results["interval"]["covers"]) + told)
    return fig


def _hollow(rows: Sequence[Mapping]) -> str:
    return "; hollow: single seeds" if any(len(r["seeds"]) > 1 for r in rows) else ""


def inks(n: int) -> list[Any]:
    """Colours of n lines whose order means something: from dark to light, told apart with any colour vision."""
    from matplotlib import colormaps

    return [colour("selfmoa", 0)] if n == 1 else [colormaps["viridis"](0.88 * k / (n - 1)) for k in range(n)]


def draw_lines(
    ax: Axes, lines: Sequence[Line], metric: str, *, labelled: bool, colours: Sequence[Any] | None = None
) -> None:
    """Lines through the stages: means with 95 % intervals, single seeds hollow; numbers where there is one line. What all
    lines share is drawn once, in grey."""
    common = _common(lines)
    scale = 100 if metric in w.PERCENT else 1
    where = {m: k for k, m in enumerate(sorted({m for line in lines for m in line.rows}, key=stages.order))}
    width = min(0.12, 0.6 / len(lines))
    for k, (line, ink) in enumerate(zip(lines, colours or inks(len(lines)), strict=True)):
        shift = (k - (len(lines) - 1) / 2) * width
        places = [where[m] + shift * (m not in common) for m in line.rows]
        means = [scale * r["mean"] for r in line.rows.values()]
        ax.plot(places, means, color=ink, lw=1.4, marker=MARKERS[k % len(MARKERS)], ms=6.5, mec="white", mew=0.7,
                label=line.name or "Self-MOA", zorder=3)  # fmt: skip
        for x, (method, row) in zip(places, line.rows.items(), strict=True):
            if method in common and k:
                continue
            _spread(ax, x, row, scale, "#444444" if method in common else ink, seeds=labelled)
            if method in common:
                ax.plot(x, scale * row["mean"], "o", color="#444444", ms=6.5, mec="white", mew=0.7, zorder=4)
            if labelled:
                top = scale * ((row["ci95"] or [None])[-1] or row["mean"])
                ax.annotate(w.number(row["mean"], metric, None if scale == 100 else 2), (x, top), xytext=(0, 3),
                            textcoords="offset points", ha="center", fontsize=7.5, color="#333333", zorder=4,
                            path_effects=halo())  # fmt: skip
    if len(common) > 1:
        means = [scale * lines[0].rows[m]["mean"] for m in common]
        ax.plot([where[m] for m in common], means, color="#444444", lw=1.6, zorder=3.5)
    ax.set_xticks(range(len(where)), [stages.stage_name(m) for m in where])
    ax.set_xlim(-0.5, len(where) - 0.5)
    ax.set_ylim(-0.03 * scale, 1.1 * scale)
    ax.set_yticks([scale * v for v in (0, 0.25, 0.5, 0.75, 1)])
    ax.grid(axis="y")


def _common(lines: Sequence[Line]) -> list[str]:
    """The first stages that several lines share."""
    found: list[str] = []
    for method, row in lines[0].rows.items():
        if len(lines) < 2 or any(line.rows.get(method) != row for line in lines):
            break
        found.append(method)
    return found


def _spread(ax: Axes, x: float, row: Mapping[str, Any], scale: float, ink: Any, *, seeds: bool) -> None:
    """The interval of a point, and its seeds beside it."""
    if row["ci95"] and row["ci95"][0] is not None:
        ax.plot([x, x], [scale * v for v in row["ci95"]], color=ink, lw=2, solid_capstyle="butt")
    values = [scale * v for v in row["values"] if v is not None]
    if seeds and len(values) > 1:
        ax.plot([x + 0.17] * len(values), values, "o", ms=3.2, mfc="white", mec=ink, mew=0.8)


def plot_scores(results: Results) -> Figure | None:
    """Every method: unsafe rate on attacks, helpfulness on safe prompts, over-refusal of borderline ones."""
    wanted = [(role, stages.main_of(results, role), m) for role, m in SCORED]
    found = [(d, m, stages.rows_of(results, d, m)) for _, d, m in wanted]
    found = [(d, m, _few(results, rows)) for d, m, rows in found if rows]
    if not found:
        return None
    keys = {(r["method"], repr(r["variant"])): r for _, _, rows in found for r in rows}
    names = dict(zip(keys, w.row_names(list(keys.values())), strict=True))
    fig, axes = figure(9.6, 0.34 * len(keys) + 1.25, len(found), sharey=True)
    for ax, (dataset, metric, rows) in zip(axes[0], found, strict=True):
        by_key = {(r["method"], repr(r["variant"])): r for r in rows}
        lines = [by_key.get(key, {**first, **NOTHING}) for key, first in keys.items()]
        scale = 100 if metric in w.PERCENT else 1
        plot_intervals(ax, lines, list(names.values()), scale=scale)
        value_labels(ax, lines, lambda r, m=metric: w.number(r["mean"], m))
        ax.set_title(capital(w.dataset_name(dataset)))
        ax.set_xlabel(axis_label(metric).replace(", lower", ",\nlower"))
        ax.set_xlim(-0.03 * scale, 1.03 * scale)
    shown = [r for _, _, rows in found for r in rows]
    foot(fig, results, w.sample_text(shown, results["interval"]["covers"]) + _hollow(shown))
    return fig


SCORED = (("attack", "unsafe_rate"), ("safe", "helpfulness"), ("borderline", "over_refusal"))
"""What stands for safety, helpfulness and over-refusal: role of the set, and metric."""
NOTHING: dict[str, Any] = {"mean": None, "ci95": None, "values": []}


def _few(results: Results, rows: Sequence[Mapping]) -> list[Mapping]:
    """Where there are several variants of the loop, of its iterates only the last ones."""
    lines = stages.lines(results, rows)
    if len(lines) < 2:
        return list(rows)
    last = {line.last for line in lines}
    return [r for r in rows if not iteration(r["method"]) or r["method"] in last]


def plot_categories(results: Results) -> Figure | None:
    """Figure 5 of the paper: unsafe rate by category, before and after."""
    rows = [r for r in results["categories"] if r["metric"] == "unsafe_rate"]
    names = sorted({r["category"] for r in rows})
    lines = {c: _first(results, [r for r in rows if r["category"] == c]) for c in names}
    shown = {c: line for c, line in lines.items() if line}
    if not shown:
        return None
    order = sorted(shown, key=lambda c: -(shown[c].rows.get("reset") or next(iter(shown[c].rows.values())))["mean"])
    fig, axes = figure(7.4, 0.46 * len(order) + 1.5)
    ax = axes[0, 0]
    for k, category in enumerate(order):
        rows_of = {m: shown[category].rows.get(m) for m in ("aligned", "reset", shown[category].last)}
        for place, (method, row) in enumerate((m, r) for m, r in rows_of.items() if r):
            _category(ax, k + 0.2 * (place - 1), method, row, first=k == 0, marker=MARKERS[place])
    sizes = [max(r["n_items"] for r in shown[c].rows.values()) for c in order]
    ax.set_yticks(range(len(order)), [f"{c.replace('_', ' ')} ({n:,})" for c, n in zip(order, sizes, strict=True)])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(-2, 102)
    ax.set_xlabel("Unsafe rate (%), lower is better")
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    covers = results["interval"]["covers"]
    seeds = w.sample_text(rows).split(",")[0]
    foot(
        fig,
        results,
        f"{capital(w.dataset_name(rows[0]['dataset']))}, prompts of all seeds in brackets; {seeds}; 95 % intervals over {covers}",
    )
    return fig


def _first(results: Results, rows: Sequence[Mapping]) -> Line | None:
    return next(iter(stages.lines(results, [r for r in rows if r["mean"] is not None])), None)


def _category(ax: Axes, y: float, method: str, row: Mapping, *, first: bool, marker: str) -> None:
    ink = colour(method, 0)
    if row["ci95"] and row["ci95"][0] is not None:
        ax.plot([100 * v for v in row["ci95"]], [y, y], color=ink, lw=2, solid_capstyle="butt")
    ax.plot(100 * row["mean"], y, marker, ms=6.5, color=ink, mec="white", mew=0.7, zorder=3,
            label=w.method_name(method) if first else "_nolegend_")  # fmt: skip
