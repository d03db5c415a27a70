"""Names, numbers and sentences of a report, all made from results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from underseer.report.names import (
    DIGITS,
    METHODS,
    METRICS,
    PERCENT,
    SCORES,
    dataset_name,
    labels,
    lower_is_better,
    method_name,
    method_parts,
    row_names,
    short,
    spoken,
)

__all__ = [
    "METHODS",
    "SCORES",
    "dataset_name",
    "labels",
    "lower_is_better",
    "method_name",
    "method_parts",
    "row_names",
    "short",
    "spoken",
]

QUESTIONS = {
    "w2s": "Does a strong model that is fine-tuned only on a weaker model's labels do better than its supervisor, "
    "and how much of the gap to a strong model fine-tuned on the truth (the ceiling) does it recover?",
    "selfmoa": "Can a small chat model whose safety was removed become safe again from automated judges alone, and stay "
    "helpful: attacked by red-team models, judged, and aligned on its own answers, again and again?",
}

TASKS = {
    "safety": "Safety: classify a prompt as safe or unsafe.",
    "legal": "Legal reasoning: is a clause of a privacy policy relevant to a question?",
    "toxicity": "Toxicity: continue a prompt without toxic text.",
    "self-alignment": "Self-alignment: answer attacks safely and ordinary prompts helpfully.",
}

PAPERS = {
    "w2s": "A Pilot Study of Weak-to-Strong Generalization in Safety, Toxicity, and Legal Reasoning (arXiv 2410.12621)",
    "selfmoa": "Can Safety Emerge from Weak Supervision? A Systematic Analysis of Small Language Models (arXiv 2603.07017)",
}

SYNTHETIC = (
    "Synthetic testbed. Prompts, labels and base models come from a small generated world in which the truth is known. "
    "These numbers are no reproduction of a published number."
)

REHEARSAL = (
    "Rehearsal. Tiny models with random weights and a few rows took the place of the real ones, to show that everything "
    "runs. These numbers mean nothing."
)

REHEARSAL_SHORT = "Rehearsal: these numbers mean nothing."

EXPLORATORY = (
    "Exploratory. A notebook run by hand made these numbers, perhaps with other code or parameters than the committed ones. They "
    "stand under no key and are no result until the saved notebook is run again under one."
)

EXPLORATORY_SHORT = "Exploratory: made by hand, no kept result."

SYNTHETIC_SHORT = "Synthetic testbed: no reproduction of a published number."

DASH = "–"

TRANSFER = "transfer"
"""Data set of the weak labels."""

EACH = 8
"""Up to so many seeds a table shows each."""

COLLAPSES = (
    "Means include it. Where one training in ten collapses, the 95 % interval of a mean over 3 to 8 seeds holds the truth in 78 to 94 % "
    "of cases only: look at every seed."
)
"""What a collapse does to intervals, as simulated (`maths.stats`)."""

COLLAPSED = "†: a training that collapsed, by the rule stated above"
"""What the dagger of `each_seed` means."""

GAP = "unsafe_rate_judge_gap"
"""Unsafe rate by the training judge minus that by the reporting judge."""


def is_rehearsal(results: Mapping[str, Any]) -> bool:
    """Whether the results are those of a rehearsal."""
    return bool(results["provenance"].get("rehearsal"))


def is_exploratory(results: Mapping[str, Any]) -> bool:
    """Whether a notebook run by hand made the results."""
    return bool(results["provenance"].get("exploratory"))


def mark(results: Mapping[str, Any]) -> str:
    """What the numbers of an exploratory run, of a rehearsal, or of the testbed are marked with; empty for others."""
    kind = REHEARSAL_SHORT if is_rehearsal(results) else SYNTHETIC_SHORT if results["synthetic"] else ""
    return " ".join(filter(None, (EXPLORATORY_SHORT if is_exploratory(results) else "", kind)))


def foot_mark(results: Mapping[str, Any]) -> str:
    """The mark at the beginning of a figure's foot."""
    exploratory = "Exploratory. " if is_exploratory(results) else ""
    if is_rehearsal(results):
        return f"{exploratory}{REHEARSAL_SHORT} "
    return exploratory + ("Synthetic testbed. " if results["synthetic"] else "")


def plural(n: int, noun: str) -> str:
    """'1 seed', '3 seeds'."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def capital(text: str) -> str:
    """Text with its first letter raised."""
    return text[:1].upper() + text[1:]


def spaced(text: str) -> str:
    """A text behind a space, for the end of a caption; empty where there is none."""
    return f" {text}" if text else ""


def primary(results: Mapping[str, Any]) -> str:
    """The metric that headline, tests and the first figure are about: accuracy, or toxicity."""
    return results.get("primary_metric", "accuracy")


def generates(results: Mapping[str, Any]) -> bool:
    """Whether models wrote continuations, rather than classified."""
    return primary(results) == "toxicity"


def kind(results: Mapping[str, Any]) -> str:
    """Which tables, figures and sections there are: 'w2s', or 'w2s_generation'."""
    return results["pipeline"] + ("_generation" if generates(results) else "")


def number(value: float | None, metric: str, digits: int | None = None) -> str:
    """A score as shown: percent with one decimal, or the metric's decimals; a dash where there is none."""
    if value is None:
        return DASH
    if metric in PERCENT:
        return f"{100 * value:.{1 if digits is None else digits}f}"
    return f"{value:,.{DIGITS.get(metric, 3) if digits is None else digits}f}"


def with_interval(row: Mapping[str, Any] | None, metric: str) -> str:
    """'86.0 [84.1, 87.7]', without brackets where there is no interval, a dash where there is no number."""
    if row is None or row["mean"] is None:
        return DASH
    ci = row.get("ci95")
    ends = "" if not ci or ci[0] is None else f" [{number(ci[0], metric)}, {number(ci[1], metric)}]"
    return number(row["mean"], metric) + ends


def pgr_text(row: Mapping[str, Any] | None) -> str:
    """PGR as shown: '0.49 [0.41, 0.55]', 'undefined', or the value with 'no finite interval'."""
    if row is None:
        return DASH
    if row["mean"] is None:
        return "undefined"
    if not row["ci95"]:
        return f"{row['mean']:.2f} (no finite interval)"
    return f"{row['mean']:.2f} [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]"


def p_text(p: float | None) -> str:
    """'0.012', '< 0.001', or a dash."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def metric_head(metric: str) -> str:
    """Column head or axis label with the unit."""
    name = METRICS.get(metric, metric.replace("_", " "))
    return f"{name}, %" if metric in PERCENT else name


def main_dataset(results: Mapping[str, Any]) -> str | None:
    """The data set of the first row."""
    return results["rows"][0]["dataset"] if results["rows"] else None


def pick(rows: Sequence[Mapping], *, dataset: str | None = None, metric: str | None = None) -> list[Mapping]:
    """Rows of a data set and a metric, in order."""
    return [
        r for r in rows if (dataset is None or r["dataset"] == dataset) and (metric is None or r["metric"] == metric)
    ]


def sample_text(rows: Sequence[Mapping], covers: str | None = None, noun: str = "test") -> str:
    """'3 seeds, 4,500 test items; 95 % intervals over seeds and test items', or '120 test questions with 900 rows'."""
    seeds = sorted({s for r in rows for s in r["seeds"]})
    items = max((r["n_items"] for r in rows), default=0)
    unit = rows[0].get("unit", "items") if rows else "items"
    held = max((r.get("n_rows", 0) for r in rows), default=0)
    tail = f"; 95 % intervals over {covers.replace('test ', f'{noun} ')}" if covers else ""
    size = f"{items:,} {noun} {unit}" + (f" with {held:,} rows" if held else "")
    return f"{plural(len(seeds), 'seed')}, {size}{tail}"


def listing(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


ADJECTIVES = {
    "toxicity": ("less toxic", "more toxic"),
    "unsafe_rate": ("safer", "less safe"),
    "safety_score": ("safer", "less safe"),
    "helpfulness": ("more helpful", "less helpful"),
    "over_refusal": ("fewer refusals", "more refusals"),
}
"""What the method with the better, and the worse, value is called."""


def verdict(test: Mapping[str, Any]) -> str:
    """What a paired test says of its first method: 'safer', 'less safe', or 'no difference shown'; of the gap between two judges,
    which is neither good nor bad, whether it moved."""
    if test["metric"] == GAP:
        return f"gap moved {'down' if test['difference'] < 0 else 'up'}" if test["better"] else "no difference shown"
    better, worse = ADJECTIVES.get(test["metric"], ("better", "worse"))
    return {"a": better, "b": worse, None: "no difference shown"}[test["better"]]


def collapsed(rows: Sequence[Mapping]) -> list[str]:
    """One sentence that names the collapsed seeds of rows; none where no seed collapsed."""
    lost = [(n, r["collapsed"]) for n, r in zip(row_names(rows), rows, strict=True) if r.get("collapsed")]
    named = [f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in lost]
    rule = (
        "its rate is nearer to the start's, without learning, than to the median of the other seeds, which lies outside its own "
        "95 % interval"
    )
    return [f"Training collapsed, by a stated rule ({rule}), of {listing(named)}. {COLLAPSES}"] if named else []


def difference(test: Mapping[str, Any]) -> str:
    """'+3.1 points [-0.5, +6.7]', or in the score's own unit: the interval at the level at which the comparison is tested,
    corrected for the number of comparisons, so that it holds zero exactly where no difference is shown. It ends where a
    difference of two such scores must."""
    most = math.inf if test["metric"] == "perplexity" else 1.0
    low, high = (max(-most, min(most, end)) for end in test.get("ci95_holm") or test["ci95"])
    return f"{_points(test, test['difference'])}{_unit(test)} [{_points(test, low)}, {_points(test, high)}]"


def missed(test: Mapping[str, Any]) -> str:
    """Of a test that shows no difference, how large it would have had to be: 'one below 13.1 points would be missed' (in more than one
    of five such runs); empty where a difference is shown, or where that was not computed."""
    if test["better"] or test.get("smallest_effect") is None:
        return ""
    least = smallest(test)
    return "one of any size would be missed" if least == "nothing" else f"one below {least} would be missed"


def primary_tests(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons stated beforehand, those of weak labels last."""
    given = [*results["tests"]["rows"], *((results.get("label_quality") or {}).get("tests") or [])]
    return [t for t in given if t.get("family") == "primary"]


def compared(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is compared with what in each test: 'Naive W2S against weak supervisor', 'Labels by hard vote against labels by single
    supervisor', 'unsafe rate on attacks, Self-MOA, iteration 3 against safety reset'."""
    names = {s: row_names([{"method": t[s], "variant": t[f"variant_{s}"]} for t in tests]) for s in "ab"}
    several = len({(t["dataset"], t["metric"]) for t in tests if t["dataset"] != TRANSFER}) > 1
    found = []
    for a, b, test in zip(names["a"], names["b"], tests, strict=True):
        labels = "labels by " if test["dataset"] == TRANSFER else ""
        where = f"{spoken(test['metric'])} on {dataset_name(test['dataset'])}, " if several and not labels else ""
        found.append(f"{where}{labels}{_lower(a)} against {labels and 'those by '}{_lower(b)}")
    return found


def _lower(name: str) -> str:
    """A name within a sentence: 'hard vote', but 'W2S hard vote'."""
    return (
        name if name[1:2].isupper() or name[1:2].isdigit() or name.startswith("Self") else name[:1].lower() + name[1:]
    )


def stated(results: Mapping[str, Any], tests: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    """One sentence for the comparisons stated beforehand: of each the verdict and the difference at its corrected level, and where
    none is shown how large it would have had to be. None where there is no such comparison, or more than eight (of a sweep)."""
    tests = primary_tests(results) if tests is None else tests
    if not 0 < len(tests) <= 8:
        return []
    shown = [t for t in tests if t["better"]]
    lines = []
    for name, test in zip(compared(tests), tests, strict=True):
        least = missed(test)
        lines.append(f"{name}: {verdict(test)}, {difference(test)}{f' ({least})' if least else ''}")
    start = f"Of {plural(len(tests), 'comparison')} stated beforehand and corrected together, {len(shown) or 'none'} "
    return [f"{start}{'shows' if len(shown) < 2 else 'show'} a difference. {capital('; '.join(lines))}."]


def each_seed(row: Mapping[str, Any], metric: str) -> str:
    """'2.0, 28.0†, 10.0': the value of each seed, a dagger where its training collapsed; of more than eight the lowest, the median
    and the highest, and how many collapsed; empty of one."""
    values = [v for v in row["values"] if v is not None]
    lost = set(row.get("collapsed") or [])
    if len(values) < 2:
        return ""
    if len(values) > EACH:
        ends = [number(v, metric) for v in (min(values), row["median"], max(values))]
        return " / ".join(ends) + (f", {len(lost)}†" if lost else "")
    return ", ".join(
        f"{number(v, metric)}{'†' * (s in lost)}" for s, v in zip(row["seeds"], row["values"], strict=True)
    )


def seed_set(results: Mapping[str, Any]) -> str:
    """'Reporting seeds 10 to 17; settings were chosen on tuning seeds 0 to 9 (docs/tuning.md).', where results say so; else empty."""
    given = results.get("seeds") or (results.get("provenance") or {}).get("seeds")
    if not isinstance(given, Mapping) or not given.get("values"):
        return ""
    where = f" ({given['choices']})" if given.get("choices") else ""
    tail = f"; settings were chosen on tuning seeds {_span(given['tuned_on'])}{where}" if given.get("tuned_on") else ""
    return f"{capital(str(given.get('set') or 'these'))} seeds {_span(given['values'])}{tail}."


def _span(seeds: Sequence[int]) -> str:
    """'10 to 17', or '0, 3 and 5'."""
    seeds = sorted(int(s) for s in seeds)
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else listing([str(s) for s in seeds])


def smallest(test: Mapping[str, Any]) -> str:
    """The smallest difference that a test shows with 80 % power; 'nothing' where it lies beyond the score's range."""
    size = test.get("smallest_effect")
    if size is None:
        return DASH
    return "nothing" if size >= 1 and test["metric"] != "perplexity" else _points(test, size).lstrip("+") + _unit(test)


def _points(test: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:+.1f}" if test["metric"] in PERCENT else f"{value:+.3f}"


def _unit(test: Mapping[str, Any]) -> str:
    return " points" if test["metric"] in PERCENT else ""


def bucket(dataset: str) -> str:
    """'[0, 0.25)' of 'test, prompt toxicity [0, 0.25)'."""
    return dataset.rpartition("prompt toxicity ")[2]
