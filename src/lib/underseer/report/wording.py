"""Names, numbers and sentences of a report, all made from results.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

METHODS = {
    "weak": "Weak supervisor",
    "w2s_naive": "Naive W2S",
    "w2s_hard_vote": "W2S hard vote",
    "w2s_soft_vote": "W2S soft vote",
    "strong_ceiling": "Strong ceiling",
    "single": "Single supervisor",
    "hard": "Hard vote",
    "soft": "Soft vote",
}

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
    "brier": "Brier score",
    "ece": "ECE",
}

PERCENT = frozenset({"accuracy", "balanced_accuracy", "f1", "f1_macro", "precision", "recall", "auroc"})
"""Metrics shown in percent; the others are shown as they are."""

QUESTIONS = {
    "w2s": "Does a strong model that is fine-tuned only on a weaker model's labels do better than its supervisor, "
    "and how much of the gap to a strong model fine-tuned on the truth (the ceiling) does it recover?",
}

TASKS = {
    "safety": "Safety: classify a prompt as safe or unsafe.",
    "legal": "Legal reasoning: is a clause of a privacy policy relevant to a question?",
    "toxicity": "Toxicity: continue a prompt without toxic text.",
}

PAPERS = {
    "w2s": "A Pilot Study of Weak-to-Strong Generalization in Safety, Toxicity, and Legal Reasoning (arXiv 2410.12621)"
}

SYNTHETIC = (
    "Synthetic testbed. Prompts, labels and base models come from a small generated world in which the truth is known. "
    "These numbers are no reproduction of a published number."
)

SYNTHETIC_SHORT = "Synthetic testbed: no reproduction of a published number."

DASH = "–"


def method_name(method: str) -> str:
    """Human name of a method: 'w2s_aux_conf' is 'W2S aux conf'."""
    if method in METHODS:
        return METHODS[method]
    head, _, tail = method.partition("_")
    return f"W2S {tail.replace('_', ' ')}" if head == "w2s" and tail else method.replace("_", " ")


def row_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of rows with `method` and `variant`: variant keys are added where a method has several variants."""
    rows = list(rows)
    names = []
    for row in rows:
        same = [r["variant"] for r in rows if r["method"] == row["method"]]
        keys = [k for k in row["variant"] if len({repr(v.get(k)) for v in same}) > 1]
        detail = ", ".join(f"{k} = {row['variant'][k]}" for k in keys)
        names.append(method_name(row["method"]) + (f" ({detail})" if detail else ""))
    return names


def number(value: float | None, metric: str, digits: int | None = None) -> str:
    """A score as shown: percent with one decimal, or three decimals; a dash where there is none."""
    if value is None:
        return DASH
    return (
        f"{100 * value:.{1 if digits is None else digits}f}"
        if metric in PERCENT
        else f"{value:.{3 if digits is None else digits}f}"
    )


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
    """'3 seeds, 4,500 test items; 95 % intervals over seeds and test items'."""
    seeds = sorted({s for r in rows for s in r["seeds"]})
    items = max((r["n_items"] for r in rows), default=0)
    tail = f"; 95 % intervals over {covers.replace('test items', f'{noun} items')}" if covers else ""
    return f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, {items:,} {noun} items{tail}"


def listing(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def headline(results: Mapping[str, Any]) -> list[str]:
    """What the numbers say, as sentences. 'Better' and 'worse' only where the paired tests say so."""
    rows = pick(results["rows"], dataset=main_dataset(results), metric="accuracy")
    if not rows:
        return []
    parts = [f"{n} {number(r['mean'], 'accuracy')} %" for n, r in zip(row_names(rows), rows, strict=True)]
    out = [f"Mean accuracy ({sample_text(rows)}): {listing(parts)}."] if len(parts) <= 8 else []
    pgr = [r for r in pick(results["pgr"], dataset=rows[0]["dataset"], metric="accuracy") if r["method"] == "w2s_naive"]
    if pgr:
        r = pgr[0]
        out.append(
            f"Performance gap recovered by naive W2S (labels of a single supervisor): {pgr_text(r)}"
            + (f"; {r['note']}." if r["note"] else ".")
        )
    tests = pick(results["tests"]["rows"], dataset=rows[0]["dataset"])
    students = [t for t in tests if t["a"].startswith("w2s_")]
    out += _verdicts([t for t in students if t["b"] == "weak"], "the weak supervisor")
    out += _verdicts([t for t in students if t["b"] == "w2s_naive" and t["a"] != "w2s_naive"], "naive W2S")
    return out


def _verdicts(tests: Sequence[Mapping], other: str) -> list[str]:
    """Up to three sentences: better than, worse than, not distinguishable from `other`."""
    names = row_names([{"method": t["a"], "variant": t["variant_a"]} for t in tests])
    groups: dict[Any, list[str]] = {"a": [], "b": [], None: []}
    for name, test in zip(names, tests, strict=True):
        groups[test["better"]].append(name)
    says = {
        "a": "Better than {o} by a paired test: {n}.",
        "b": "Worse than {o} by a paired test: {n}.",
        None: "Not distinguishable from {o}: {n}.",
    }
    return [says[k].format(o=other, n=listing(v)) for k, v in groups.items() if v]
