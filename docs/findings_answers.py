"""What the results of one experiment say of a question of docs/findings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from findings_figures import sweep
from findings_table import CORRECTED, EXAMPLES, PGR, Question

from underseer.maths import differences
from underseer.maths.efficiency import Ratio, examples_ratio
from underseer.report import ablation
from underseer.report import compared as paired
from underseer.report import wording as w
from underseer.report.names import iteration, rounds

NOT_SHOWN = "not shown"
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
    """Of each student, or of the loop's last iterate, the change from the first to the last value of the swept parameter at which the
    score is defined: where there is no gap, no share of it is recovered.

    The interval is Student's t over the differences of the paired seeds, corrected by Holm's method over an experiment's changes.
    scored: 'pgr', or 'scores' for what the sweep scores.
    """
    swept = sweep(results)
    tables = {} if swept is None else {PGR: swept.gaps} if scored == PGR else swept.scores
    moves = []
    for metric, table in tables.items():
        kept = table[[m.startswith("w2s_") or bool(iteration(m)) for m in table["method"]]].dropna(subset="place")
        for line, rows in kept.groupby("line", sort=False):
            rows = rows.sort_values("place")
            rows = rows[[r["mean"] is not None for r in rows["row"]]]
            if len(rows) < 2:
                continue
            first, last = (
                dict(zip(r["seeds"], r["values"], strict=True)) for r in (rows["row"].iloc[0], rows["row"].iloc[-1])
            )
            both = [s for s in first if first[s] is not None and last.get(s) is not None]
            change = np.array([last[s] - first[s] for s in both])
            if len(both) > 1:
                ends = f"{line}, {metric.upper() if metric == PGR else w.spoken(metric)}, {swept.key} {rows['tick'].iloc[0]} to {rows['tick'].iloc[-1]}"
                moves.append(
                    (ends, metric, both, differences.paired_difference(change, np.zeros((2, len(both))), 1000))
                )
    p_values = [d.p for *_, d in moves]
    for (ends, metric, both, d), p, level in zip(
        moves, differences.holm(p_values), differences.holm_levels(p_values), strict=True
    ):
        test = {
            "metric": metric,
            "dataset": "",
            "difference": d.mean,
            "ci95_holm": list(d.interval(level)),
            "seeds": both,
        }
        least = d.smallest_effect(level)
        test |= {"smallest_effect": None if np.isnan(least) else least, "better": None}
        if p < differences.ALPHA:
            test["better"] = "a" if (d.mean > 0) != w.lower_is_better(metric) else "b"
        yield answer(ends, test)


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
            yield Answer(name, _fewer(ratio), _ratio(ratio), "")


def _fewer(ratio: Ratio) -> str:
    if ratio.ci95 and not ratio.ci95[0] <= 1 <= ratio.ci95[1]:
        return "fewer pairs" if ratio.ci95[0] > 1 else "more pairs"
    return NOT_SHOWN


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
        yield Answer(name, f"{right} of {len(methods)} covered", f"without the correction {raw} of {len(methods)}", "")
