"""Names, numbers and sentences of a report, all made from results.json."""

from __future__ import annotations

import re
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
    lowered,
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
    "lowered",
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

_GGUF = re.compile(r"\bgguf:(\w+):")
"""In the fingerprint of a model that was dequantised (`models.specs.fingerprint`)."""

GAP = "unsafe_rate_judge_gap"
"""Unsafe rate by the training judge minus that by the reporting judge."""


def is_rehearsal(results: Mapping[str, Any]) -> bool:
    """Whether the results are those of a rehearsal."""
    return bool(results["provenance"].get("rehearsal"))


def is_exploratory(results: Mapping[str, Any]) -> bool:
    """Whether a notebook run by hand made the results."""
    return bool(results["provenance"].get("exploratory"))


def quantised(results: Mapping[str, Any]) -> list[str]:
    """Models that were dequantised from a gguf file, by the parameters that name them: 'target model: Q4_1 dequantised'."""
    hashes = [h for stages in results["provenance"].get("inputs", {}).values() for h in stages.values()]
    kinds = {(name, kind[1]) for each in hashes for name, value in each.items() if (kind := _GGUF.search(str(value)))}
    return [f"{name.replace('_', ' ')}: {kind} dequantised" for name, kind in sorted(kinds)]


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


def primary(results: Mapping[str, Any]) -> str:
    """The metric that headline, tests and the first figure are about: accuracy, or toxicity."""
    return results.get("primary_metric", "accuracy")


def generates(results: Mapping[str, Any]) -> bool:
    """Whether models wrote continuations, rather than classified."""
    return primary(results) == "toxicity"


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


def pgr_text(row: Mapping[str, Any] | None, endless: str = "(no finite interval)") -> str:
    """PGR as shown: '0.49 [0.41, 0.55]', 'undefined', or the value with `endless` where there is no finite interval."""
    if row is None:
        return DASH
    if row["mean"] is None:
        return "undefined"
    if not row["ci95"]:
        return f"{row['mean']:.2f} {endless}"
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
    """'3 seeds, 4,500 test items; 95 % intervals over seeds and test items', or '120 test questions with 900 rows'; where methods have
    more seeds than others '6 to 10 seeds, 9,000 to 15,000 test items'."""
    counts = sorted({len(r["seeds"]) for r in rows if r["seeds"]})
    ends = [[r for r in rows if len(r["seeds"]) == k] for k in dict.fromkeys(counts[:1] + counts[-1:])]
    unit = rows[0].get("unit", "items") if rows else "items"
    held = _between([max(r.get("n_rows", 0) for r in part) for part in ends])
    tail = f"; 95 % intervals over {covers.replace('test ', f'{noun} ')}" if covers else ""
    items = _between([max(r["n_items"] for r in part) for part in ends])
    size = f"{items} {noun} {unit}" + (f" with {held} rows" if held != "0" else "")
    return f"{_between(counts)} seed{'s' * (counts != [1])}, {size}{tail}"


def _between(counts: Sequence[int]) -> str:
    """'9,000 to 15,000', or the one number that there is."""
    ends = dict.fromkeys((min(counts, default=0), max(counts, default=0)))
    return " to ".join(f"{n:,}" for n in ends)


def listing(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def collapsed(rows: Sequence[Mapping]) -> list[str]:
    """One sentence that names the collapsed seeds of rows; none where no seed collapsed."""
    lost = [(n, r["collapsed"]) for n, r in zip(row_names(rows), rows, strict=True) if r.get("collapsed")]
    named = [f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in lost]
    rule = (
        "its rate is nearer to the start's, without learning, than to the median of the other seeds, which lies outside its own "
        "95 % interval"
    )
    return [f"Training collapsed, by a stated rule ({rule}), of {listing(named)}. {COLLAPSES}"] if named else []


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
    given = known_seeds(results)
    if not given.get("values"):
        return ""
    where = f" ({given['choices']})" if given.get("choices") else ""
    tail = f"; settings were chosen on tuning seeds {_span(given['tuned_on'])}{where}" if given.get("tuned_on") else ""
    return f"{capital(str(given.get('set') or 'these'))} seeds {_span(given['values'])}{tail}."


def known_seeds(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """What results say of their seeds: set, values, tuned_on, choices; empty where they say nothing."""
    given = results.get("seeds") or (results.get("provenance") or {}).get("seeds")
    return given if isinstance(given, Mapping) else {}


def _span(seeds: Sequence[int]) -> str:
    """'10 to 17', or '0, 3 and 5'."""
    seeds = sorted(int(s) for s in seeds)
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else listing([str(s) for s in seeds])


def bucket(dataset: str) -> str:
    """'[0, 0.25)' of 'test, prompt toxicity [0, 0.25)'."""
    return dataset.rpartition("prompt toxicity ")[2]
