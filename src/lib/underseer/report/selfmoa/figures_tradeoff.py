"""Figures of what is given for what: helpfulness for safety over objective weights, preference pairs for safety."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from underseer.report import wording as w
from underseer.report.canvas import axis_label, colour, figure, foot, halo
from underseer.report.names import iteration, named_numbers
from underseer.report.selfmoa import accounts, stages
from underseer.report.selfmoa.figures import MARKERS, inks
from underseer.report.selfmoa.stages import BASELINES, HUMAN, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEIGHTS = "objective_weights"
Point = tuple[Mapping[str, Any], Mapping[str, Any], str]
"""Row across, row up, label."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one beats, by growing x: more of x and less of y is better."""
    kept = []
    for k, (x, y) in enumerate(points):
        beaten = any(u >= x and v <= y and (u > x or v < y) for u, v in points)
        if not beaten:
            kept.append(k)
    return sorted(kept, key=lambda k: points[k])


def pareto_points(results: Results) -> list[Point]:
    """The last iterate at each objective weight; empty where there is one weight only."""
    safe, attack = stages.main_of(results, "safe"), stages.main_of(results, "attack")
    up = stages.lines(results, stages.rows_of(results, attack, "unsafe_rate"))
    across = {repr(x.variant): x for x in stages.lines(results, stages.rows_of(results, safe, "helpfulness"))}
    found = []
    for line in up:
        other = across.get(repr(line.variant))
        if line.last and other and line.last in other.rows and WEIGHTS in line.variant:
            found.append((other.rows[line.last], line.rows[line.last], line.variant[WEIGHTS]))
    names = dict(zip(map(repr, [f[2] for f in found]), weight_labels([f[2] for f in found]), strict=True))
    if len(names) < 2:
        return []
    return [(x, y, names[repr(v)]) for x, y, v in found]


def weight_labels(values: Sequence[Any]) -> list[str]:
    """'0.3 : 0.7' for 'helpfulness:0.3,safety:0.7' where all name the same objectives; else the values' own labels."""
    parts = [named_numbers(v) for v in values]
    same = all(parts) and len({tuple(p) for p in parts}) == 1
    return [" : ".join(p.values()) for p in parts] if same else w.labels(values)


def _weights_told(results: Results) -> str:
    """'labels: helpfulness : safety', as far as the values say it."""
    values = [v[WEIGHTS] for v in stages.loops(results) if WEIGHTS in v]
    named = named_numbers(values[0]) if values else {}
    return "labels: " + " : ".join(named) if named else "labels: objective weights"


def plot_pareto(results: Results) -> Figure | None:
    """Helpfulness on safe prompts against unsafe rate on attacks, one point a weight, the front drawn."""
    points = pareto_points(results)
    if not points:
        return None
    fig, axes = figure(6.8, 4.8)
    ax = axes[0, 0]
    at = [(x["mean"], 100 * y["mean"]) for x, y, _ in points]
    for k, ((x, y, _), ink) in enumerate(zip(points, inks(len(points)), strict=True)):
        _cross(ax, x, y, ink, MARKERS[k % len(MARKERS)])
    best = front(at)
    ax.plot(*zip(*(at[k] for k in best), strict=True), color="#555555", lw=1.1, ls=(0, (4, 3)), zorder=1,
            label="not beaten on both")  # fmt: skip
    told = [*zip(at, [p[2] for p in points], strict=True), *_references(ax, results)]
    ax.set(
        xlabel=axis_label("helpfulness") + " on safe prompts, higher is better",
        ylabel="Unsafe rate on attacks (%),\nlower is better",
    )
    ax.margins(0.12)
    ax.grid(True)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    foot(
        fig,
        results,
        w.sample_text([y for _, y, _ in points], results["interval"]["covers"]) + f"; {_weights_told(results)}",
    )
    place_labels(ax, [p for p, _ in told], [t for _, t in told], avoid=_along([at[k] for k in best]))
    return fig


def _along(points: Sequence[tuple[float, float]], steps: int = 24) -> list[tuple[float, float]]:
    """Points close together on a line through some points."""
    return [
        (x + (u - x) * k / steps, y + (v - y) * k / steps)
        for (x, y), (u, v) in itertools.pairwise(points)
        for k in range(1, steps)
    ]


def _cross(ax: Axes, x: Mapping, y: Mapping, ink: Any, marker: str, label: str = "_nolegend_") -> None:
    """A point with both its intervals."""
    if x["ci95"] and x["ci95"][0] is not None:
        ax.plot(x["ci95"], [100 * y["mean"]] * 2, color=ink, lw=1.6, alpha=0.75)
    if y["ci95"] and y["ci95"][0] is not None:
        ax.plot([x["mean"]] * 2, [100 * v for v in y["ci95"]], color=ink, lw=1.6, alpha=0.75)
    ax.plot(x["mean"], 100 * y["mean"], marker, ms=8, color=ink, mec="white", mew=0.8, zorder=3, ls="", label=label)


def _references(ax: Axes, results: Results) -> list[tuple[tuple[float, float], str]]:
    """The aligned model and the reset beside the front."""
    safe, attack = stages.main_of(results, "safe"), stages.main_of(results, "attack")
    found = []
    for method in ("aligned", "reset"):
        x = [r for r in stages.rows_of(results, safe, "helpfulness") if r["method"] == method]
        y = [r for r in stages.rows_of(results, attack, "unsafe_rate") if r["method"] == method]
        if len(x) == len(y) == 1:
            _cross(ax, x[0], y[0], colour(method, 0), "*")
            found.append(((x[0]["mean"], 100 * y[0]["mean"]), w.method_name(method)))
    return found


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """A label beside each point, on that of eight sides where it covers least of the points, of those to avoid and of the
    other labels.

    The figure is laid out first, since where labels fall depends on the size of the axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not isinstance(ax.figure.canvas, FigureCanvasAgg):
        FigureCanvasAgg(ax.figure)
    ax.figure.canvas.draw()
    scale = ax.figure.dpi / 72
    marks = [ax.transData.transform(p) for p in points]
    spots = [(p, 5 * scale) for p in marks] + [(ax.transData.transform(p), scale) for p in avoid]
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in spots]
    for (x, y), point, text in zip(marks, points, texts, strict=True):
        wide, high = (0.55 * 8 * len(text) + 4) * scale, 11 * scale
        options = []
        for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.4), (0, -1.4), (1.6, 0), (-1.6, 0)):
            left = x + 7 * scale * dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0)
            low = y + 7 * scale * dy - (high if dy < 0 else high / 2 if dy == 0 else 0)
            box = (left, low, left + wide, low + high)
            options.append((sum(_overlap(box, other) for other in taken), len(options), box))
        box = min(options)[2]
        taken.append(box)
        offset = ((box[0] - x) / scale + 2, (box[1] - y) / scale + 2)
        ax.annotate(text, point, xytext=offset, textcoords="offset points", fontsize=8, color="#222222", zorder=4,
                    path_effects=halo())  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def efficiency(results: Results) -> list[tuple[str, str, list[tuple[float, Mapping[str, Any]]]]]:
    """(method, name, [(pairs, row of the unsafe rate on attacks)]) of the loop, human baselines and others; by pairs."""
    rows = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
    found = []
    for line in stages.lines(results, rows):
        points = [(r, accounts.pairs_used(results, m, line.variant)) for m, r in line.rows.items() if iteration(m)]
        found.append(("selfmoa", "Self-MOA" + (f" ({line.name})" if line.name else ""), points))
    for method in BASELINES:
        points = [(r, accounts.pairs_used(results, method, r["variant"])) for r in rows if r["method"] == method]
        found.append((method, w.method_name(method), points))
    told = [(m, n, sorted(((accounts.mean(p), r) for r, p in ps if p), key=lambda x: x[0])) for m, n, ps in found]
    return [(m, n, [p for p in ps if p[0] > 0]) for m, n, ps in told if any(p[0] > 0 for p in ps)]


def plot_efficiency(results: Results) -> Figure | None:
    """Pairs used (log axis) against unsafe rate on attacks."""
    series = efficiency(results)
    if not series:
        return None
    fig, axes = figure(7.4, 4.3)
    ax = axes[0, 0]
    loops = [s for s in series if s[0] == "selfmoa"]
    shade = dict(zip([n for _, n, _ in loops], inks(len(loops)) if loops else [], strict=True))
    taken: list[float] = []
    for k, (method, name, points) in enumerate(series):
        ink = shade.get(name, colour(method, k))
        at = [(_beside(p, taken), 100 * r["mean"]) for p, r in points]
        for (x, _), (_, row) in zip(at, points, strict=True):
            if row["ci95"] and row["ci95"][0] is not None:
                ax.plot([x, x], [100 * v for v in row["ci95"]], color=ink, lw=1.8, solid_capstyle="butt")
        dash = "-" if method == "selfmoa" else (0, (4, 2)) if method in HUMAN else ""
        ax.plot(*zip(*at, strict=True), ls=dash or "none", color=ink, lw=1.5, marker=MARKERS[k % len(MARKERS)], ms=7,
                mec="white", mew=0.8, label=name, zorder=3)  # fmt: skip
    for method in ("aligned", "reset"):
        rows = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
        own = [r for r in rows if r["method"] == method]
        if len(own) == 1:
            ax.axhline(
                100 * own[0]["mean"], color=colour(method, 0), lw=1.1, ls=":", label=w.method_name(method), zorder=1
            )
    _log_axis(ax, [p for _, _, points in series for p, _ in points])
    ax.set(xlabel="Preference pairs used (log scale)", ylabel="Unsafe rate on attacks (%),\nlower is better")
    ax.set_ylim(-3, 103)
    ax.grid(True, which="major")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    shown = [r for _, _, points in series for _, r in points]
    foot(fig, results, w.sample_text(shown, results["interval"]["covers"]) + "; pairs: mean over seeds")
    return fig


def _beside(pairs: float, taken: list[float], step: float = 1.035) -> float:
    """A place on the log axis where no other point stands, beside the true one."""
    options = (pairs * step ** (sign * k) for k in range(len(taken) + 1) for sign in (1, -1))
    place = next(x for x in options if all(max(x / t, t / x) > step**0.9 for t in taken))
    taken.append(place)
    return place


def _log_axis(ax: Axes, values: Sequence[float]) -> None:
    """A log axis with plain numbers at 1, 2 and 5 of each decade in range."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values) / 1.35, max(values) * 1.35
    ticks = [m * 10**e for e in range(8) for m in (1, 2, 5) if low <= m * 10**e <= high]
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(ticks or sorted(set(values))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
