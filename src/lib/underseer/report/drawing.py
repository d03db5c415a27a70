"""What all figures of a report share: colours, style, axes, and points with their intervals and seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from underseer.report import wording as w
from underseer.report.names import iteration

COLOURS = {
    **dict.fromkeys(("weak", "reset"), "#D55E00"),
    **dict.fromkeys(("w2s_naive", "single", "dpo_helpful_only"), "#56B4E9"),
    **dict.fromkeys(("w2s_hard_vote", "w2s_best_of_b", "hard", "best_of_b", "selfmoa"), "#009E73"),
    **dict.fromkeys(("w2s_soft_vote", "w2s_least_toxic", "soft", "least_toxic", "human_modpo"), "#CC79A7"),
    **dict.fromkeys(("w2s_mbr", "mbr", "human_dpo"), "#E69F00"),
    **dict.fromkeys(("strong_ceiling", "aligned"), "#0072B2"),
    "dpo_weighted_sum": "#A6761D",
    "dpo_safety_only": "#8C6BB1",
    "sft": "#3B3B3B",
}
"""Okabe and Ito's palette, told apart with any colour vision; rows carry names too, so colour is never alone."""
SPARE = ("#E69F00", "#7F7F7F", "#8C6BB1", "#3B3B3B", "#A6761D")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
SEED = {"marker": "o", "ms": 3.4, "mfc": "white", "mew": 0.8}
LOST = {"marker": "x", "ms": 6, "mew": 1.3}
"""The mark of one seed, and the cross over one whose training collapsed."""

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#222222",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,
    "savefig.facecolor": "white",
}


def set_style() -> None:
    """The look of a report's figures, for all that are drawn afterwards."""
    sns.set_theme(context="paper", style="ticks", rc=STYLE)


def colour(method: str, k: int) -> str:
    """A method's colour; for one that has none of its own, by its place in the figure."""
    return COLOURS.get("selfmoa" if iteration(method) else method, SPARE[k % len(SPARE)])


def shades(methods: Sequence[str]) -> list[str]:
    """A colour for each row: several variants of one method are shades of its colour, the last in full."""
    methods, tones = list(methods), []
    for k, method in enumerate(methods):
        same = [j for j, m in enumerate(methods) if m == method]
        white = 0.7 * (1 - (same.index(k) + 1) / len(same))
        tones.append(to_hex([white + (1 - white) * c for c in to_rgb(colour(method, same[0]))]))
    return tones


def inks(n: int) -> list[Any]:
    """Colours of n lines whose order means something: from dark to light, told apart with any colour vision."""
    return [COLOURS["selfmoa"]] if n == 1 else sns.color_palette("viridis", n)


def canvas(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's registry (nothing to close, no display needed), and its axes (rows, columns)."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def grid(n: int, width: float, height: float, most: int = 5, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of n panels, at most ``most`` abreast, and its axes (rows, columns); panels without use are hidden."""
    columns = min(n, most)
    rows = -(-n // columns)
    fig, axes = canvas(max(4.6, width * columns + 0.5), height * rows + 0.7, columns, rows, **options)
    for ax in axes.ravel()[n:]:
        ax.set_visible(False)
    return fig, axes


def finish(
    fig: Figure,
    rows: pd.DataFrame,
    *,
    legend: Axes | None = None,
    handles: Sequence[Any] | None = None,
    gaps: pd.DataFrame | None = None,
    note: str = "",
) -> Figure:
    """Put sample and intervals at the foot of a figure (``rows.attrs["foot"]``), and a legend above it. gaps: rows of PGR that are
    drawn within the limits of ``limited``, so that the foot explains their marks."""
    texts = [rows.attrs.get("foot", ""), note]
    if "values" in rows and rows["values"].map(len).max() > 1:
        texts.append("hollow: single seeds")
    if "collapsed" in rows and any(map(lost_values, rows.to_dict("records"))):
        texts.append("crossed: a training that collapsed")
    if gaps is not None and outside(gaps, *limited(gaps)).any():
        texts.append("arrow: goes on beyond the axis")
    if gaps is not None and (gaps["mean"].notna() & gaps["low"].isna()).any():
        texts.append("large and hollow: no finite interval")
    wide = int(16 * fig.get_size_inches()[0])
    fig.supxlabel(textwrap.fill("; ".join(filter(None, texts)), wide), fontsize=7.5, color="#666666", x=0.01, ha="left")
    if legend is not None:
        drawn = dict(zip(*reversed(legend.get_legend_handles_labels()), strict=True))
        handles = [handle for name, handle in drawn.items() if not name.startswith("_")]
    if handles:
        fig.legend(handles=handles, loc="outside upper left", ncols=3 if fig.get_size_inches()[0] < 9 else 4)
    return fig


def outside(rows: pd.DataFrame, low: float, high: float) -> pd.Series:
    """Which rows have an interval or a seed beyond the limits."""
    seeds = rows["values"].map(lambda v: any(not low <= x <= high for x in v))
    return (rows["low"] < low) | (rows["high"] > high) | seeds


def limited(rows: pd.DataFrame, low: float = -1.5, high: float = 2.5) -> tuple[float, float]:
    """Limits of an axis for PGR: what there is, but not beyond ``low`` and ``high``."""
    ends = pd.concat([rows[c] for c in ("low", "high", "mean")] + [rows["values"].explode().astype(float)]).dropna()
    ends = [-0.1, 1.1, *ends]
    return max(low, min(ends) - 0.05), min(high, max(ends) + 0.05)


def reference(ax: Axes, at: float, name: str, *, upright: bool = True) -> None:
    """A dashed line at a value that means something, with its name at the end."""
    line, coordinates = (ax.axvline, ("data", "axes fraction")) if upright else (ax.axhline, ("axes fraction", "data"))
    line(at, color="#555555", lw=1, ls=(0, (4, 3)), zorder=1)
    place, offset = ((at, 1.0), (0, 3)) if upright else ((1.0, at), (3, 0))
    ax.annotate(name, place, xycoords=coordinates, xytext=offset, textcoords="offset points", fontsize=8, color="#555555",
                ha="center" if upright else "left", va="bottom" if upright else "center")  # fmt: skip


def spread(
    ax: Axes,
    rows: pd.DataFrame,
    places: Sequence[float],
    colours: Sequence[Any],
    *,
    upright: bool = False,
    marker: str = "o",
    aside: float | Sequence[float] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Means with 95 % intervals, and a small hollow point for each seed, crossed where its training collapsed; what lies beyond
    ``limits`` ends in an arrow.

    rows: ``tidy`` rows, each drawn at its place on the other axis; upright: the values run up the page. marker: of the means; ''
    leaves them out. aside: how far from its place the seeds of a row stand. Within limits, a mean without an interval is hollow.
    """
    aside = (0.13 if upright else 0.26) if aside is None else aside
    asides = [aside] * len(rows) if isinstance(aside, float) else aside
    for at, beside, ink, row in zip(places, asides, colours, rows.to_dict("records"), strict=True):
        if pd.notna(row["mean"]):
            _row(ax, row, (at, at + beside), ink, marker=marker, upright=upright, limits=limits)


def _row(
    ax: Axes,
    row: Mapping[str, Any],
    at: tuple[float, float],
    ink: Any,
    *,
    marker: str,
    upright: bool,
    limits: tuple[float, float],
) -> None:
    """One row of ``spread``; at: the places of its mean and of its seeds."""
    (low, high), arrows = limits, "v^" if upright else "<>"

    def put(values: Sequence[float], at: float, **look: Any) -> None:
        values = list(np.clip(values, low, high))
        ax.plot(*(([at] * len(values), values) if upright else (values, [at] * len(values))), **look)

    bounded = pd.notna(row["low"])
    if bounded:
        put([row["low"], row["high"]], at[0], color=ink, lw=2.2, solid_capstyle="butt")
    seeds = row["values"] if len(row["values"]) > 1 else []
    for shown, look in ((seeds, SEED), (lost_values(row), LOST)):
        put([v for v in shown if low <= v <= high], at[1], ls="", mec=ink, **look)
    for side, end, arrow, beyond in (("low", low, arrows[0], np.less), ("high", high, arrows[1], np.greater)):
        if beyond([row[side], *seeds], end).any():
            put([end], at[0], marker=arrow, ms=6, color=ink, clip_on=False)
    hollow = not bounded and np.isfinite(low)
    edge = {"mfc": "white" if hollow else ink, "mec": ink if hollow else "white", "mew": 0.9}
    put([row["mean"]], at[0], marker=marker, ms=7, zorder=3, **edge)


def lost_values(row: Mapping[str, Any]) -> list[float]:
    """The values of the seeds of a ``tidy`` row whose training collapsed."""
    lost, seeds = row.get("collapsed"), row.get("seeds")
    if not isinstance(lost, list) or not lost or len(seeds) != len(row["values"]):
        return []
    return [v for s, v in zip(seeds, row["values"], strict=True) if s in lost]


def trend(
    ax: Axes,
    rows: pd.DataFrame,
    colours: Sequence[Any],
    *,
    joined: bool = True,
    width: float = 0.6,
    numbers: bool = False,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Lines over places: each ``line`` of the table beside the others at each ``place``; a line without a place is drawn
    across, with its band. What all lines share is drawn once, in grey. numbers: write each mean above its interval."""
    ink = dict(zip(rows["line"].unique(), colours, strict=True))
    known = rows[rows["mean"].notna()]
    across: list[Any] = []  # the colours of the lines that were drawn: variants of one method have the same, and dashes
    for row in known[known["place"].isna()].itertuples():
        dashes = DASHES[across.count(ink[row.line]) % len(DASHES)]
        ax.axhline(row.mean, color=ink[row.line], lw=1.6, ls=dashes, label=row.line, zorder=1.5)
        across.append(ink[row.line])
        if pd.notna(row.low):
            ax.axhspan(row.low, row.high, color=ink[row.line], alpha=0.12, lw=0)
    known = known[known["place"].notna()].sort_values("place", kind="stable")
    moving = [name for name in ink if (known["line"] == name).any()]
    ax.grid(axis="y")
    if not moving:
        return
    step = min(0.2, width / len(moving))
    shared = _alike(known, len(moving))
    shift = (known["line"].map({n: k for k, n in enumerate(moving)}).astype(float) - (len(moving) - 1) / 2) * step
    known = known.assign(at=known["place"] + shift.where(~shared, 0.0), shared=shared)
    style = {"upright": True, "aside": 0.13 if len(moving) == 1 else 0.35 * step, "limits": limits}
    for k, name in enumerate(moving):
        _line(ax, known[known["line"] == name], ink[name], MARKERS[k % len(MARKERS)], joined, style)
    once = known[shared & (known["line"] == moving[-1])]
    spread(ax, once, once["at"], ["#444444"] * len(once), upright=True)
    ax.plot(once["at"], once["mean"], color="#444444", lw=1.6, zorder=3.5)
    if numbers:
        _write_means(ax, known)


def _line(ax: Axes, rows: pd.DataFrame, ink: Any, marker: str, joined: bool, style: Mapping[str, Any]) -> None:
    """One line of ``trend`` through the means, with the intervals and seeds of what no other line shares."""
    look = {"color": ink, "lw": 1.4 if joined else 0}
    ax.plot(rows["at"], rows["mean"].clip(*style["limits"]), alpha=0.8, **look)
    ax.plot([], [], marker=marker, ms=6, mec="white", label=rows["line"].iloc[0], **look)
    alone = rows[~rows["shared"]]
    spread(ax, alone, alone["at"], [ink] * len(alone), marker=marker, **style)


def _write_means(ax: Axes, rows: pd.DataFrame) -> None:
    """Each mean above its interval and seeds, with a white edge where it lies on lines."""
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for row in rows.itertuples():
        top = row.mean if pd.isna(row.high) else max([row.high, *row.values])
        shown = f"{row.mean:.{1 if row.metric in w.PERCENT else 2}f}"
        ax.annotate(shown, (row.at, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7.5,
                    color="#333333", zorder=4, path_effects=halo)  # fmt: skip


def ticks(ax: Axes, rows: pd.DataFrame) -> None:
    """The names of the places (``tick``) along the lower axis."""
    first = rows.dropna(subset="place").drop_duplicates("place").sort_values("place")
    ax.set_xticks(first["place"], first["tick"])
    ax.set_xlim(first["place"].min() - 0.5, first["place"].max() + 0.5)


def _alike(rows: pd.DataFrame, lines: int) -> pd.Series:
    """Which rows all lines share: the same score of the same model, once for each line."""
    keys = rows.reindex(columns=["place", "method", "variant", "metric"]).map(repr).agg("|".join, axis="columns")
    return (keys.map(keys.value_counts()) == lines) & (lines > 1)
