"""The figures of docs/findings.md."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from findings_table import CORRECTED, PGR, Question

from underseer.report import ablation, drawing, figures, tidy
from underseer.report import wording as w
from underseer.report.names import iteration
from underseer.report.selfmoa import figures as loop_figures
from underseer.report.selfmoa import tidy_judges

Results = Mapping[str, Any]
MARK = "Synthetic testbed. "


def sweep(results: Results) -> ablation.Sweep | None:
    """The swept parameter of an experiment; of parameters that always change together the first stands for all of them."""
    variants = [r["variant"] for r in results["rows"]]
    every = [v for v in variants if len(v) == max(map(len, variants), default=0)]
    follows = set()
    for first, other in itertools.combinations(every[0] if every else (), 2):
        pairs = {(repr(v[first]), repr(v[other])) for v in every}
        if len(pairs) > 1 and all(len(set(side)) == len(pairs) for side in zip(*pairs, strict=True)):
            follows.add(other)

    def own(rows: Sequence[Mapping]) -> list[dict]:
        return [{**r, "variant": {k: v for k, v in r["variant"].items() if k not in follows}} for r in rows]

    return ablation.sweep({**results, "rows": own(results["rows"]), "pgr": own(results["pgr"])})


def draw(question: Question, experiments: Mapping[str, Results], file: Path) -> bool:
    """The figure of a question; False where there is nothing to draw."""
    drawing.set_style()
    sweeps = {n: s for n, r in experiments.items() if not question.pairs and (s := sweep(r))}
    if question.scored == CORRECTED:
        (results,) = experiments.values()
        fig = loop_figures.trusted(tidy_judges.trusted(results))
    elif sweeps:
        drawn = [([s.gaps], f"PGR, {n}") for n, s in sweeps.items() if len(s.gaps)] if question.scored == PGR else []
        if len(sweeps) == 1:
            (only,) = sweeps.values()
            fig = figures.sweep(only.panels, only.head)
        else:
            # of a loop helpfulness beside safety; a task of W2S has one score
            fig = stacked(drawn or [([apart(r) for r in s.scores.values()][:2], n) for n, s in sweeps.items()])
    else:
        fig = stacked([([scored(r, question)], n) for n, r in experiments.items()])
    if fig is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(file, dpi=110, metadata={"Software": None})
    return True


def scored(results: Results, question: Question):
    """The methods that are compared, on the metric that the comparisons are about; of the loop and its controls every round."""
    loop = results["pipeline"] == "selfmoa"
    rows = tidy.rows(results, metric="unsafe_rate", dataset="attack") if loop else tidy.scores(results)
    asked = {method for pair in question.pairs for method in pair}
    return rows[[m in asked or bool(iteration(m)) or m.rsplit("_", 1)[0] in asked for m in rows["method"]]]


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a sweep; a method that no value of the key changes stands there once."""
    same = rows.groupby("method")["values"].transform(lambda values: values.map(repr).nunique() == 1)
    named = rows.assign(name=rows["line"].where(same, rows["name"]))
    return named[~(same & rows.duplicated("method"))]


def stacked(panels: Sequence[tuple[list[pd.DataFrame], str]]):
    """A row of panels an experiment, one a score: every line with its interval and seeds."""
    panels = [(scores, title) for scores, title in panels if len(scores[0])]
    if not panels:
        return None
    heights = [0.34 * len(scores[0]) + 0.7 for scores, _ in panels]
    columns = max(len(scores) for scores, _ in panels)
    fig, axes = drawing.canvas(3.5 + 3.9 * columns, sum(heights) + 0.5, columns, len(panels), height_ratios=heights)
    for line, (scores, title) in zip(axes, panels, strict=True):
        gap = title.startswith("PGR")
        line[0].set_title(title, fontsize=9)
        for ax, rows in zip(line, scores, strict=True):
            rows = rows.assign(text=[w.pgr_text(r) for r in rows["row"]]) if gap else rows
            figures.forest(ax, rows, *([drawing.limited(rows)] if gap else []))
            ax.set_xlabel("Performance gap recovered (no unit)" if gap else figures.axis_label(rows["metric"].iloc[0]))
            if gap:
                ax.set_xlim(*drawing.limited(rows))
        for ax in line[1:]:  # the names stand at the first
            ax.set_yticks([])
    foots = [scores[0].attrs.get("foot", "") for scores, _ in panels]
    first = panels[0][0][0].copy()
    first.attrs = {"foot": foots[0].rstrip(". ")}
    if len(set(foots)) > 1:  # samples differ: each panel says its own
        marked = [foot.startswith(MARK) for foot in foots]
        first.attrs = {"foot": MARK.rstrip(". ") if all(marked) else ""}
        for ax, (_, title), foot in zip(axes[:, 0], panels, foots, strict=True):
            ax.set_title(f"{title}. {foot.removeprefix(MARK)}", fontsize=8)
    return drawing.finish(fig, first)
