"""What the figures of a report share: colours, style, axes, intervals. Matplotlib is imported when first drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.report import wording as w
from underseer.report.names import iteration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Any]

COLOURS = {
    "weak": "#D55E00",
    "w2s_naive": "#56B4E9",
    "w2s_hard_vote": "#009E73",
    "w2s_soft_vote": "#CC79A7",
    "w2s_best_of_b": "#009E73",
    "w2s_least_toxic": "#CC79A7",
    "w2s_mbr": "#E69F00",
    "strong_ceiling": "#0072B2",
    "single": "#56B4E9",
    "hard": "#009E73",
    "soft": "#CC79A7",
    "best_of_b": "#009E73",
    "least_toxic": "#CC79A7",
    "mbr": "#E69F00",
    "aligned": "#0072B2",
    "reset": "#D55E00",
    "selfmoa": "#009E73",
    "human_dpo": "#E69F00",
    "human_modpo": "#CC79A7",
    "dpo_weighted_sum": "#A6761D",
    "dpo_helpful_only": "#56B4E9",
    "dpo_safety_only": "#8C6BB1",
    "sft": "#3B3B3B",
}
"""Okabe and Ito's palette, told apart with any colour vision; rows carry names too, so colour is never alone."""
SPARE = ("#E69F00", "#7F7F7F", "#8C6BB1", "#3B3B3B", "#A6761D")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
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
    "pdf.fonttype": 42,
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Plot:
    """A figure of the report: file stem, title, how to draw it, and its caption."""

    name: str
    title: str
    draw: Callable[[Results], Figure | None]
    caption: Callable[[Results], str]


@contextmanager
def style() -> Iterator[None]:
    """The report's look, for the figures drawn inside."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def colour(method: str, k: int) -> str:
    """A method's colour; for one that has none of its own, by its place in the figure."""
    return COLOURS.get("selfmoa" if iteration(method) else method, SPARE[k % len(SPARE)])


def shades(rows: Sequence[Mapping]) -> list[str]:
    """A colour for each row with `method`: several variants of one method are shades of its colour, the last in full."""
    from matplotlib.colors import to_hex, to_rgb

    found = []
    for k, row in enumerate(rows):
        same = [j for j, r in enumerate(rows) if r["method"] == row["method"]]
        white = 0.7 * (1 - (same.index(k) + 1) / len(same))
        found.append(to_hex([white + (1 - white) * c for c in to_rgb(colour(row["method"], same[0]))]))
    return found


def figure(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's registry (nothing to close, no display needed), and its axes (rows, columns)."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def foot(fig: Figure, results: Results, text: str) -> None:
    """Sample size and kind of interval at the foot of the figure, and the mark of the testbed or of a rehearsal."""
    mark = f"{w.REHEARSAL_SHORT} " if w.is_rehearsal(results) else "Synthetic testbed. " if results["synthetic"] else ""
    fig.supxlabel(mark + text, fontsize=7.5, color="#666666", x=0.01, ha="left")


def plot_intervals(ax: Axes, rows: Sequence[Mapping], names: Sequence[str], *, scale: float = 1.0) -> None:
    """Points with 95 % intervals, one line per row, small hollow points for single seeds; the first row on top."""
    for k, row in enumerate(rows):
        if row["mean"] is None:
            ax.text(0.02, k, "undefined", va="center", color="#666666", transform=ax.get_yaxis_transform())
            continue
        ink, ci = colour(row["method"], k), row["ci95"]
        if ci and ci[0] is not None:
            ax.plot([scale * ci[0], scale * ci[1]], [k, k], color=ink, lw=2.4, solid_capstyle="butt")
        seeds = [scale * v for v in row["values"] if v is not None]
        if len(seeds) > 1:
            ax.plot(seeds, [k + 0.24] * len(seeds), "o", ms=3.6, mfc="white", mec=ink, mew=0.9)
        ax.plot(scale * row["mean"], k, "o", ms=7.5, color=ink, mec="white", mew=0.8, zorder=3)
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def value_labels(ax: Axes, rows: Sequence[Mapping], text: Callable[[Mapping], str]) -> None:
    """The numbers themselves, in a column at the right of the axes."""
    for k, row in enumerate(rows):
        ax.annotate(
            text(row),
            (1.02, k),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color="#333333",
            annotation_clip=False,
        )


def halo() -> list[Any]:
    """Path effects of a label that may lie on lines: a white edge."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def panels(rows: Sequence[Mapping], width: float, height: float, most: int = 4) -> tuple[Figure, list]:
    """One panel per row, at most `most` abreast; unused panels are hidden."""
    columns = min(len(rows), most)
    lines = -(-len(rows) // columns)
    title = 0.14 * max(wrapped(n).count("\n") for n in w.row_names(rows))
    fig, axes = figure(width * columns + 0.5, (height + title) * lines + 0.6, columns, lines, sharex=True, sharey=True)
    for ax in axes.ravel()[len(rows) :]:
        ax.set_visible(False)
    return fig, list(axes.ravel()[: len(rows)])


def wrapped(name: str, width: int = 20) -> str:
    """A panel's title, broken into lines of `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(name, width))


def axis_label(metric: str) -> str:
    """A metric's name with its unit, or with its range, and direction where lower is better."""
    name = w.METRICS.get(metric, metric)
    unit = (" (0 to 1)" if name.endswith(" score") else " (score, 0 to 1)") if metric in w.SCORES else ""
    unit = " (%)" if metric in w.PERCENT else unit
    return name + unit + (", lower is better" if w.lower_is_better(metric) else "")


def main_rows(results: Results) -> list[Mapping]:
    """Rows of the main data set."""
    return w.pick(results["rows"], dataset=w.main_dataset(results))


def sample(rows: Sequence[Mapping], results: Results) -> str:
    """Number of seeds and items, and what the intervals cover."""
    return w.sample_text(rows, results["interval"]["covers"])


def hollow(rows: Sequence[Mapping]) -> str:
    """What hollow points are, where there are any."""
    return "; hollow: single seeds" if any(len(r["seeds"]) > 1 for r in rows) else ""
