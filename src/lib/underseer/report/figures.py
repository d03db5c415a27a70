"""Figures of a report: `plot_x(results) -> Figure | None`, drawn from tidy rows. Matplotlib is imported when first
drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.report import wording as w

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Any]

COLOURS = {
    "weak": "#D55E00",
    "w2s_naive": "#56B4E9",
    "w2s_hard_vote": "#009E73",
    "w2s_soft_vote": "#CC79A7",
    "strong_ceiling": "#0072B2",
    "single": "#56B4E9",
    "hard": "#009E73",
    "soft": "#CC79A7",
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


@contextmanager
def style() -> Iterator[None]:
    """The report's look, for the figures drawn inside."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def _colour(method: str, k: int) -> str:
    return COLOURS.get(method, SPARE[k % len(SPARE)])


def _figure(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's registry (nothing to close, no display needed), and its axes (rows, columns)."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def _foot(fig: Figure, results: Results, text: str) -> None:
    """Sample size and kind of interval at the foot of the figure, and the mark of the testbed."""
    mark = "Synthetic testbed. " if results["synthetic"] else ""
    fig.supxlabel(mark + text, fontsize=7.5, color="#666666", x=0.01, ha="left")


def plot_intervals(ax: Axes, rows: Sequence[Mapping], names: Sequence[str], *, scale: float = 1.0) -> None:
    """Points with 95 % intervals, one line per row, small hollow points for single seeds; the first row on top."""
    for k, row in enumerate(rows):
        if row["mean"] is None:
            ax.text(0.02, k, "undefined", va="center", color="#666666", transform=ax.get_yaxis_transform())
            continue
        colour, ci = _colour(row["method"], k), row["ci95"]
        if ci and ci[0] is not None:
            ax.plot([scale * ci[0], scale * ci[1]], [k, k], color=colour, lw=2.4, solid_capstyle="butt")
        seeds = [scale * v for v in row["values"] if v is not None]
        if len(seeds) > 1:
            ax.plot(seeds, [k + 0.24] * len(seeds), "o", ms=3.6, mfc="white", mec=colour, mew=0.9)
        ax.plot(scale * row["mean"], k, "o", ms=7.5, color=colour, mec="white", mew=0.8, zorder=3)
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def _value_labels(ax: Axes, rows: Sequence[Mapping], text: Callable[[Mapping], str]) -> None:
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


def plot_scores(results: Results, metric: str = "accuracy") -> Figure | None:
    """Every method's score on the main data set and on further ones, with intervals."""
    datasets = list(dict.fromkeys(r["dataset"] for r in results["rows"]))
    parts = {d: w.pick(results["rows"], dataset=d, metric=metric) for d in datasets}
    if not any(parts.values()):
        return None
    tall = max(len(p) for p in parts.values())
    fig, axes = _figure(7.2, len(datasets) * (0.42 * tall + 0.6) + 0.5, rows=len(datasets), sharex=True)
    for ax, (dataset, rows) in zip(axes[:, 0], parts.items(), strict=True):
        plot_intervals(ax, rows, w.row_names(rows), scale=100 if metric in w.PERCENT else 1)
        _value_labels(ax, rows, lambda r: w.with_interval(r, metric))
        if len(datasets) > 1:
            ax.set_title(dataset)
    split = "the test split" if len(datasets) == 1 else "each data set"
    axes[-1, 0].set_xlabel(f"{w.METRICS.get(metric, metric)} on {split}" + (" (%)" if metric in w.PERCENT else ""))
    _foot(fig, results, sample(parts[datasets[0]], results) + _hollow(parts[datasets[0]]))
    return fig


def plot_pgr(results: Results, metric: str = "accuracy") -> Figure | None:
    """PGR of every student between its weak supervisor (0) and the ceiling (1)."""
    rows = w.pick(results["pgr"], dataset=w.main_dataset(results), metric=metric)
    if not rows:
        return None
    fig, axes = _figure(7.2, 0.42 * len(rows) + 1.25)
    ax = axes[0, 0]
    plot_intervals(ax, rows, w.row_names(rows))
    _value_labels(ax, rows, w.pgr_text)
    for x, name in ((0, "weak"), (1, "ceiling")):
        ax.axvline(x, color="#555555", lw=1, ls=(0, (4, 3)), zorder=1)
        ax.annotate(
            name,
            (x, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="#555555",
        )
    ends = [v for r in rows for v in (*(r["ci95"] or ()), r["mean"]) if v is not None]
    ax.set_xlim(max(-2.0, min([-0.1, *ends]) - 0.05), min(3.0, max([1.1, *ends]) + 0.05))
    ax.set_xlabel("Performance gap recovered, on accuracy (0 = weak supervisor, 1 = ceiling; no unit)")
    scored = w.pick(results["rows"], dataset=rows[0]["dataset"], metric=metric)
    _foot(fig, results, sample(scored, results) + " (Fieller, paired)" + _hollow(rows))
    return fig


def plot_label_quality(results: Results, metric: str = "accuracy") -> Figure | None:
    """Accuracy of each vote's labels on the transfer split."""
    found = results.get("label_quality")
    rows = w.pick(found["rows"], metric=metric) if found else []
    if not rows:
        return None
    fig, axes = _figure(7.2, 0.42 * len(rows) + 1.15)
    ax = axes[0, 0]
    plot_intervals(ax, rows, w.row_names(rows), scale=100)
    _value_labels(ax, rows, lambda r: w.with_interval(r, metric))
    ax.set_xlabel("Accuracy of the weak labels on the transfer split (%)")
    _foot(fig, results, w.sample_text(rows, found["covers"], "transfer") + _hollow(rows))
    return fig


def _panels(rows: Sequence[Mapping], width: float, height: float, most: int = 4) -> tuple[Figure, list]:
    """One panel per row, at most `most` abreast; unused panels are hidden."""
    columns = min(len(rows), most)
    lines = -(-len(rows) // columns)
    title = 0.14 * max(_wrapped(n).count("\n") for n in w.row_names(rows))
    fig, axes = _figure(width * columns + 0.5, (height + title) * lines + 0.6, columns, lines, sharex=True, sharey=True)
    for ax in axes.ravel()[len(rows) :]:
        ax.set_visible(False)
    return fig, list(axes.ravel()[: len(rows)])


def plot_calibration(results: Results) -> Figure | None:
    """Reliability diagram of every method on the main data set: predicted against observed share of class 1."""
    rows = w.pick(results.get("calibration") or [], dataset=w.main_dataset(results))
    if not rows:
        return None
    fig, panels = _panels(rows, 2.1, 2.2, most=5 if len(rows) == 5 else 4)
    for k, (ax, row, name) in enumerate(zip(panels, rows, w.row_names(rows), strict=True)):
        colour = _colour(row["method"], k)
        used = [j for j, n in enumerate(row["n"]) if n]
        ax.plot([0, 1], [0, 1], color="#999999", lw=1, ls=(0, (4, 3)))
        size = [8 + 90 * row["n"][j] / max(row["n"]) for j in used]
        x, y = ([row[c][j] for j in used] for c in ("mean_p", "share"))
        ax.plot(x, y, color=colour, lw=1.4)
        ax.scatter(x, y, s=size, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.set_title(_wrapped(name), fontsize=8.5)
        ax.grid(True)
    one = results["classes"][1]
    panels[0].set_ylabel(f"Observed share of '{one}'")
    panels[len(panels) // 2].set_xlabel(f"Predicted probability of '{one}' (10 bins)")
    _foot(
        fig,
        results,
        f"{w.sample_text(main_rows(results))}, seeds pooled; area of a point: rows in its bin; no intervals",
    )
    return fig


def plot_confusion(results: Results) -> Figure | None:
    """Confusion matrix of every method on the main data set, rows in percent of the true class."""
    rows = w.pick(results.get("confusion") or [], dataset=w.main_dataset(results))
    if not rows:
        return None
    fig, panels = _panels(rows, 1.95, 2.25, most=5 if len(rows) == 5 else 4)
    classes = results["classes"]
    for ax, row, name in zip(panels, rows, w.row_names(rows), strict=True):
        counts = np.array(row["counts"], float)
        share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=115)
        for i, j in np.ndindex(2, 2):
            ax.text(
                j,
                i,
                f"{share[i, j]:.1f} %\n{counts[i, j]:,.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[i, j] > 65 else "#222222",
            )
        ax.set_xticks([0, 1], classes)
        ax.set_yticks([0, 1], classes, rotation=90, va="center")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(_wrapped(name), fontsize=8.5)
    panels[0].set_ylabel("Truth")
    panels[len(panels) // 2].set_xlabel("Predicted")
    _foot(
        fig,
        results,
        f"{w.sample_text(main_rows(results))}; % of the true class, and rows summed over seeds; no intervals",
    )
    return fig


def plot_curves(results: Results) -> Figure | None:
    """Learning curves: mean over seeds, band from the lowest to the highest seed, one panel per quantity."""
    import pandas as pd

    if not results.get("curves"):
        return None
    frame = pd.DataFrame(results["curves"]).dropna(subset=["value"])
    quantities = list(frame["metric"].drop_duplicates())[:4]
    fig, axes = _figure(3.6 * len(quantities) + 0.4, 3.1, len(quantities))
    for ax, quantity in zip(axes[0], quantities, strict=True):
        for k, (method, part) in enumerate(frame[frame["metric"] == quantity].groupby("method", sort=False)):
            by_step = part.groupby("step")["value"].agg(["mean", "min", "max"])
            ax.plot(by_step.index, by_step["mean"], color=_colour(method, k), lw=1.6, label=w.method_name(method))
            ax.fill_between(by_step.index, by_step["min"], by_step["max"], color=_colour(method, k), alpha=0.18, lw=0)
        ax.set(xlabel="Training step (optimiser updates)", ylabel=_quantity(quantity))
        ax.grid(True)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    seeds = frame["seed"].nunique() if "seed" in frame else 1
    _foot(fig, results, f"{seeds} seed{'s' * (seeds != 1)}; line: mean, band: lowest to highest seed")
    return fig


def _quantity(name: str) -> str:
    words = name.replace("eval_", "validation ").replace("_", " ")
    unit = " (nats per example)" if words.endswith("loss") else " (share)" if "accuracy" in words else ""
    return words[:1].upper() + words[1:] + unit


def _wrapped(name: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(name, 20))


def main_rows(results: Results) -> list[Mapping]:
    """Rows of the main data set."""
    return w.pick(results["rows"], dataset=w.main_dataset(results))


def sample(rows: Sequence[Mapping], results: Results) -> str:
    """Number of seeds and items, and what the intervals cover."""
    return w.sample_text(rows, results["interval"]["covers"])


def _hollow(rows: Sequence[Mapping]) -> str:
    return "; hollow: single seeds" if any(len(r["seeds"]) > 1 for r in rows) else ""
