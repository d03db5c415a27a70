"""Figures of a report: each takes a tidy table (``tidy``) and returns a matplotlib figure, or None where the table is empty."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from underseer.report import wording as w
from underseer.report.drawing import canvas, colour, finish, grid, reference, shades, ticks, trend
from underseer.report.marks import ENDLESS, limited, seeds_beyond, spread


def axis_label(metric: str) -> str:
    """A metric's name with its unit, or with its range, and direction where lower is better."""
    name = w.METRICS.get(metric, metric)
    unit = (" (0 to 1)" if name.endswith(" score") else " (score, 0 to 1)") if metric in w.SCORES else ""
    unit = " (%)" if metric in w.PERCENT else unit
    return name + unit + (", lower is better" if w.lower_is_better(metric) else "")


def broken(label: str) -> str:
    """An axis label on two lines, where it says that lower is better."""
    return label.replace(", lower", ",\nlower")


def intervals(rows: pd.DataFrame, label: str) -> Figure | None:
    """Each method's mean with its interval and its seeds, the numbers at the right; a panel for each data set."""
    if not len(rows):
        return None
    parts = dict(list(rows.groupby("dataset", sort=False)))
    tall = max(map(len, parts.values()))
    fig, axes = canvas(7.2, len(parts) * (0.42 * tall + 0.6) + 0.5, rows=len(parts), sharex=True)
    for ax, (name, part) in zip(axes[:, 0], parts.items(), strict=True):
        forest(ax, part)
        if len(parts) > 1:
            ax.set_title(name)
    axes[-1, 0].set_xlabel(label)
    return finish(fig, rows)


def forest(ax: Any, rows: pd.DataFrame, limits: tuple[float, float] = ENDLESS) -> None:
    """One line a row, the first on top: name (with its number of seeds where they differ), interval, seeds, and the number as text,
    with how many seeds lie beyond the limits."""
    places = range(len(rows))
    spread(ax, rows, places, shades(rows["method"]), limits=limits)
    counts = [len(v) if pd.notna(m) else 0 for v, m in zip(rows["values"], rows["mean"], strict=True)]
    several = len(set(filter(None, counts))) > 1
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        if pd.isna(row["mean"]):
            ax.text(0.02, place, "undefined", va="center", color="#666666", transform=ax.get_yaxis_transform())
        text = "\n".join(filter(None, (row["text"], seeds_beyond(row, limits))))
        at = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
        ax.annotate(text, (1.03, place), va="center", fontsize=8, color="#333333", **at)
    names = [f"{n} ({w.plural(k, 'seed')})" if several and k else n for n, k in zip(rows["name"], counts, strict=True)]
    ax.set_yticks(list(places), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def gaps(rows: pd.DataFrame, metric: str) -> Figure | None:
    """Performance gap recovered between weak supervisor (0) and ceiling (1); an interval that goes on beyond the axis ends in an
    arrow."""
    if not len(rows):
        return None
    fig, axes = canvas(7.2, 0.42 * len(rows) + 1.3)
    ax = axes[0, 0]
    limits = limited(rows)
    forest(ax, rows, limits)
    # at one column's width there is no room between
    for x, name, side in ((0, "weak", "right"), (1, "ceiling", "left")):
        reference(ax, x, name, ha=side)
    ax.set_xlim(*limits)
    ax.set_xlabel(f"Performance gap recovered, on {w.spoken(metric)} (0 = weak supervisor, 1 = ceiling; no unit)")
    return finish(fig, rows, gaps=rows)


def reliability(bins: pd.DataFrame, xlabel: str, ylabel: str) -> Figure | None:
    """Reliability diagrams, a panel for each method or judge: what is said against what holds, in bins."""
    if not len(bins):
        return None
    parts = dict(list(bins.groupby("panel", sort=False)))
    fig, axes = grid(len(parts), 2.1, 2.3, sharex=True, sharey=True)
    for ax, (panel, part) in zip(axes.ravel(), parts.items(), strict=False):
        ink = colour(part["method"].iloc[0], 0)
        ax.plot([0, 1], [0, 1], color="#999999", lw=1, ls=(0, (4, 3)))
        for _, line in part.groupby("line" if "line" in part else "panel"):
            ax.plot(line["x"], line["y"], color=ink, lw=1.4)
        sns.scatterplot(part, x="x", y="y", size="n", sizes=(10, 95), color=ink, legend=False, zorder=3, ax=ax)
        ticks = [0, 0.5, 1]
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal", xticks=ticks, yticks=ticks, xlabel="", ylabel="")
        ax.set_title(textwrap.fill(panel, 22), fontsize=8.5)
        ax.grid(True)
        if "note" in part:
            ax.text(0.04, 0.96, part["note"].iloc[0], transform=ax.transAxes, va="top", fontsize=8, color="#333333")
    for row in axes:
        row[0].set_ylabel(ylabel)
    axes[-1, (axes.shape[1] - 1) // 2].set_xlabel(xlabel)
    return finish(fig, bins)


def confusion(cells: pd.DataFrame) -> Figure | None:
    """Confusion matrices, a panel a method: percent of the true class, and counts."""
    if not len(cells):
        return None
    parts = dict(list(cells.groupby("panel", sort=False)))
    fig, axes = grid(len(parts), 1.95, 2.2, sharey=True)
    classes = list(cells["truth"].unique())
    for ax, (panel, part) in zip(axes.ravel(), parts.items(), strict=False):
        part = part.assign(shown=[f"{s:.1f} %\n{n:,}" for s, n in zip(part["share"], part["count"], strict=True)])
        wide = {
            c: part.pivot(index="truth", columns="predicted", values=c).loc[classes, classes]
            for c in ("share", "shown")
        }
        text = {"fontsize": 8}
        sns.heatmap(wide["share"], annot=wide["shown"], fmt="", cmap="Blues", vmin=0, vmax=115, cbar=False, square=True,
                    annot_kws=text, ax=ax)  # fmt: skip
        ax.set(xlabel="", ylabel="")
        ax.tick_params(length=0)
        ax.set_title(textwrap.fill(panel, 20), fontsize=8.5)
    for row in axes:
        row[0].set_ylabel("Truth")
    axes[-1, (axes.shape[1] - 1) // 2].set_xlabel("Predicted")
    return finish(fig, cells)


def curves(rows: pd.DataFrame, units: str = "example") -> Figure | None:
    """Learning curves: mean over seeds and a band from the lowest to the highest, a panel for each quantity."""
    if not len(rows):
        return None
    quantities = list(rows["metric"].unique())
    fig, axes = canvas(3.6 * len(quantities) + 0.6, 3.1, len(quantities))
    methods = rows.drop_duplicates("name")
    palette = dict(zip(methods["name"], [colour(m, k) for k, m in enumerate(methods["method"])], strict=True))
    for ax, quantity in zip(axes[0], quantities, strict=True):
        part = rows[rows["metric"] == quantity]
        sns.lineplot(part, x="step", y="value", hue="name", palette=palette, errorbar=("pi", 100), lw=1.6, ax=ax)
        ax.set(xlabel="Training step (optimiser updates)", ylabel=_quantity(quantity, units))
        ax.get_legend().remove()
        ax.grid(True)
    return finish(fig, rows, legend=axes[0, 0])


def _quantity(name: str, each: str) -> str:
    words = name.replace("eval_", "validation ").replace("_", " ")
    unit = f" (nats per {each})" if words.endswith("loss") else " (share)" if "accuracy" in words else ""
    return words[:1].upper() + words[1:] + unit


def by_bucket(rows: pd.DataFrame) -> Figure | None:
    """Mean toxicity by the toxicity of the prompt, methods side by side."""
    if not len(rows):
        return None
    fig, axes = canvas(7.2, 3.7)
    ax = axes[0, 0]
    methods = rows.drop_duplicates("line")["method"]
    trend(ax, rows, shades(methods), joined=False, width=0.8)
    ticks(ax, rows)
    ax.set(xlabel="Toxicity of the prompt (score, 0 to 1)", ylabel=broken(axis_label("toxicity")))
    ax.set_ylim(bottom=0)
    return finish(fig, rows, legend=ax)


def against(across: Sequence[tuple[pd.DataFrame, str]], up: pd.DataFrame, label: str) -> Figure | None:
    """One score against others, a point a method with both intervals; across: each panel's table and label."""
    across = [(rows, name) for rows, name in across if rows["mean"].notna().any()] if len(up) else []
    if not across:
        return None
    fig, axes = canvas(7.2, 3.7, len(across), sharey=True)
    for ax, (rows, name) in zip(axes[0], across, strict=True):
        both = up.merge(rows, on=["method", "variant"], suffixes=("", "_across")).dropna(subset=["mean", "mean_across"])
        for ink, row in zip(shades(both["method"]), both.to_dict("records"), strict=True):
            cross(ax, row, ink)
        ax.set_xlabel(name)
        ax.grid(True)
    axes[0, 0].set_ylabel(label)
    return finish(fig, up, legend=axes[0, 0])


def cross(ax: Any, row: dict[str, Any], ink: Any, marker: str = "o") -> None:
    """A point with both its intervals, and small hollow points for its seeds. row: of ``tidy``, with columns ``_across``."""
    x, y = row["mean_across"], row["mean"]
    ax.plot([row["low_across"], row["high_across"]], [y, y], color=ink, lw=1.7, alpha=0.8)
    ax.plot([x, x], [row["low"], row["high"]], color=ink, lw=1.7, alpha=0.8)
    if len(row["values"]) > 1 and len(row["values"]) == len(row["values_across"]):
        ax.plot(row["values_across"], row["values"], "o", ms=3.4, mfc="white", mec=ink, mew=0.8)
    ax.plot(x, y, marker, ms=7.5, color=ink, mec="white", mew=0.8, zorder=3, label=row["name"])


def distribution(rows: pd.DataFrame) -> Figure | None:
    """Share of prompts whose mean toxicity is at least x, one curve per method."""
    if not len(rows):
        return None
    fig, axes = canvas(7.2, 3.6)
    ax = axes[0, 0]
    first = rows.drop_duplicates("name")
    palette = dict(zip(first["name"], shades(first["method"]), strict=True))
    sns.lineplot(rows, x="x", y="share", hue="name", palette=palette, lw=1.7, errorbar=None, ax=ax)
    ax.get_legend().remove()
    reference(ax, 0.5, "toxic")
    ax.set(xlim=(0, 1), ylim=(0, 101), xlabel="x: mean toxicity of a prompt's sampled continuations (score, 0 to 1)")
    ax.set_ylabel("Prompts at x or above (%),\nlower is better")
    ax.grid(True)
    return finish(fig, rows, legend=ax)


def figure1(rows: pd.DataFrame) -> Figure | None:
    """Figure 1 of the W2S paper (legal reasoning): three scores of each method, the published ones hatched beside ours."""
    if not len(rows):
        return None
    fig, axes = canvas(7.2, 3.9)
    ax = axes[0, 0]
    ours = rows.assign(source="ours")
    theirs = rows.dropna(subset="published").assign(source="published")
    slots = pd.concat([ours, theirs]).drop_duplicates(["method", "source"])
    slots = sorted(
        slots[["method", "source"]].itertuples(index=False),
        key=lambda s: (list(rows["method"].unique()).index(s[0]), s[1]),
    )
    width = 0.84 / len(slots)
    metrics = list(rows["metric"].unique())
    for k, (method, source) in enumerate(slots):
        part = (ours if source == "ours" else theirs).query("method == @method")
        at = [metrics.index(m) + (k - (len(slots) - 1) / 2) * width for m in part["metric"]]
        heights, ink = part["mean" if source == "ours" else "published"], colour(method, 0)
        look = {"color": ink} if source == "ours" else {"color": "white", "edgecolor": ink, "hatch": "////", "lw": 0.8}
        ax.bar(at, heights, 0.92 * width, **look)
        if source == "ours":
            spread(ax, part, at, ["#222222"] * len(at), upright=True, marker="", aside=0.28 * width)
        for x, value in zip(at, heights, strict=True):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
            ax.text(x, 3, f"{value:.1f}", rotation=90, ha="center", va="bottom", fontsize=7, color="#222222", bbox=box)
    ax.set_xticks(range(len(metrics)), [w.METRICS[m] for m in metrics])
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel="Score on the test split (%)", ylim=(0, 100))
    ax.grid(axis="y")
    handles = [Patch(color=colour(m, 0), label=w.method_name(m)) for m in rows["method"].unique()]
    hatched = Patch(facecolor="white", edgecolor="#555555", hatch="////", label="Published value")
    return finish(fig, rows, handles=[*handles, hatched] if len(theirs) else handles)


def sweep(panels: Sequence[tuple[pd.DataFrame, str]], xlabel: str) -> Figure | None:
    """Scores (and PGR) against the values of one swept parameter, a panel each; what it does not decide is a line with its band.

    panels: tables of ``ablation.sweep`` (line, place, tick, and ``gap`` where it is a PGR), each with its axis label.
    """
    if not panels:
        return None
    fig, axes = canvas(7.4, 0.9 + 2.3 * len(panels), rows=len(panels), sharex=True)
    methods = panels[0][0].drop_duplicates("line")
    ink = dict(zip(methods["line"], [colour(m, k) for k, m in enumerate(methods["method"])], strict=True))
    last = panels[-1][0]
    for ax, (rows, label) in zip(axes[:, 0], panels, strict=True):
        gap = bool(rows["gap"].iloc[0])
        limits = limited(rows) if gap else ENDLESS
        colours = [
            ink.get(name) or colour(m, 0) for name, m in rows.drop_duplicates("line")[["line", "method"]].to_numpy()
        ]
        trend(ax, rows, colours, limits=limits)
        ax.set_ylabel(broken(label))
        if gap:
            ax.set_ylim(*limits)
            for y, name in ((0, "weak"), (1, "ceiling")):
                reference(ax, y, name, upright=False)
    first = panels[0][0]
    ticks(axes[-1, 0], first.assign(tick=[textwrap.fill(str(t), 20) for t in first["tick"]]))
    axes[-1, 0].set_xlabel(xlabel)
    return finish(fig, panels[0][0], legend=axes[0, 0], gaps=last if last["gap"].iloc[0] else None)
