"""The figures of docs/findings.md."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from findings_table import CORRECTED, EXAMPLES, PGR, Question

from underseer.report import ablation, drawing, figures, marks, tidy
from underseer.report import wording as w
from underseer.report.names import iteration, rounds
from underseer.report.selfmoa import figures as loop_figures
from underseer.report.selfmoa import stages, tidy_judges
from underseer.report.selfmoa import tidy as loop_tidy

Results = Mapping[str, Any]
MARK = "Synthetic testbed. "


@dataclass(frozen=True)
class Panel:
    """Rows of one score, and the label of its axis; gap: of PGR."""

    rows: pd.DataFrame
    label: str
    gap: bool = False


def sweep(results: Results) -> ablation.Sweep | None:
    """The swept parameter of an experiment; parameters that always change together are one, by all their names."""
    variants = [r["variant"] for r in results["rows"]]
    every = [v for v in variants if len(v) == max(map(len, variants), default=0)]
    groups: dict[str, list[str]] = {}
    for first, other in itertools.combinations(every[0] if every else (), 2):
        pairs = {(repr(v[first]), repr(v[other])) for v in every}
        if len(pairs) > 1 and all(len(set(side)) == len(pairs) for side in zip(*pairs, strict=True)):
            if not any(first in own[1:] for own in groups.values()):
                groups.setdefault(first, [first]).append(other)
    joint = {k: " and ".join(own) for own in groups.values() for k in own}
    values = {(k, repr(v[k])): _value(v, own) for v in every for own in groups.values() for k in own}

    def own(rows: Sequence[Mapping]) -> list[dict]:
        return [
            {**r, "variant": {joint.get(k, k): values.get((k, repr(v)), v) for k, v in r["variant"].items()}}
            for r in rows
        ]

    return ablation.sweep({**results, "rows": own(results["rows"]), "pgr": own(results["pgr"])})


def _value(variant: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The value of parameters that change together: their own where all have the same, else each after the other."""
    unique = list({repr(variant[k]): variant[k] for k in keys}.values())
    return unique[0] if len(unique) == 1 else " and ".join(map(str, unique))


def draw(question: Question, experiments: Mapping[str, Results], file: Path) -> bool:
    """The figure of a question; False where there is nothing to draw."""
    drawing.set_style()
    fig = _figure(question, experiments)
    if fig is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(file, dpi=110, metadata={"Software": None})
    return True


def _figure(question: Question, experiments: Mapping[str, Results]):
    sweeps = {n: s for n, r in experiments.items() if not question.pairs and (s := sweep(r))}
    if question.scored == CORRECTED:
        (results,) = experiments.values()
        return corrected(results)
    if question.scored == EXAMPLES:
        (results,) = experiments.values()
        return pairs(results)
    if len(sweeps) == 1:
        (only,) = sweeps.values()
        return figures.sweep(only.panels, only.head)
    if sweeps:
        kept = {n: s for n, s in sweeps.items() if question.scored != PGR or len(s.gaps)}
        return stacked([along(n, s, gap=question.scored == PGR) for n, s in kept.items()])
    return stacked([(n, scored(r, question)) for n, r in experiments.items()])


def scored(results: Results, question: Question) -> list[Panel]:
    """The methods that are compared, of the loop and its controls every round: on safety, helpfulness and refusals, else on the primary
    metric; and the labels of the votes where these are compared."""
    asked = {method for pair in question.pairs for method in pair}
    results = _only(results, asked)
    if results["pipeline"] == "selfmoa":
        sets = [(stages.main_of(results, role), metric) for role, metric in loop_tidy.SCORED]
        tables = {d: tidy.rows(results, metric=m, dataset=d) for d, m in sets if d}
        return [
            Panel(t, f"{figures.axis_label(t['metric'].iloc[0])}\n{w.dataset_name(d)}")
            for d, t in tables.items()
            if len(t)
        ]
    rows = tidy.scores(results)
    panels = [Panel(rows, figures.axis_label(rows["metric"].iloc[0]))]
    labels = tidy.weak_labels(results)
    if "single" in asked and len(labels):
        label = f"Weak labels: {w.lowered(figures.axis_label(labels['metric'].iloc[0]))}"
        panels.append(Panel(labels, label))
    return panels


def _only(results: Results, asked: set[str]) -> Results:
    """The results of the methods that are asked for, each round of a loop's, and of the labels of their votes."""
    voted = asked | {m.removeprefix("w2s_") for m in asked}
    rows = [
        r for r in results["rows"] if iteration(r["method"]) or (rounds(r["method"]) or (r["method"], 0))[0] in asked
    ]
    labels = results.get("label_quality") or {"rows": [], "covers": None}
    return {
        **results,
        "rows": rows,
        "label_quality": {**labels, "rows": [r for r in labels["rows"] if r["method"] in voted]},
    }


def along(name: str, swept: ablation.Sweep, *, gap: bool) -> tuple[str, list[Panel]]:
    """The title and the panels of a sweep: where one method moves, the title names it and its rows are the values alone, after those
    of the parameters that tell its lines apart."""
    tables = [swept.gaps] if gap else list(swept.scores.values())
    fixed = set.intersection(*map(constant, tables))
    moves = tables[0][~tables[0]["line"].isin(fixed)]
    methods = dict.fromkeys(moves["method"])
    keys = dict.fromkeys(k for r in moves["row"] for k in r["variant"] if k != swept.key)
    others = [k for k in keys if len({repr(r["variant"].get(k)) for r in moves["row"]}) > 1]
    one = bool(others) and len(methods) == 1
    names = [w.method_name(m) for m in methods] if one else list(moves["line"].unique())
    panels = []
    for table in tables:
        ticks = [_tick(r["row"]["variant"], others, r["tick"]) for r in table.to_dict("records")]
        rows, metric = apart(table.assign(tick=ticks) if one else table, fixed, len(names) > 1), table["metric"].iloc[0]
        loop = any(map(iteration, rows["method"]))
        where = f"\n{w.dataset_name(table['dataset'].iloc[0])}" if loop else ""
        panels.append(Panel(rows, GAP if gap else figures.axis_label(metric) + where, gap))
        rows.attrs = next(iter(swept.scores.values())).attrs
    return f"{name}: {w.listing(names)}, by {w.listing([*(others if one else []), swept.key])}", panels


def _tick(variant: Mapping[str, Any], keys: Sequence[str], tick: str) -> str:
    """The values of some parameters, as far as a variant has them, and that of the swept one: 'flips, 0.17'."""
    return ", ".join([*(str(variant[k]).replace("_", " ") for k in keys if k in variant), str(tick)])


GAP = "Performance gap recovered (no unit)"


def constant(rows: pd.DataFrame) -> set[str]:
    """The lines of a sweep that no value of the key changes: models beside the students or the loop's last iterate."""
    same = rows.groupby("line")["values"].agg(lambda values: values.map(repr).nunique() == 1)
    asked = {r["line"] for r in rows.to_dict("records") if r["method"].startswith("w2s_") or iteration(r["method"])}
    return set(same[same].index) - asked | set(rows.loc[rows["place"].isna(), "line"])


def apart(rows: pd.DataFrame, fixed: set[str], several: bool) -> pd.DataFrame:
    """The rows of a sweep; of the methods that are fixed one each. several: values follow a method's name."""
    same, moved = rows["line"].isin(fixed), rows["name"] if several else rows["tick"]
    again = same & rows.assign(of=rows["values"].map(repr)).duplicated(["method", "of"])
    named = rows.assign(name=rows["line"].where(same, moved))
    return named[~again]


SHORT = 3
"""So many panels abreast have no room for intervals in numbers."""


def stacked(lines: Sequence[tuple[str, Sequence[Panel]]]):
    """A row of panels an experiment, one a score: every line with its interval and seeds."""
    lines = [(title, panels) for title, panels in lines if panels and len(panels[0].rows)]
    if not lines:
        return None
    heights = [0.34 * len(panels[0].rows) + 0.8 for _, panels in lines]
    columns = max(len(panels) for _, panels in lines)
    wide = 7.4 if columns == 1 else 9.8
    fig, axes = drawing.canvas(wide, sum(heights) + 0.5, columns, len(lines), height_ratios=heights)
    for row, (title, panels) in zip(axes, lines, strict=True):
        row[0].set_title(title, fontsize=9)
        for ax in row[len(panels) :]:
            ax.set_visible(False)
        for ax, panel in zip(row, panels, strict=False):
            _forest(ax, panel, short=columns >= SHORT)
        for ax, panel in zip(row[1:], panels[1:], strict=False):
            if list(panel.rows["method"]) == list(panels[0].rows["method"]):  # the names stand at the first
                ax.set_yticks([])
    return drawing.finish(fig, footed(axes, lines), gaps=_gaps(lines))


def _forest(ax: Any, panel: Panel, *, short: bool) -> None:
    rows, limits = panel.rows, marks.ENDLESS
    if panel.gap:
        rows, limits = rows.assign(text=[w.pgr_text(r) for r in rows["row"]]), marks.limited(rows)
    elif short:
        rows = rows.assign(text=rows["text"].str.partition(" [")[0])
    figures.forest(ax, rows, limits)
    ax.set_xlabel(panel.label)
    if panel.gap:
        ax.set_xlim(*limits)


def _gaps(lines: Sequence[tuple[str, Sequence[Panel]]]) -> pd.DataFrame | None:
    """The rows of PGR of a figure."""
    found = [panel.rows for _, panels in lines for panel in panels if panel.gap]
    return pd.concat(found, ignore_index=True) if found else None


def footed(axes: Any, lines: Sequence[tuple[str, Sequence[Panel]]]) -> pd.DataFrame:
    """Rows with what stands at the foot of the figure: the sample, and where samples differ only the mark, while each panel says its
    own."""
    feet = [[panel.rows.attrs.get("foot", "") for panel in panels] for _, panels in lines]
    every = [panel.rows for _, panels in lines for panel in panels]
    rows = pd.concat(
        [r[["values", *(["collapsed", "seeds"] if "collapsed" in r else [])]] for r in every], ignore_index=True
    )
    known = list(dict.fromkeys(foot for row in feet for foot in row))
    rows.attrs = {"foot": known[0].rstrip(". ")}
    if len(known) > 1:
        rows.attrs = {"foot": MARK.rstrip(". ") if all(foot.startswith(MARK) for foot in known) else ""}
        for line, (title, _), row in zip(axes, lines, feet, strict=True):
            for ax, foot in zip(line, row, strict=False):
                sample = textwrap.fill(foot.removeprefix(MARK).partition("; ")[0], 48)
                ax.set_title("\n".join(filter(None, (title if ax is line[0] else " ", sample))), fontsize=8)
        rows.attrs["foot"] += "; 95 % intervals over seeds and items"
    return rows


def pairs(results: Results):
    """Each score against the preference pairs that a model was taught: the last iterate of each size of the loop, and the baselines."""
    tables = {metric: loop_tidy.efficiency(results, role, metric) for role, metric in loop_tidy.SCORED}
    last = max((iteration(r["method"]) or 0 for r in results["rows"]), default=0)
    tables = {m: t[[iteration(x) in (None, last) for x in t["method"]]] for m, t in tables.items() if len(t)}
    if not tables:
        return None
    fig, axes = drawing.canvas(7.4, 0.9 + 2.4 * len(tables), rows=len(tables), sharex=True)
    for ax, (metric, rows) in zip(axes[:, 0], tables.items(), strict=True):
        loop = rows["kind"] == "loop"
        rows = rows.assign(line=rows["line"].where(~loop, rows["method"].map(w.method_name)))
        loop_figures.against_pairs(ax, rows, 1.08)
        ax.set_ylabel(figures.broken(figures.axis_label(metric)))
        beside(ax, rows[rows["pairs"].isna()])
    axes[-1, 0].set_xlabel(loop_figures.PAIRS)
    first = pd.concat(tables.values(), ignore_index=True)
    first.attrs = next(iter(tables.values())).attrs
    return drawing.finish(fig, first, legend=axes[0, 0], note="at the right: models before any pair")


def beside(ax: Any, rows: pd.DataFrame) -> None:
    """The intervals of models without pairs, at the end of the axis."""
    for k, row in enumerate(rows.to_dict("records")):
        marks.at_end(ax, 1.015 + 0.018 * k, row, drawing.colour(row["method"], 0), transform=ax.get_yaxis_transform())


def corrected(results: Results):
    """How the training judge does through the loop (above), and the rates of unsafe answers that it says, as they are and corrected by
    labelled answers, beside the oracle's (below, a panel a set of attacks)."""
    through = tidy_judges.trusted(results)
    sets = dict.fromkeys(r["dataset"] for r in results["rows"] if r["metric"].endswith("_corrected"))
    tables = {d: rates(results, d) for d in sets}
    if not len(through) or not tables:
        return loop_figures.trusted(through)
    tall = 0.42 * max(t["place"].nunique() for t in tables.values())
    fig, axes = drawing.canvas(8.6, 4.4 + tall, 2, 2, height_ratios=[3, 1.0 + tall])
    loop_figures.trusted_panels(axes[0], through)
    for ax, (dataset, rows) in zip(axes[1], tables.items(), strict=False):
        by_judge(ax, rows)
        ax.set(title=w.capital(w.dataset_name(dataset)), xlabel=figures.axis_label("unsafe_rate"), xlim=(-3, 103))
    for ax in axes[1, len(tables) :]:
        ax.set_visible(False)
    axes[1, 1].set_yticklabels([])
    axes[1, 0].legend(loc="best", fontsize=8)
    each = (results.get("label_sample") or {}).get("labels_each")
    by = f"; corrected by {each} labelled answers of each method, seed and set" if each else ""
    return drawing.finish(fig, through, note=f"below: 95 % intervals over {results['interval']['covers']}{by}")


RATES = {
    "unsafe_rate": ("Oracle, all answers", "#222222"),
    "unsafe_rate_training_judge_corrected": ("Training judge, corrected", "#CC79A7"),
    "unsafe_rate_training_judge": ("Training judge, as it is", "#D55E00"),
}
"""Who says how many answers are unsafe: name and colour."""


def rates(results: Results, dataset: str) -> pd.DataFrame:
    """The rate of unsafe answers of every method on a set by each of RATES, with place and tick (the method)."""
    rows = [r for metric in RATES for r in stages.rows_of(results, dataset, metric)]
    order = sorted({r["method"] for r in rows}, key=stages.order)
    table = tidy.frame(results, rows)
    return table.assign(place=table["method"].map(order.index), tick=table["method"].map(w.method_name))


def by_judge(ax: Any, rows: pd.DataFrame) -> None:
    """Rates of ``rates``, of each method by each judge below each other."""
    rows = rows.assign(values=[[]] * len(rows))
    parts = [(name, ink, rows[rows["metric"] == metric]) for metric, (name, ink) in RATES.items()]
    loop_figures.below_each_other(ax, parts)
    loop_figures.downwards(ax, rows.sort_values("place"))
