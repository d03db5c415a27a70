"""Figures at the widths of a paper: laid out anew, so that no letter is smaller than seven points where they are printed."""

from __future__ import annotations

import pickle
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from underseer.report.marks import BESIDE

WIDTHS = {"": 6.9, "_column": 3.3}
"""Inches of two columns and of one; keys: ends of file names."""
SMALLEST = 7.0
"""Points of the smallest type."""
LETTERS = 17
"""Letters of the smallest type to the inch."""
TALLEST = 9.0
"""Inches of a page of text."""
NARROWEST = 0.6
"""Share of its width to which a panel may shrink before the panels stand in fewer columns."""


def fitted(figure: Figure, width: float) -> Figure | None:
    """A copy of a figure at a width in inches, its panels in as many columns as have room; None for a drawing without axes (boxes
    and arrows) that is wider, since its texts would not fit."""
    if width < figure.get_figwidth() and not any(ax.axison for ax in figure.axes):
        return None
    figure = pickle.loads(pickle.dumps(figure))
    for ax in [ax for ax in figure.axes if not ax.get_visible()]:
        ax.remove()
    before, lines = figure.get_size_inches(), _lines(figure)
    columns = max((ax.get_subplotspec().get_gridspec().ncols for ax in figure.axes), default=1)
    rows = -(-len(figure.axes) // columns)
    fit = int(np.clip(width / (NARROWEST * before[0] / columns), 1, columns))
    if fit < columns:
        _regrid(figure.axes, fit)
    panel = width / fit, before[1] / rows * np.clip(width / before[0], 0.8, 1)
    for ax in figure.axes:
        _wrap(ax, *panel)
    _resize(figure, width / before[0])
    _around(figure, width, panel[0])
    tall = panel[1] * -(-len(figure.axes) // fit) + 0.14 * max(0, _lines(figure) - lines)
    figure.set_size_inches(width, min(tall, TALLEST))
    return figure


def _lines(figure: Figure) -> int:
    """Lines of text at the foot and in the legends above."""
    return figure.get_supxlabel().count("\n") + sum(-(-len(x.texts) // x._ncols) for x in figure.legends)


def _regrid(axes: Sequence[Axes], columns: int) -> None:
    """Put panels into fewer columns; what they share is written at the left and at the foot of the new grid."""
    figure, rows = axes[0].figure, -(-len(axes) // columns)
    grid = GridSpec(rows, columns, figure=figure)
    xlabels, ylabels = [ax.get_xlabel() for ax in axes], [ax.get_ylabel() for ax in axes]
    shared_x, shared_y = (len(set(filter(None, names))) == 1 and "" in names for names in (xlabels, ylabels))
    shared_y &= axes[0].get_shared_y_axes().joined(axes[0], axes[-1])
    for k, ax in enumerate(axes):
        row, column = divmod(k, columns)
        lowest = k + columns >= len(axes)
        ax.set_subplotspec(grid[row, column])
        if ax.get_shared_y_axes().joined(ax, axes[k - 1]):
            ax.tick_params(labelleft=column == 0)
        if ax.get_shared_x_axes().joined(ax, axes[k - 1]):
            ax.tick_params(labelbottom=lowest)
        if shared_y:
            ax.set_ylabel(max(ylabels) if column == 0 else "")
        if shared_x:
            ax.set_xlabel(max(xlabels) if lowest and column == (columns - 1) // 2 else "")


def _wrap(ax: Axes, width: float, height: float) -> None:
    """Break titles, labels and names of a panel of so many inches into lines that fit."""
    ax.set_xlabel(_filled(ax.get_xlabel(), 0.75 * width))
    ax.set_ylabel(_filled(ax.get_ylabel(), 0.75 * height))
    for place in ("left", "center"):
        if title := ax.get_title(place):
            ax.set_title(_filled(title, 0.85 * width), loc=place, fontsize=9)
    for text in ax.findobj(lambda artist: artist.get_gid() == BESIDE):
        each = 0.6 * width / max(1, len(ax.get_xticks()))
        text.set_text("\n".join(_filled(line, each) for line in text.get_text().split("\n")))
    for axis, room in ((ax.xaxis, 0.6 * width), (ax.yaxis, 0.4 * max(width, 3.6))):
        at, names = axis.get_ticklocs(), [label.get_text() for label in axis.get_ticklabels()]
        if any(names) and isinstance(axis.get_major_formatter(), FuncFormatter):  # names that were given to places
            each = room / max(1, len(at)) if axis is ax.xaxis else room
            axis.set_ticks(at, ["\n".join(_filled(part, each) for part in name.split("\n")) for name in names])


def _filled(text: str, inches: float) -> str:
    """A text in lines of so many inches; as it is where it fits."""
    letters = max(5, int(LETTERS * inches))
    if max(map(len, text.split("\n"))) <= letters:
        return text
    return textwrap.fill(" ".join(text.split()), letters, break_long_words=False, break_on_hyphens=False)


def _resize(figure: Figure, scale: float) -> None:
    """All type by a factor, none below SMALLEST."""
    for ax in figure.axes:
        for which, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            sizes = [label.get_size() for label in axis.get_ticklabels()]
            ax.tick_params(axis=which, labelsize=max(SMALLEST, min(1.0, scale) * max(sizes, default=SMALLEST)))
    for text in figure.findobj(Text):
        text.set_fontsize(max(SMALLEST, min(1.0, scale) * text.get_size()))


def _around(figure: Figure, width: float, panel: float) -> None:
    """The foot and the legends in lines that fit."""
    foot = textwrap.fill(" ".join(figure.get_supxlabel().split()), int(LETTERS * width))
    figure.supxlabel(foot, fontsize=SMALLEST, color="#666666", x=0.01, ha="left")
    for legend in list(figure.legends):
        legend.remove()
        figure.legend(loc="outside upper left", **_columns(legend, width))
    for ax in figure.axes:
        if legend := ax.get_legend():
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, **_columns(legend, 0.75 * panel))


def _columns(legend: Any, width: float) -> dict[str, Any]:
    """A legend's entries in as many columns as have room."""
    labels = [text.get_text() for text in legend.texts]
    entry = 0.45 + max(map(len, labels)) / LETTERS
    look = {"ncols": max(1, min(4, int(width / entry))), "fontsize": SMALLEST, "columnspacing": 1.0}
    return {"handles": legend.legend_handles, "labels": labels, "frameon": False, **look}
