"""Paired tests as a page shows them: in sentences, and as tables. Only ``compare`` decides them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.rows import BOUNDS
from underseer.report.tabulate import Results, Table, flat, plain, table

ADJECTIVES = {
    "toxicity": ("less toxic", "more toxic"),
    "unsafe_rate": ("safer", "less safe"),
    "safety_score": ("safer", "less safe"),
    "helpfulness": ("more helpful", "less helpful"),
    "over_refusal": ("fewer refusals", "more refusals"),
}
"""What the method with the better, and the worse, value is called."""
ENDLESS = {"pgr", *(metric for metric, ends in BOUNDS.items() if math.inf in ends)}
"""Scores that may differ by more than 1."""


def verdict(test: Mapping[str, Any]) -> str:
    """What a paired test says of its first method: 'safer', 'less safe', or 'no difference shown'; of the gap between two judges,
    which is neither good nor bad, whether it moved."""
    if test["metric"] == w.GAP:
        return f"gap moved {'down' if test['difference'] < 0 else 'up'}" if test["better"] else "no difference shown"
    better, worse = ADJECTIVES.get(test["metric"], ("better", "worse"))
    return {"a": better, "b": worse, None: "no difference shown"}[test["better"]]


def difference(test: Mapping[str, Any]) -> str:
    """'+3.1 points [-0.5, +6.7]', or in the score's own unit: the interval at the level at which the comparison is tested,
    corrected for the number of comparisons, so that it holds zero exactly where no difference is shown. It ends where a
    difference of two such scores must."""
    most = math.inf if test["metric"] in ENDLESS else 1.0
    low, high = (max(-most, min(most, end)) for end in test.get("ci95_holm") or test["ci95"])
    return f"{_points(test, test['difference'])}{_unit(test)} [{_points(test, low)}, {_points(test, high)}]"


def missed(test: Mapping[str, Any]) -> str:
    """Of a test that shows no difference, how large it would have had to be: 'one below 13.1 points would be missed' (in more than one
    of five such runs); empty where a difference is shown, or where that was not computed."""
    if test["better"] or test.get("smallest_effect") is None:
        return ""
    least = smallest(test)
    return "one of any size would be missed" if least == "nothing" else f"one below {least} would be missed"


def smallest(test: Mapping[str, Any]) -> str:
    """The smallest difference that a test shows with 80 % power; 'nothing' where it lies beyond the score's range."""
    size = test.get("smallest_effect")
    if size is None:
        return w.DASH
    return "nothing" if size >= 1 and test["metric"] not in ENDLESS else _points(test, size).lstrip("+") + _unit(test)


def primary(results: Results) -> list[Mapping[str, Any]]:
    """The comparisons stated beforehand, those of weak labels last."""
    given = [*results["tests"]["rows"], *((results.get("label_quality") or {}).get("tests") or [])]
    return [t for t in given if t.get("family") == "primary"]


def comparisons(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is compared with what in each test: 'Naive W2S against weak supervisor', 'Labels by hard vote against labels by single
    supervisor', 'unsafe rate on attacks, Self-MOA, iteration 3 against safety reset'."""
    names = {s: w.row_names([{"method": t[s], "variant": t[f"variant_{s}"]} for t in tests]) for s in "ab"}
    several = len({(t["dataset"], t["metric"]) for t in tests if t["dataset"] != w.TRANSFER}) > 1
    clauses = []
    for a, b, test in zip(names["a"], names["b"], tests, strict=True):
        labels = "labels by " if test["dataset"] == w.TRANSFER else ""
        where = f"{w.spoken(test['metric'])} on {w.dataset_name(test['dataset'])}, " if several and not labels else ""
        clauses.append(f"{where}{labels}{w.lowered(a)} against {labels and 'those by '}{w.lowered(b)}")
    return clauses


def stated(results: Results) -> list[str]:
    """One sentence for the comparisons stated beforehand: of each the verdict and the difference at its corrected level, and where
    none is shown how large it would have had to be. None where there is no such comparison, or more than eight (of a sweep)."""
    tests = primary(results)
    if not 0 < len(tests) <= 8:
        return []
    shown = [t for t in tests if t["better"]]
    lines = []
    for name, test in zip(comparisons(tests), tests, strict=True):
        least = missed(test)
        lines.append(f"{name}: {verdict(test)}, {difference(test)}{f' ({least})' if least else ''}")
    start = f"Of {w.plural(len(tests), 'comparison')} stated beforehand and corrected together, {len(shown) or 'none'} "
    return [f"{start}{'shows' if len(shown) < 2 else 'show'} a difference. {w.capital('; '.join(lines))}."]


def _points(test: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:+z.1f}" if test["metric"] in w.PERCENT else f"{value:+z.3f}"


def _unit(test: Mapping[str, Any]) -> str:
    return " points" if test["metric"] in w.PERCENT else ""


def primary_tests(results: Results) -> Table | None:
    """The comparisons stated beforehand, those of the weak labels too."""
    rows = primary(results)
    lines = [{"Comparison": w.capital(c)} | line for c, line in zip(comparisons(rows), _lines(rows), strict=True)]
    caption = f"{results['tests']['rule']} {_TESTS}"
    return table(results, "primary_tests", "Primary comparisons", caption, lines, plain(rows), _of_a(rows))


_TESTS = "A - B with the interval at the level of its test; 'could show': the smallest difference that is shown in four of five cases."


def tests(results: Results) -> Table | None:
    """Paired tests between methods; of results that name primary ones, the secondary ones."""
    rows = [t for t in results["tests"]["rows"] if t.get("family") != "primary"]
    title, caption = "Paired tests", results["tests"]["rule"]
    if primary(results):
        title, caption = "Secondary comparisons", "All others, by the same rule, corrected among those of a data set."
    return _tests(results, "tests", title, caption, rows) if rows else None


def label_tests(results: Results) -> Table | None:
    """Secondary tests between the votes' labels."""
    rows = [t for t in (results.get("label_quality") or {}).get("tests") or [] if t.get("family") != "primary"]
    if not rows:
        return None
    caption = "The weak labels, paired by transfer item, by the same rule as the tests between methods."
    return _tests(results, "label_tests", "Secondary comparisons of the weak labels", caption, rows)


def _tests(results: Results, name: str, title: str, caption: str, rows: Sequence[Mapping]) -> Table:
    names = {s: w.row_names([{"method": r[s], "variant": r[f"variant_{s}"]} for r in rows]) for s in "ab"}
    lines = [
        {"Data": w.dataset_name(r["dataset"]), "Metric": w.METRICS.get(r["metric"], r["metric"]), "A": a, "B": b} | line
        for a, b, r, line in zip(names["a"], names["b"], rows, _lines(rows), strict=True)
    ]
    shown = pd.DataFrame(lines)
    shown = shown.drop(columns=[c for c in ("Data", "Metric") if shown[c].nunique() == 1])
    return table(results, name, title, f"{caption} {_TESTS}", shown, plain(rows), _of_a(rows))


def _of_a(rows: Sequence[Mapping]) -> list[dict[str, Any]]:
    """The result row of the first method of each test, as far as a link to its rows needs it."""
    return [{k: r[k] for k in ("dataset", "metric")} | {"method": r["a"], "variant": r["variant_a"]} for r in rows]


def _lines(rows: Sequence[Mapping]) -> list[dict[str, str]]:
    """What each test says."""
    return [
        {"A - B": difference(r), "p": w.p_text(r["p"]), "p (Holm)": w.p_text(r["p_holm"])}
        | {"A is": verdict(r), "Could show": smallest(r)}
        for r in rows
    ]


MOST_SEEDS = 4
"""Up to so many seeds each is shown with its own interval."""


def seeds(results: Results) -> Table | None:
    """Every training on the scores of the primary comparisons: each seed's value, and of few seeds its own interval."""
    asked = dict.fromkeys((t["dataset"], t["metric"]) for t in primary(results) if t["dataset"] != w.TRANSFER)
    rows = [r for d, m in asked for r in w.pick(results["rows"], dataset=d, metric=m) if r["mean"] is not None]
    known = sorted({s for r in rows for s in r["seeds"]})
    if not 1 < len(known) <= w.EACH:
        return None
    lines, first = [], []
    for dataset, metric in asked:
        own = [r for r in rows if (r["dataset"], r["metric"]) == (dataset, metric)]
        first += own
        for name, row in zip(w.row_names(own), own, strict=True):
            line = {"Score": f"{w.metric_head(metric)}, {w.dataset_name(dataset)}", "Method": name}
            line |= {f"Seed {s}": _seed(row, s, metric, len(known) <= MOST_SEEDS) for s in known}
            lines.append(line | {"Median": w.number(row["median"], metric), "Mean": w.number(row["mean"], metric)})
    shown = pd.DataFrame(lines)
    shown = shown.drop(columns="Score") if shown["Score"].nunique() == 1 else shown
    if "Score" in shown:
        shown["Score"] = shown["Score"].where(~shown["Score"].duplicated(), "")
    caption = (
        "Every training on the scores of the primary comparisons. In brackets, of shares and few seeds: Wilson's 95 % interval of "
        f"this one model on new items. {w.COLLAPSED}."
    )
    return table(results, "seeds", "Every training", caption, shown, flat(rows), first)


def _seed(row: Mapping, seed: int, metric: str, interval: bool) -> str:
    """'28.0† [20.1, 37.5]', the value of one seed."""
    if seed not in row["seeds"]:
        return w.DASH
    k = row["seeds"].index(seed)
    text = w.number(row["values"][k], metric) + "†" * (seed in (row.get("collapsed") or []))
    low, high = (row.get("seed_ci95") or {k: (None, None)})[k] if interval else (None, None)
    return text if low is None else f"{text} [{w.number(low, metric)}, {w.number(high, metric)}]"
