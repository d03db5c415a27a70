"""Figure 1 of the paper: the loop as boxes and arrows, with the counts of this run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from underseer.maths import modpo
from underseer.report import tidy
from underseer.report import wording as w
from underseer.report.drawing import colour, finish
from underseer.report.names import iteration
from underseer.report.selfmoa import accounts, stages
from underseer.report.selfmoa.stages import Line, Results, agrees

Box = tuple[float, float, float, float]
"""Left, bottom, width, height, in the units of the axes (100 x 46)."""

BOXES: dict[str, tuple[str, Box]] = {
    "aligned": ("Aligned model", (1, 28, 20, 15)),
    "reset": ("Safety reset", (1, 4, 20, 15)),
    "red_team": ("Red team", (28, 28, 20, 15)),
    "judges": ("Answers, judged", (53, 28, 20, 15)),
    "pairs": ("Preference pairs", (78, 28, 21, 15)),
    "align": ("Alignment (MODPO)", (78, 4, 21, 15)),
    "iterate": ("New iterate", (45, 4, 24, 15)),
}
"""Each box: its title and its place."""


def pipeline(results: Results) -> Figure | None:
    """The loop of the first variant; numbers separated by dots are those of its iterations."""
    rows = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
    lines = stages.lines(results, rows)
    if not lines or not lines[0].last:
        return None
    line = lines[0]
    fig = Figure(figsize=(6.9, 4.6), layout="constrained")
    ax = fig.subplots()
    ax.set(xlim=(0, 100), ylim=(0, 46))
    ax.axis("off")
    notes = _notes(results, line)
    inks = {"aligned": colour("aligned", 0), "reset": colour("reset", 0), "iterate": colour("selfmoa", 0)}
    for name, (title, box) in BOXES.items():
        if name != "reset" or "reset" in line.rows:
            _box(ax, box, title, notes[name], inks.get(name, "#555555"))
    _arrows(ax, with_reset="reset" in line.rows, again=iteration(line.last) > 1)
    variant = f"; variant: {line.name}" if line.name else ""
    seeds = w.sample_text(list(line.rows.values())).split(",")[0]
    text = f"{seeds}, means; a dot separates iterations; unsafe: share of answers to attacks by the reporting judge{variant}"
    return finish(fig, tidy.footed(results, pd.DataFrame(), text))


def _box(ax: Axes, box: Box, title: str, notes: Sequence[str], ink: str) -> None:
    x, y, wide, high = box
    ax.add_patch(
        FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0,rounding_size=1.4", fc="#F6F8FA", ec=ink, lw=1.6)
    )
    middle, top, below = x + wide / 2, y + high, {"ha": "center", "va": "top"}
    ax.text(middle, top - 2.2, title, fontsize=8.5, fontweight="bold", color="#222222", **below)
    text = "\n".join(textwrap.fill(note, round(1.35 * wide)) for note in notes)
    ax.text(middle, top - 6.2, text, fontsize=7, color="#333333", linespacing=1.3, **below)


def _arrows(ax: Axes, *, with_reset: bool, again: bool) -> None:
    style = {"arrowstyle": "-|>", "lw": 1.5, "color": "#333333", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}

    def arrow(start: tuple[float, float], end: tuple[float, float], shape: str = "arc3") -> None:
        ax.annotate("", end, start, arrowprops={**style, "connectionstyle": shape})

    if with_reset:
        arrow((11, 28), (11, 19))
        arrow((21, 14), (31, 28), shape="angle,angleA=0,angleB=90,rad=6")
    else:
        arrow((21, 35.5), (28, 35.5))
    arrow((48, 35.5), (53, 35.5))
    arrow((73, 35.5), (78, 35.5))
    arrow((88.5, 28), (88.5, 19))
    arrow((78, 11.5), (69, 11.5))
    if again:
        arrow((45, 11.5), (38, 28), shape="angle,angleA=180,angleB=90,rad=6")
        ax.text(37.2, 14.5, "next\niteration", ha="right", va="center", fontsize=7, color="#555555")


def _notes(results: Results, line: Line) -> dict[str, list[str]]:
    """What stands in each box: counts, means over seeds."""
    rate = {m: f"unsafe {w.number(r['mean'], 'unsafe_rate')} %" for m, r in line.rows.items()}
    iterates = [m for m in line.rows if iteration(m)]
    fates = (results.get("attacks") or {}).get("fate", [])
    fate = [f for f in fates if f["variant"] == line.variant] or [f for f in fates if not f["variant"]]
    own = [[p for p in results["pairs"] if p["method"] == m and agrees(p["variant"], line.variant)] for m in iterates]
    rates = [w.number(line.rows[m]["mean"], "unsafe_rate") for m in iterates]
    kinds = {m: accounts.mean([p[f"n_{m}"] for ps in own for p in ps if p.get(f"n_{m}") is not None]) for m in _SETS}
    mix = [f"{m} {v:,.0f}" for m, v in kinds.items() if v is not None]
    training = [j["name"] for j in results["judges"] if j["role"] == "training"]
    return {
        "aligned": [rate["aligned"]] if "aligned" in rate else [],
        "reset": ["tuned on unsafe answers", *([rate["reset"]] if "reset" in rate else [])],
        "red_team": ["asked", _series(fate, "asked"), "succeeded", _series(fate, "successes")] if fate else [],
        "judges": ["helpfulness and safety", *w.labels(list(dict.fromkeys(training)))[:2]],
        "pairs": [*_counted(own), *filter(None, (", ".join(mix[:2]), ", ".join(mix[2:])))],
        "align": _objectives(next((p for ps in own for p in ps), {})),
        "iterate": ["unsafe, %", " · ".join(rates)],
    }


def _objectives(pairs: Mapping[str, Any]) -> list[str]:
    """What orders the pairs, and what makes their margin; nothing where the results do not say."""
    if not (pairs.get("ordering") and pairs.get("objective_weights")):
        return []
    objectives = modpo.parse_weights(pairs["objective_weights"], modpo.objective(pairs["ordering"]))
    margin = f"{', '.join(objectives.others)} as the margin" if objectives.others else "without a margin"
    return [f"ordered by {pairs['ordering'].replace('_', ' ')},", margin]


_SETS = ("attack", "safe", "borderline")


def _series(fate: Sequence[dict], key: str) -> str:
    return " · ".join(f"{f[key] / f['n_seeds']:,.0f}" for f in fate)


def _counted(own: Sequence[Sequence[dict]]) -> list[str]:
    def series(key: str) -> str:
        means = [accounts.mean([p[key] for p in ps if p.get(key) is not None]) for ps in own]
        return " · ".join(w.DASH if m is None else f"{m:,.0f}" for m in means) if any(means) else ""

    kept, made = series("n_pairs"), series("n_candidates")
    return ([f"kept {kept}"] if kept else []) + ([f"of {made}"] if made else [])
