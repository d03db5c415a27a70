"""What the numbers say, in sentences: 'better' and 'worse' only where a paired test says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from underseer.report import compared, links
from underseer.report import wording as w
from underseer.report.selfmoa import headline as loop
from underseer.report.selfmoa import stages

Results = Mapping[str, Any]


def headline(results: Results) -> list[str]:
    """The sentences of a report's page, the scores first."""
    said = loop.headline(results) if results["pipeline"] == "selfmoa" else _weak_to_strong(results)
    return [f"Exploratory: {said[0]}", *said[1:]] if said and w.is_exploratory(results) else said


@dataclass(frozen=True)
class Number:
    """A number of the first screen: what it is, its value and its interval as shown, and the address of its rows."""

    label: str
    value: str
    interval: str
    rows: str


def first_screen(results: Results) -> tuple[str, list[Number]]:
    """One sentence and up to three numbers: the first comparison stated beforehand, where it began, where it ended, and what that cost
    or recovered; of a sweep its first, middle and last value."""
    primary = compared.primary(results)
    sentences = headline(results)[:1]
    if 0 < len(primary) <= 8:
        name = w.capital(compared.comparisons(primary)[0])
        sentences = [f"{name}: {compared.verdict(primary[0])}, {compared.difference(primary[0])}."]
    return "".join(sentences), _three(results)


def _three(results: Results) -> list[Number]:
    loop = results["pipeline"] == "selfmoa"
    if loop:
        rows = _loop_rows(results)
    else:
        main = w.pick(results["rows"], dataset=w.main_dataset(results), metric=w.primary(results))
        students = [r for r in main if r["method"].startswith("w2s_")]
        same = [r for r in students if students and r["method"] == students[0]["method"]]
        rows = _ends(same) if len(same) > 1 else [r for r in main if r["method"] == "weak"][:1] + same
    names = [w.lowered(n) for n in w.row_names(rows)]
    where = [f" on {w.dataset_name(r['dataset'])}" if loop else "" for r in rows]
    numbers = [
        _number(f"{w.METRICS[r['metric']]}{on}, {n}", w.with_interval(r, r["metric"]), r, r["metric"])
        for n, r, on in zip(names, rows, where, strict=True)
    ]
    gaps = [r for r in results["pgr"] if rows and _same(r, rows[-1])]
    return [*numbers, *(_number(f"Gap recovered, {names[-1]}", w.pgr_text(r), r, "pgr") for r in gaps[:1])][:3]


def _number(label: str, text: str, row: Mapping[str, Any], metric: str) -> Number:
    value, _, interval = text.partition(" ")
    return Number(label, value + " %" * (metric in w.PERCENT), interval, links.address(row, metric))


def _loop_rows(results: Results) -> list[Mapping[str, Any]]:
    """The rows of the three main numbers: unsafe rate of the reset and of the last iterate, and its helpfulness on safe prompts; of
    several variants the unsafe rate of the first, the middle and the last one."""
    rates = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
    lines = [line for line in stages.lines(results, rates) if line.last]
    if len(lines) > 1:
        return [line.rows[line.last] for line in _ends(lines)]
    if not lines:
        return []
    line = lines[0]
    helpful = stages.rows_of(results, stages.main_of(results, "safe"), "helpfulness")
    ends = [line.rows[m] for m in ("reset", line.last) if m in line.rows]
    return ends + [r for r in helpful if r["method"] == line.last][:1]


def _same(one: Mapping, other: Mapping) -> bool:
    return all(one[k] == other[k] for k in ("dataset", "metric", "method", "variant"))


def _ends(rows: Sequence[Any]) -> list[Any]:
    """The first, the middle and the last of several."""
    return [rows[k] for k in dict.fromkeys((0, len(rows) // 2, len(rows) - 1))]


def _weak_to_strong(results: Results) -> list[str]:
    metric = w.primary(results)
    rows = w.pick(results["rows"], dataset=w.main_dataset(results), metric=metric)
    if not rows:
        return []
    unit = " %" if metric in w.PERCENT else ""
    parts = [f"{n} {w.number(r['mean'], metric)}{unit}" for n, r in zip(w.row_names(rows), rows, strict=True)]
    toxic = "Mean toxicity of sampled continuations, lower is better"
    name = toxic if w.generates(results) else f"Mean {w.spoken(metric)}"
    said = [f"{name} ({w.sample_text(rows)}): {w.listing(parts)}."] if len(parts) <= 8 else []
    said += compared.stated(results)
    pgr = [r for r in w.pick(results["pgr"], dataset=rows[0]["dataset"], metric=metric) if r["method"] == "w2s_naive"]
    if len(pgr) == 1:
        note = f"; {pgr[0]['note']}." if pgr[0]["note"] else "."
        said.append(
            f"Performance gap recovered by naive W2S (labels of a single supervisor): {w.pgr_text(pgr[0])}{note}"
        )
    said += w.collapsed(rows)
    tests = [t for t in w.pick(results["tests"]["rows"], dataset=rows[0]["dataset"]) if t["a"].startswith("w2s_")]
    tests = tests if len(compared.primary(results)) > 8 else [t for t in tests if t.get("family") != "primary"]
    said += _verdicts([t for t in tests if t["b"] == "weak"], "the weak supervisor")
    return said + _verdicts([t for t in tests if t["b"] == "w2s_naive" and t["a"] != "w2s_naive"], "naive W2S")


def _verdicts(tests: Sequence[Mapping], other: str) -> list[str]:
    """Up to three sentences: better than, worse than, no difference from `other` shown, and how large each would have had to be."""
    names = w.row_names([{"method": t["a"], "variant": t["variant_a"]} for t in tests])
    groups: dict[Any, list[str]] = {"a": [], "b": [], None: []}
    for name, test in zip(names, tests, strict=True):
        least = "" if test["better"] else compared.smallest(test)
        groups[test["better"]].append(f"{name} ({least})" if least not in ("", w.DASH) else name)
    better, worse = (
        x.capitalize() for x in compared.ADJECTIVES.get(tests[0]["metric"] if tests else "", ("better", "worse"))
    )
    sentences = {
        "a": f"{better} than {other} by a paired test",
        "b": f"{worse} than {other} by a paired test",
        None: f"No difference from {other} is shown (in brackets: the smallest that four of five such runs would show)",
    }
    return [f"Secondary: {w.lowered(sentences[k])}: {w.listing(_few(v))}." for k, v in groups.items() if v]


def _few(names: Sequence[str], most: int = 6) -> list[str]:
    """Names, the last of too many counted only."""
    names = list(dict.fromkeys(names))
    return names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
