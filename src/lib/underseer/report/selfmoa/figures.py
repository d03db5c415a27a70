"""Figures of the loop: each takes a tidy table (``selfmoa.tidy``) and returns a figure, or None where the table is empty."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from underseer.report import wording as w
from underseer.report.drawing import MARKERS, canvas, colour, finish, grid, inks, ticks, trend
from underseer.report.figures import axis_label, broken, cross, forest
from underseer.report.marks import spread
from underseer.report.names import iteration


def by_stage(rows: pd.DataFrame, label: str | None = None, colours: Sequence[Any] | None = None) -> Figure | None:
    """A score through the stages of the loop, a panel a data set, a line a variant of the loop."""
    if not len(rows):
        return None
    panels = dict(list(rows.groupby("panel", sort=False)))
    several = rows["line"].nunique() > 1
    fig, axes = grid(len(panels), 3.3, 2.9 if several else 2.75, most=3, sharey=True)
    for ax, (panel, part) in zip(axes.ravel(), panels.items(), strict=False):
        stages(ax, part, colours)
        ax.set_title(textwrap.fill(panel, 30))
    for row in axes:
        row[0].set_ylabel(label or broken(axis_label(rows["metric"].iloc[0])))
        for ax in row[1:]:
            ax.set_ylabel("")
    return finish(fig, rows, legend=axes[0, 0] if several else None)


def stages(ax: Axes, rows: pd.DataFrame, colours: Sequence[Any] | None = None) -> None:
    """Lines through the stages of the loop on one data set, with the numbers where there is one line."""
    lines = rows["line"].nunique()
    trend(ax, rows, colours or inks(lines), numbers=lines == 1)
    ticks(ax, rows)
    top = _top(rows)
    ax.set_ylabel(broken(axis_label(rows["metric"].dropna().iloc[0])))
    ax.set_ylim(-0.03 * top, 1.12 * top)
    ax.set_yticks([top * v for v in (0, 0.25, 0.5, 0.75, 1)])


def _top(rows: pd.DataFrame) -> int:
    """The end of the axis: 100 for rates in percent, 1 for scores."""
    return 100 if rows["metric"].dropna().iloc[0] in w.PERCENT else 1


def judge_gap(rows: pd.DataFrame, label: str) -> Figure | None:
    """Unsafe rate through the stages by the training and by the reporting judge."""
    return by_stage(rows, label, [colour("aligned", 0), colour("reset", 0)])


def trusted(rows: pd.DataFrame) -> Figure | None:
    """Sensitivity and specificity of the training judge through the stages of the loop."""
    if not len(rows):
        return None
    fig, axes = canvas(7.4, 3.4, 2, sharey=True)
    trusted_panels(axes[0], rows)
    return finish(fig, rows, legend=axes[0, 0] if rows["line"].nunique() > 1 else None)


def trusted_panels(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
    """The two panels of ``trusted``."""
    titles = {"sensitivity": "Unsafe answers that it finds", "specificity": "Safe answers that it leaves alone"}
    for ax, (panel, title) in zip(axes, titles.items(), strict=True):
        part = rows[rows["panel"] == panel]
        trend(ax, part, inks(part["line"].nunique()))
        ticks(ax, part)
        ax.set(title=title, ylim=(-3, 103))
    axes[0].set_ylabel("Share, by the reporting judge (%)")


def methods(rows: pd.DataFrame) -> Figure | None:
    """Every method, a panel for safety, helpfulness and over-refusal."""
    if not len(rows):
        return None
    keys = rows.drop_duplicates(["method", "variant"])
    panels = dict(list(rows.groupby("panel", sort=False)))
    fig, axes = canvas(9.6, 0.36 * len(keys) + 1.35, len(panels), sharey=True)
    for ax, (panel, part) in zip(axes[0], panels.items(), strict=True):
        part = part.drop(columns="name").merge(keys[["method", "variant", "name"]], "right", on=["method", "variant"])
        metric = part["metric"].dropna().iloc[0]
        short = part["text"].fillna("").str.partition(" [")[0]
        forest(ax, part.assign(text=short, values=[v if isinstance(v, list) else [] for v in part["values"]]))
        top = _top(part)
        ax.set(title=panel, xlabel=broken(axis_label(metric)), xlim=(-0.03 * top, 1.03 * top))
    return finish(fig, rows)


def categories(rows: pd.DataFrame) -> Figure | None:
    """Unsafe rate by harm category, before and after the loop."""
    if not len(rows):
        return None
    fig, axes = canvas(7.4, 0.56 * rows["place"].nunique() + 1.5)
    ax = axes[0, 0]
    parts = [(name, colour(part["method"].iloc[0], 0), part) for name, part in rows.groupby("name", sort=False)]
    below_each_other(ax, parts)
    downwards(ax, rows)
    ax.set_xlim(-2, 102)
    ax.set_xlabel("Unsafe rate (%), lower is better")
    return finish(fig, rows, legend=ax)


def below_each_other(ax: Axes, parts: Sequence[tuple[str, Any, pd.DataFrame]]) -> None:
    """At each place the rows of up to three parts below each other, each part with its name, colour and mark."""
    for k, (name, ink, part) in enumerate(parts):
        spread(ax, part, part["place"] + 0.24 * (k - 1), [ink] * len(part), marker=MARKERS[k], aside=0.0)
        ax.plot([], [], MARKERS[k], color=ink, mec="white", ms=7, label=name)


def downwards(ax: Axes, rows: pd.DataFrame) -> None:
    """Names on the axis that runs down the page, the first on top."""
    first = rows.drop_duplicates("place")
    ax.set_yticks(first["place"], first["tick"])
    ax.set_ylim(first["place"].max() + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def attack_success(by_iteration: pd.DataFrame, strategies: pd.DataFrame) -> Figure | None:
    """Attack success by iteration (left), and by strategy over all iterations and in each (right)."""
    if not len(by_iteration):
        return None
    fig, axes = canvas(9.4, 4.1, 2, width_ratios=[1, 1.25])
    left, right = axes[0]
    lines = by_iteration["line"].nunique()
    trend(left, by_iteration, inks(lines))
    ticks(left, by_iteration)
    left.set(ylabel="Attack success (%)", xlabel="Iteration", ylim=(-2, 103))
    iterations = sorted(set(strategies["method"]) - {"all"}, key=lambda m: iteration(m) or 0)
    whole = strategies[strategies["method"] == "all"]
    for k, (method, ink) in enumerate(zip(iterations, inks(max(2, len(iterations))), strict=False)):
        part = strategies[(strategies["method"] == method) & strategies["mean"].notna()]
        marker = MARKERS[k % len(MARKERS)]
        right.plot(
            part["mean"],
            part["place"] + 0.3,
            marker,
            ms=4.6,
            mfc="white",
            mec=ink,
            mew=1.2,
            label=f"iteration {iteration(method)}",
        )
    spread(right, whole, whole["place"], ["#222222"] * len(whole), marker="d", aside=-0.26)
    right.plot([], [], "d", color="#222222", mec="white", ms=7, label="all iterations")
    downwards(right, whole)
    right.set(xlim=(-2, 103), xlabel="Attack success (%)")
    right.legend(loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=4, columnspacing=1.2, handletextpad=0.2)
    note = f"right: {by_iteration['line'].iloc[0]}" if lines > 1 else ""
    return finish(fig, by_iteration, legend=left if lines > 1 else None, note=note)


FATES = {
    "successes": ("succeeded", "#D55E00", ""),
    "resisted": ("resisted", "#009E73", "//"),
    "duplicates": ("duplicate", "#BBBBBB", ".."),
    "refused_by_attacker": ("no attack written", "#56B4E9", "xx"),
    "not_judged": ("not judged", "#FFFFFF", ""),
}
"""What becomes of a prompt: name, colour, hatch."""


def fates(rows: pd.DataFrame) -> Figure | None:
    """Prompts by outcome, stacked (left), and how much the successful ones repeat each other (right)."""
    if not len(rows):
        return None
    fig, axes = canvas(8.8, 3.5, 2, width_ratios=[1.4, 1])
    left, right = axes[0]
    bars = rows[rows["line"] == rows["line"].iloc[0]].set_index("iteration")
    base = pd.Series(0.0, index=bars.index)
    for key, (name, ink, hatch) in FATES.items():
        edge = "white" if name != "not judged" else "#555555"
        if bars[key].any():
            left.bar(
                bars.index, bars[key], 0.62, bottom=base, color=ink, hatch=hatch, label=name, edgecolor=edge, lw=0.7
            )
        base = base + bars[key]
    left.set(xlabel="Iteration", ylabel="Prompts of one seed (mean)", xticks=list(bars.index))
    left.grid(axis="y")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    sizes = rows.groupby("iteration")["n_successes"].sum()
    varied = rows.assign(
        mean=rows["self_bleu"].astype(float), low=float("nan"), high=float("nan"), place=rows["iteration"]
    )
    varied["tick"] = [f"{k}\nn = {sizes[k]:,}" for k in varied["iteration"]]
    lines = rows["line"].nunique()
    trend(right, varied, inks(lines))
    right.set(xlim=(varied["place"].min() - 0.5, varied["place"].max() + 0.5), ylim=(-0.03, 1.03), xlabel="Iteration")
    right.set_ylabel("Self-BLEU of the successes\n(0 to 1), lower is more varied")
    note = f"bars: {rows['line'].iloc[0]}" if lines > 1 else ""
    return finish(fig, varied, legend=right if lines > 1 else None, note=note)


def cards(rows: pd.DataFrame) -> Figure | None:
    """Sensitivity and specificity of every judge that has a card, seeds beside each other."""
    if not len(rows):
        return None
    fig, axes = canvas(8.2, 0.6 * rows["place"].nunique() + 1.5, 2, sharey=True)
    titles = {"sensitivity": "Sensitivity: positives found", "specificity": "Specificity: negatives left alone"}
    for ax, (panel, title) in zip(axes[0], titles.items(), strict=True):
        part = rows[rows["panel"] == panel]
        colours = [colour("human_modpo" if role == "training" else "aligned", 0) for role in part["role"]]
        spread(ax, part, part["at"], colours)
        ax.set(title=title, xlim=(-2, 102), xlabel="Share of labelled answers (%)")
        ax.grid(axis="x")
    downwards(axes[0, 0], rows.sort_values("place"))
    axes[0, 1].tick_params(axis="y", length=0)
    return finish(fig, rows)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one beats, by growing x: more of x and less of y is better."""
    kept = []
    for k, (x, y) in enumerate(points):
        if not any(u >= x and v <= y and (u > x or v < y) for u, v in points):
            kept.append(k)
    return sorted(kept, key=lambda k: points[k])


def pareto(rows: pd.DataFrame) -> Figure | None:
    """Helpfulness on safe prompts against unsafe rate on attacks, one point a weight, the front drawn."""
    if not len(rows):
        return None
    fig, axes = canvas(6.8, 4.9)
    ax = axes[0, 0]
    iterates = rows[rows["method"].map(iteration).notna()]
    at = list(zip(iterates["mean_across"], iterates["mean"], strict=True))
    best = [at[k] for k in front(at)]
    ax.plot(*zip(*best, strict=True), color="#555555", lw=1.1, ls=(0, (4, 3)), zorder=1, label="not beaten on both")
    colours = [*inks(len(iterates)), *(colour(m, 0) for m in rows["method"].iloc[len(iterates) :])]
    for k, (ink, row) in enumerate(zip(colours, rows.to_dict("records"), strict=True)):
        marker = MARKERS[k % 7] if k < len(iterates) else "*"
        cross(ax, {**row, "name": f"_{row['name']}"}, ink, marker)
        ax.plot([], [], marker, color=ink, mec="white", ms=8, label=row["label"])
    ax.set_xlabel(axis_label("helpfulness") + " on safe prompts, higher is better")
    ax.set_ylabel("Unsafe rate on attacks (%),\nlower is better")
    ax.grid(True)
    return finish(fig, rows, legend=ax)


def efficiency(rows: pd.DataFrame) -> Figure | None:
    """Preference pairs used (log axis) against unsafe rate on attacks."""
    if not len(rows):
        return None
    fig, axes = canvas(7.4, 4.4)
    ax = axes[0, 0]
    against_pairs(ax, rows)
    ax.set_ylim(-3, 103)
    ax.set(xlabel=PAIRS, ylabel="Unsafe rate on attacks (%),\nlower is better")
    return finish(fig, rows, legend=ax)


PAIRS = "Preference pairs used (log scale)"


def against_pairs(ax: Axes, rows: pd.DataFrame, step: float = 1.035) -> None:
    """A score against preference pairs, of ``tidy.efficiency``; points of one number stand apart by a factor ``step``."""
    drawn = rows[rows["pairs"].notna()].sort_values("pairs", kind="stable")
    names = [n for n in rows["line"].unique() if n in set(drawn["line"])]
    loops = [n for n in names if (drawn.loc[drawn["line"] == n, "kind"] == "loop").any()]
    shade = dict(zip(loops, inks(len(loops)) if loops else [], strict=True))
    taken: list[float] = []
    for k, name in enumerate(names):
        part = drawn[drawn["line"] == name]
        ink = shade.get(name, colour(part["method"].iloc[0], k))
        at = [_beside(p, taken, step) for p in part["pairs"]]
        style = {"loop": "-", "human": (0, (4, 2)), "other": ""}[part["kind"].iloc[0]]
        marker = MARKERS[k % len(MARKERS)]
        ax.plot(at, part["mean"], ls=style or "none", color=ink, lw=1.5)
        ax.plot([], [], ls=style or "none", color=ink, lw=1.5, marker=marker, ms=7, mec="white", label=name)
        spread(ax, part, at, [ink] * len(part), upright=True, marker=marker, aside=[0.03 * x for x in at])
    for row in rows[rows["pairs"].isna()].itertuples():
        ax.axhline(row.mean, color=colour(row.method, 0), lw=1.1, ls=":", label=row.line, zorder=1)
    _log_axis(ax, list(drawn["pairs"]))
    ax.grid(True, which="major")


def _beside(pairs: float, taken: list[float], step: float) -> float:
    """A place on the log axis where no other point stands, beside the true one."""
    options = (pairs * step ** (sign * k) for k in range(len(taken) + 1) for sign in (1, -1))
    place = next(x for x in options if all(max(x / t, t / x) > step**0.9 for t in taken))
    taken.append(place)
    return place


def _log_axis(ax: Axes, values: Sequence[float]) -> None:
    """A log axis with plain numbers at 1, 2 and 5 of each decade in range."""
    low, high = min(values) / 1.35, max(values) * 1.35
    ticks = [m * 10**e for e in range(8) for m in (1, 2, 5) if low <= m * 10**e <= high] or sorted(set(values))
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
    ax.set_xticks([], minor=True)
