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

from underseer.report import wording as w
from underseer.report.marks import ENDLESS, HALO, at_end, limited, lost_values, outside, spread, write_beyond
from underseer.report.names import rounds

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
    "offline": "#332288",
    "no_red_team": "#882255",
    "iterated_dpo": "#999933",
}
"""Okabe and Ito's palette, told apart with any colour vision; rows carry names too, so colour is never alone."""
SPARE = ("#E69F00", "#7F7F7F", "#8C6BB1", "#3B3B3B", "#A6761D")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
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
    """A method's colour, the same for each of its iterates; for one that has none of its own, by its place in the figure."""
    return COLOURS.get((rounds(method) or (method, 0))[0], SPARE[k % len(SPARE)])


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
    if gaps is not None and outside(gaps, limited(gaps)):
        texts.append("filled arrow: goes on beyond the axis; hollow arrow: seeds beyond it")
    if gaps is not None and "note" in gaps:
        texts += gaps.loc[gaps["mean"].isna(), "note"].dropna().unique().tolist()
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


def reference(ax: Axes, at: float, name: str, *, upright: bool = True, ha: str = "center") -> None:
    """A dashed line at a value that means something, with its name at the end; ha: where the name of an upright one stands."""
    line, coordinates = (ax.axvline, ("data", "axes fraction")) if upright else (ax.axhline, ("axes fraction", "data"))
    line(at, color="#555555", lw=1, ls=(0, (4, 3)), zorder=1)
    place, offset = ((at, 1.0), (0, 3)) if upright else ((1.0, at), (3, 0))
    ax.annotate(name, place, xycoords=coordinates, xytext=offset, textcoords="offset points", fontsize=8, color="#555555",
                ha=ha if upright else "left", va="bottom" if upright else "center")  # fmt: skip


def trend(
    ax: Axes,
    rows: pd.DataFrame,
    colours: Sequence[Any],
    *,
    joined: bool = True,
    width: float = 0.6,
    numbers: bool = False,
    limits: tuple[float, float] = ENDLESS,
) -> None:
    """Lines over places: each ``line`` of the table beside the others at each ``place``; a line without a place is drawn
    across, with its band, or of many with its interval at the end. What all lines share is drawn once, in grey. numbers: write each mean above its interval."""
    ink = dict(zip(rows["line"].unique(), colours, strict=True))
    known = rows[rows["mean"].notna()]
    _across(ax, known, ink)
    known = known[known["place"].notna()].sort_values("place", kind="stable")
    moving = [name for name in ink if (known["line"] == name).any()]
    ax.grid(axis="y")
    if not moving:
        return
    step = min(0.2, width / len(moving))
    shared = _alike(known, len(moving))
    shift = (known["line"].map({n: k for k, n in enumerate(moving)}).astype(float) - (len(moving) - 1) / 2) * step
    known = known.assign(at=known["place"] + shift.where(~shared, 0.0), shared=shared)
    aside = 0.13 if len(moving) == 1 else 0.35 * step
    style = {"upright": True, "aside": aside, "limits": limits}
    for k, name in enumerate(moving):
        _line(ax, known[known["line"] == name], ink[name], MARKERS[k % len(MARKERS)], joined, style)
    once = known[shared & (known["line"] == moving[-1])]
    spread(ax, once, once["at"], ["#444444"] * len(once), upright=True, limits=limits)
    ax.plot(once["at"], once["mean"], color="#444444", lw=1.6, zorder=3.5)
    write_beyond(ax, known[~shared | (known["line"] == moving[-1])].assign(aside=aside), limits, moving)
    if numbers:
        _write_means(ax, known)


BANDS = 2
"""More lines across than so many show their intervals at the end of the axis, where bands would cover each other."""


def _across(ax: Axes, rows: pd.DataFrame, ink: Mapping[str, Any]) -> None:
    """The lines of ``trend`` that have no place."""
    drawn: list[Any] = []  # the colours of the lines that were drawn: variants of one method have the same, and dashes
    constant = rows[rows["place"].isna()]
    for k, row in enumerate(constant.to_dict("records")):
        own = ink[row["line"]]
        dashes = DASHES[drawn.count(own) % len(DASHES)]
        ax.axhline(row["mean"], color=own, lw=1.6, ls=dashes, label=row["line"], zorder=1.5)
        drawn.append(own)
        if pd.notna(row["low"]) and len(constant) > BANDS:
            at_end(ax, rows["place"].max() + 0.5 + ASIDE * k, row, own)
        elif pd.notna(row["low"]):
            ax.axhspan(row["low"], row["high"], color=own, alpha=0.12, lw=0)


ASIDE = 0.09
"""Distance of the intervals at the end of the axis."""


def _line(ax: Axes, rows: pd.DataFrame, ink: Any, marker: str, joined: bool, style: Mapping[str, Any]) -> None:
    """One line of ``trend`` through the means, with the intervals and seeds of what no other line shares."""
    look = {"color": ink, "lw": 1.4 if joined else 0}
    ax.plot(rows["at"], rows["mean"], alpha=0.8, **look)
    ax.plot([], [], marker=marker, ms=6, mec="white", label=rows["line"].iloc[0], **look)
    alone = rows[~rows["shared"]]
    spread(ax, alone, alone["at"], [ink] * len(alone), marker=marker, **style)


def _write_means(ax: Axes, rows: pd.DataFrame) -> None:
    """Each mean above its interval and seeds, clear of their marks; at the left of a line that rises steeply from it."""
    follows = rows.groupby("line")["mean"].shift(-1)
    for row, after in zip(rows.itertuples(), follows, strict=True):
        top = row.mean if pd.isna(row.high) else max([row.high, *row.values])
        percent = row.metric in w.PERCENT
        steep = after - row.mean > (25 if percent else 0.25)
        ax.annotate(f"{row.mean:.{1 if percent else 2}f}", (row.at, top), xytext=(-8 if steep else 0, 6), zorder=4,
                    textcoords="offset points", ha="center", fontsize=7.5, color="#333333",
                    path_effects=HALO)  # fmt: skip


def ticks(ax: Axes, rows: pd.DataFrame) -> None:
    """The names of the places (``tick``) along the lower axis."""
    first = rows.dropna(subset="place").drop_duplicates("place").sort_values("place")
    ax.set_xticks(first["place"], first["tick"])
    constant = rows.loc[rows["place"].isna() & rows["mean"].notna(), "line"].nunique() if "line" in rows else 0
    room = ASIDE * constant if constant > BANDS else 0
    ax.set_xlim(first["place"].min() - 0.5, first["place"].max() + 0.5 + room)


def _alike(rows: pd.DataFrame, lines: int) -> pd.Series:
    """Which rows all lines share: the same score of the same model, once for each line."""
    keys = rows.reindex(columns=["place", "method", "variant", "metric"]).map(repr).agg("|".join, axis="columns")
    return (keys.map(keys.value_counts()) == lines) & (lines > 1)
