"""What the results of one experiment say of a question of docs/findings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from findings_figures import sweep
from findings_table import CORRECTED, EXAMPLES, PGR, Question

from underseer.maths import differences
from underseer.maths.efficiency import Ratio, examples_ratio
from underseer.report import ablation
from underseer.report import compared as paired
from underseer.report import wording as w
from underseer.report.names import iteration, rounds
from underseer.report.selfmoa.stages import agrees

NOT_SHOWN = "not shown"
Z = 1.96  # half-widths of a normal 95 % interval in standard deviations
Results = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One comparison of an experiment: its name, the verdict of its corrected test ('better', ..., NOT_SHOWN), the difference with
    its interval, and the smallest difference that the test would have shown in four of five such runs."""

    name: str
    verdict: str
    difference: str
    smallest: str


def answers(results: Results, question: Question) -> list[Answer]:
    """What an experiment says of a question."""
    if question.pairs:
        return list(compared(results, question.pairs))
    special = {EXAMPLES: fewer, CORRECTED: covered}.get(question.scored)
    return list(special(results) if special else trends(results, question.scored))


def gap(results: Results) -> str | None:
    """The share of the gap that naive W2S recovers, with its interval; None where the experiment has none."""
    rows = [g for g in results["pgr"] if g["method"] == "w2s_naive"]
    row = next(iter(w.pick(rows, metric=w.primary(results))), None)
    return None if row is None else w.pgr_text(row)


def compared(results: Results, pairs: Sequence[tuple[str, str]]) -> Iterator[Answer]:
    """The tests of the results that compare these methods, the first with the second; 'last' is the last iterate of the loop, and
    a control that is a loop of its own stands for its last iterate."""
    wanted = [tuple(_last(results, method) for method in pair) for pair in pairs]
    loop = results["pipeline"] == "selfmoa"
    where = question_sets(results) if loop else {(w.main_dataset(results), w.primary(results))}
    labels = [] if loop else (results.get("label_quality") or {}).get("tests") or []
    for test in [*results["tests"]["rows"], *labels]:
        if (test["a"], test["b"]) in wanted and ((test["dataset"], test["metric"]) in where or test in labels):
            names = [w.method_name(test[side]) for side in "ab"]
            said = (
                f"labels by {names[0].lower()} against those by {names[1].lower()}"
                if test in labels
                else " against ".join(names)
            )
            metric = f", {w.spoken(test['metric'])} on {w.dataset_name(test['dataset'])}" if loop else ""
            yield answer(f"{said}{metric}{variant(test['variant_a'])}", test)


def _last(results: Results, method: str) -> str:
    """The last iterate of the loop, for 'last', or of a control by its name; of a method without iterates its own name."""
    whose = "selfmoa" if method == "last" else method
    iterates = {row["method"]: rounds(row["method"]) or (None, 0) for row in results["rows"]}
    own = [m for m, (name, _) in iterates.items() if name == whose]
    return max(own, key=lambda m: iterates[m][1], default=method)


def question_sets(results: Results) -> set[tuple[str, str]]:
    """Sets of prompts and metrics of the loop's comparisons."""
    metrics = {"attack": "unsafe_rate", "safe": "helpfulness", "borderline": "over_refusal"}
    return {(s["dataset"], metrics[s["role"]]) for s in results["sets"]}


def variant(values: Mapping[str, Any]) -> str:
    """The swept values of a comparison, in brackets."""
    own = {k: v for k, v in values.items() if k not in ablation.METHOD_KEYS}
    return f" ({', '.join(f'{k} {v}' for k, v in own.items())})" if own else ""


def answer(name: str, test: Mapping[str, Any]) -> Answer:
    verdict = NOT_SHOWN if test["better"] is None else paired.verdict(test)
    return Answer(name, verdict, paired.difference(test), paired.smallest(test))


def trends(results: Results, scored: str) -> Iterator[Answer]:
    """Of each student, or of the loop's last iterate, how its score changes along the swept parameter: from the first to the last
    value; the recovered share of the gap from the first value at which it is defined to every other one, since the gap may close.

    Student's t over paired seeds, corrected by Holm's method over an experiment's changes. scored: 'pgr', or 'scores' for what the
    sweep scores.
    """
    swept = sweep(results)
    tables = {} if swept is None else {PGR: swept.gaps} if scored == PGR else swept.scores
    moves = []
    for metric, table in tables.items():
        kept = table[[m.startswith("w2s_") or bool(iteration(m)) for m in table["method"]]].dropna(subset="place")
        for line, rows in kept.groupby("line", sort=False):
            rows = pd.concat([_common(kept, rows, swept.key), rows]).sort_values("place")
            rows = rows[[r["mean"] is not None for r in rows["row"]]]
            for k in range(1, len(rows)) if metric == PGR else ([len(rows) - 1] if len(rows) > 1 else []):
                first, last = rows["row"].iloc[0], rows["row"].iloc[k]
                seeds = [s for s in first["seeds"] if s in last["seeds"]]
                change = gap_change(results, first, last, seeds) if metric == PGR else score_change(first, last, seeds)
                if change is not None:
                    ticks = f"{rows['tick'].iloc[0]} to {rows['tick'].iloc[k]}"
                    name = PGR.upper() if metric == PGR else w.spoken(metric)
                    moves.append((f"{line}, {name}, {swept.key} {ticks}", metric, seeds, change))
    p_values = [d.p for *_, d in moves]
    levels = zip(moves, differences.holm(p_values), differences.holm_levels(p_values), strict=True)
    for (name, metric, seeds, d), p, level in levels:
        test = {"metric": metric, "dataset": "", "difference": d.mean, "ci95_holm": list(d.interval(level))}
        least = d.smallest_effect(level)
        test |= {"seeds": seeds, "smallest_effect": None if np.isnan(least) else least, "better": None}
        if p < differences.ALPHA:
            test["better"] = "a" if (d.mean > 0) != w.lower_is_better(metric) else "b"
        yield answer(name, test)


def _common(table: pd.DataFrame, line: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows from which several lines start: of the line's method, at values before its own, and without what tells the lines apart
    (judges that never err have no kind of error)."""

    def rest(row: Mapping) -> dict[str, Any]:
        return {k: v for k, v in row["variant"].items() if k != key}

    own = rest(line["row"].iloc[0])
    before = table[(table["method"] == line["method"].iloc[0]) & (table["place"] < line["place"].min())]
    return before[[rest(r).items() < own.items() for r in before["row"]]]


MANY = 1000
"""Test items that differ between two values of a swept parameter: enough to set no floor under a p-value."""


def score_change(first: Mapping, last: Mapping, seeds: Sequence[int]) -> differences.Difference | None:
    """The change of a score, from rows of results.json, over the seeds in which it is defined at both values; None below two.

    Both rows' intervals over items, taken as independent, are the least that it varies: equal changes of a few seeds are no certainty.
    """
    ends = [dict(zip(r["seeds"], r["values"], strict=True)) for r in (first, last)]
    change = np.array([b - a for a, b in ([e[s] for e in ends] for s in seeds) if None not in (a, b)])
    if len(change) < 2:
        return None
    items = sum(((r["ci95_items"][1] - r["ci95_items"][0]) / 2 / Z) ** 2 for r in (first, last))
    return differences.Difference(
        float(change.mean()), items, 0.0, float(change.var(ddof=1) / len(change)), len(change), MANY
    )


def gap_change(results: Results, first: Mapping, last: Mapping, seeds: Sequence[int]) -> differences.Difference | None:
    """The change of PGR, each the share of the mean gap that the mean gain is. (A seed's own share has no finite variance, where its gap is
    small.) None below two seeds."""
    if len(seeds) < 2:
        return None
    gains, gaps = zip(*(_gain_and_gap(results, row, seeds) for row in (last, first)), strict=True)
    mean, variance = differences.of_ratios(gains, gaps)
    return differences.Difference(mean, 0.0, 0.0, variance, len(seeds), MANY)


def _gain_and_gap(results: Results, row: Mapping, seeds: Sequence[int]) -> tuple[list[float], list[float]]:
    """Of a row of PGR in each seed: what the student gains on its supervisor, and what the ceiling does."""
    scores = []
    for method in (row["method"], "weak", "strong_ceiling"):
        (of,) = [
            r
            for r in results["rows"]
            if (r["method"], r["metric"], r["dataset"]) == (method, row["metric"], row["dataset"])
            and (r["variant"] == row["variant"] if method == row["method"] else agrees(r["variant"], row["variant"]))
        ]
        values = dict(zip(of["seeds"], of["values"], strict=True))
        scores.append(np.array([values[s] for s in seeds]))
    student, weak, ceiling = scores
    return student - weak, ceiling - weak


def fewer(results: Results) -> Iterator[Answer]:
    """Of each size of the loop, how many times as many pairs by people MODPO needs for as few unsafe answers to attacks.

    Above 1 the loop needs fewer pairs. The verdict is by the interval over seeds alone, of each size by itself.
    """
    rows = [r for r in results["rows"] if (r["dataset"], r["metric"]) == ("attack", "unsafe_rate")]
    people = {
        r["variant"]["n_human_pairs"]: r
        for r in rows
        if r["method"] == "human_modpo" and "n_human_pairs" in r["variant"]
    }
    loops = [r for r in rows if iteration(r["method"])]
    last = max((iteration(r["method"]) for r in loops), default=0)
    for row in (r for r in loops if iteration(r["method"]) == last):
        own = [p for p in results["pairs"] if iteration(p["method"]) and p["variant"] == row["variant"]]
        n = [sum(p["n_pairs"] for p in own if p["seed"] == seed) for seed in row["seeds"]]
        curves = [
            [people[size]["values"][people[size]["seeds"].index(seed)] for size in people] for seed in row["seeds"]
        ]
        if len(people) > 1 and all(n):
            ratio = examples_ratio(n, row["values"], list(people), curves)
            name = f"{w.method_name(row['method'])}, {np.mean(n):,.0f} pairs in all{variant(row['variant'])}"
            yield Answer(name, _fewer(ratio), _ratio(ratio) + _beside(ratio, results["published"]["pairs_factor"]), "")


def _fewer(ratio: Ratio) -> str:
    if ratio.ci95 and not ratio.ci95[0] <= 1 <= ratio.ci95[1]:
        return "fewer pairs" if ratio.ci95[0] > 1 else "more pairs"
    return NOT_SHOWN


def _beside(ratio: Ratio, published: float) -> str:
    """Whether the paper's factor is excluded: by the interval, or without one as far as each seed goes."""
    if ratio.ci95 is not None:
        return f", the paper's {published} lies outside" if not ratio.ci95[0] <= published <= ratio.ci95[1] else ""
    return (
        f", in each seed below the paper's {published}"
        if max(ratio.values) < published and max(ratio.bound) < 1
        else ""
    )


def _ratio(ratio: Ratio) -> str:
    """'0.61 times [0.32, 1.15]', or without an interval what each seed says: '0.40, at least 2.10, 0.92 times'."""
    if ratio.mean is not None and ratio.ci95 is not None:
        return f"{ratio.mean:.2f} times [{ratio.ci95[0]:.2f}, {ratio.ci95[1]:.2f}]"
    words = {0: "", 1: "at least ", -1: "at most "}
    return ", ".join(f"{words[b]}{v:.2f}" for v, b in zip(ratio.values, ratio.bound, strict=True)) + " times"


def covered(results: Results) -> Iterator[Answer]:
    """Of each set of attacks, of how many methods the interval of the training judge's rate holds the oracle's: corrected, and as it is."""
    rows = {(r["dataset"], r["metric"], r["method"]): r for r in results["rows"] if not r["variant"]}
    for dataset in dict.fromkeys(d for d, metric, _ in rows if metric.endswith("_corrected")):
        counts, methods = {}, []
        for metric in ("unsafe_rate_training_judge_corrected", "unsafe_rate_training_judge"):
            methods = [m for d, name, m in rows if (d, name) == (dataset, metric) and rows[d, name, m]["ci95"]]
            truths = [rows[dataset, "unsafe_rate", m]["mean"] for m in methods]
            ends = [rows[dataset, metric, m]["ci95"] for m in methods]
            counts[metric] = sum(low <= truth <= high for truth, (low, high) in zip(truths, ends, strict=True))
        right, raw = counts.values()
        name = f"unsafe rate on {w.dataset_name(dataset)}, {w.plural(len(methods), 'method')}"
        without = f"without the correction {raw} of {len(methods)}{off(results, dataset)}"
        yield Answer(name, f"{right} of {len(methods)} covered", without, "")


def off(results: Results, dataset: str) -> str:
    """How far rates are from the oracle's on the answers that nobody labelled, mean over seeds and methods, in words."""
    known = [r for r in (results.get("label_sample") or {}).get("off", []) if r["dataset"] == dataset]
    if not known:
        return ""
    judge, corrected = (100 * float(np.mean([r[side] for r in known])) for side in ("judge", "corrected"))
    return f"; on answers without a label the judge's rate is off by {judge:.1f} points, the corrected one by {corrected:.1f}"
