"""Means with their intervals and seeds, and what of them lies beyond an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

SEED = {"marker": "o", "ms": 3.4, "mfc": "white", "mew": 0.8}
LOST = {"marker": "x", "ms": 6, "mew": 1.3}
"""The mark of one seed, and the cross over one whose training collapsed."""
HALO = [withStroke(linewidth=2.5, foreground="white")]
"""The edge of a number that may lie on lines."""
ENDLESS = (-np.inf, np.inf)


def limited(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis for PGR: what there is, but not beyond -1.5 and 2.5; a row without a mean is not drawn."""
    rows = rows[rows["mean"].notna()]
    ends = pd.concat([rows[c] for c in ("low", "high", "mean")] + [rows["values"].explode().astype(float)]).dropna()
    ends = [-0.1, 1.1, *ends]
    return max(-1.5, min(ends) - 0.05), min(2.5, max(ends) + 0.05)


def beyond(row: Mapping[str, Any], limits: tuple[float, float]) -> dict[str, tuple[str, int]]:
    """What of a row lies beyond the limits: at 'low' or 'high' a text, '-3.49' of the mean, 'to -4.20' of the interval's end, '' where
    neither does, and how many of its seeds do; empty where all of it is within, or where it has no mean."""
    found: dict[str, tuple[str, int]] = {}
    seeds = row["values"] if len(row["values"]) > 1 else []
    for side, end, past in (("low", limits[0], np.less), ("high", limits[1], np.greater)):
        text = f"to {row[side]:.2f}" if past(row[side], end) else ""
        text = f"{row['mean']:.2f}" if past(row["mean"], end) else text
        n = int(past(np.array(seeds, float), end).sum())
        if pd.notna(row["mean"]) and (text or n):
            found[side] = (text, n)
    return found


def outside(rows: pd.DataFrame, limits: tuple[float, float]) -> bool:
    """Whether anything that is drawn of the rows lies beyond the limits."""
    return any(beyond(row, limits) for row in rows.to_dict("records"))


def seeds_beyond(row: Mapping[str, Any], limits: tuple[float, float]) -> str:
    """'2 of 6 seeds beyond'; empty where none is."""
    n = sum(n for _, n in beyond(row, limits).values())
    return f"{n} of {len(row['values'])} seeds beyond" if n else ""


def spread(
    ax: Axes,
    rows: pd.DataFrame,
    places: Sequence[float],
    colours: Sequence[Any],
    *,
    upright: bool = False,
    marker: str = "o",
    aside: float | Sequence[float] | None = None,
    limits: tuple[float, float] = ENDLESS,
) -> None:
    """Means with 95 % intervals, and a small hollow point for each seed, crossed where its training collapsed. At the end of the axis
    an arrow stands for what lies beyond ``limits``: a filled one for a mean or an interval, a hollow one for seeds.

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
    low, high = limits

    def put(values: Sequence[float], at: float, **look: Any) -> None:
        ax.plot(*(([at] * len(values), values) if upright else (values, [at] * len(values))), **look)

    bounded = pd.notna(row["low"])
    if bounded and row["low"] <= high and row["high"] >= low:
        put(list(np.clip([row["low"], row["high"]], low, high)), at[0], color=ink, lw=2.2, solid_capstyle="butt")
    for shown, look in ((row["values"] if len(row["values"]) > 1 else [], SEED), (lost_values(row), LOST)):
        put([v for v in shown if low <= v <= high], at[1], ls="", mec=ink, **look)
    for side, (text, n) in beyond(row, limits).items():
        end, arrow, inward = (low, "<v"[upright], 1) if side == "low" else (high, ">^"[upright], -1)
        step = (0, 4 * inward / 72)[:: 1 if upright else -1]  # in inches: the whole arrow stands within the axis
        look = {"marker": arrow, "clip_on": False, "zorder": 4, "ls": ""}
        look["transform"] = ax.transData + ScaledTranslation(*step, ax.figure.dpi_scale_trans)
        if text:
            put([end], at[0], ms=8, mfc=ink, mec="white", mew=0.6, **look)
        if n:
            put([end], at[1], ms=5, mfc="white", mec=ink, mew=0.8, **look)
    hollow = not bounded and np.isfinite(low)
    edge = {"mfc": "white" if hollow else ink, "mec": ink if hollow else "white", "mew": 0.9}
    if low <= row["mean"] <= high:
        put([row["mean"]], at[0], marker=marker, ms=7, zorder=3, **edge)


def at_end(ax: Axes, at: float, row: Mapping[str, Any], ink: Any, **look: Any) -> None:
    """An upright interval with its mean beside the other end of the axis, of what holds along all of it."""
    look |= {"color": ink, "clip_on": False}
    ax.plot([at, at], [row["low"], row["high"]], lw=2.2, solid_capstyle="butt", **look)
    ax.plot([at], [row["mean"]], "o", ms=5, mec="white", mew=0.8, **look)


def lost_values(row: Mapping[str, Any]) -> list[float]:
    """The values of the seeds of a ``tidy`` row whose training collapsed."""
    lost, seeds = row.get("collapsed"), row.get("seeds")
    if not isinstance(lost, list) or not lost or len(seeds) != len(row["values"]):
        return []
    return [v for s, v in zip(seeds, row["values"], strict=True) if s in lost]


BESIDE = "beside a place"
"""The id of texts that have the room from one place to the next."""


def write_beyond(ax: Axes, rows: pd.DataFrame, limits: tuple[float, float], lines: Sequence[str]) -> None:
    """Beside the arrows of upright rows (``at``, ``aside``) the numbers that lie beyond the limits, and how many seeds do; those of the
    first half of the lines at the left, the others at the right."""
    taken: dict[tuple[float, str, bool], int] = {}
    for row in rows.to_dict("records"):
        left = lines.index(row["line"]) + 1 <= len(lines) / 2
        for side, (text, n) in beyond(row, limits).items():
            said = "\n".join(filter(None, (text, f"{n} of {len(row['values'])} seeds" if n else "")))
            key = (row["place"], side, left)
            up = 10 + 9.5 * taken.get(key, 0)
            taken[key] = taken.get(key, 0) + said.count("\n") + 1
            at, end, sign = (row["at"], limits[0], 1) if side == "low" else (row["at"], limits[1], -1)
            ax.annotate(said, (at if left else at + row["aside"], end), xytext=(-6 if left else 6, sign * up),
                        textcoords="offset points", ha="right" if left else "left", va="bottom" if sign > 0 else "top",
                        fontsize=7.5, color="#333333", zorder=4, path_effects=HALO, gid=BESIDE)  # fmt: skip
