"""Tables of a report: each a function of the results, shown as text and kept as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from underseer.report import wording as w

Results = Mapping[str, Any]
SHOWN = ("accuracy", "balanced_accuracy", "f1", "auroc")
LABEL_METRICS = ("accuracy", "balanced_accuracy", "f1", "ece")


@dataclass(frozen=True)
class Table:
    """name: file stem. caption: plain text. shown: strings, for people. data: the same rows as numbers, for the
    CSV."""

    name: str
    title: str
    caption: str
    shown: pd.DataFrame
    data: pd.DataFrame


def _keys(rows: Sequence[Mapping]) -> list[tuple]:
    """(data set, method, variant) of rows, each once, in order."""
    seen = {(r["dataset"], r["method"], repr(r["variant"])): r for r in rows}
    return list(seen.items())


def _flat(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Result rows as numbers: one line each, per-seed values joined by ';'."""
    flat = []
    for r in rows:
        ci = r["ci95"] or (None, None)
        joined = {k: ";".join("" if v is None else str(v) for v in r[k]) for k in ("values", "seeds")}
        flat.append(
            {
                "method": r["method"],
                **{f"variant.{k}": v for k, v in r["variant"].items()},
                "dataset": r["dataset"],
                "metric": r["metric"],
                "mean": r["mean"],
                "ci95_low": ci[0],
                "ci95_high": ci[1],
                **joined,
                **({"note": r["note"]} if "note" in r else {"n_items": r["n_items"]}),
            }
        )
    return pd.DataFrame(flat)


def _score_lines(
    rows: Sequence[Mapping], shown: Sequence[str], head: str
) -> tuple[list[dict[str, str]], list[Mapping]]:
    keys = _keys(rows)
    several = len({r["dataset"] for r in rows}) > 1
    lines, first = [], []
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        part = [r for (d, _, _), r in keys if d == dataset]
        for name, r in zip(w.row_names(part), part, strict=True):
            found = {x["metric"]: x for x in rows if all(x[k] == r[k] for k in ("dataset", "method", "variant"))}
            lines.append(
                ({"Data": dataset} if several else {})
                | {head: name}
                | {w.metric_head(m): w.with_interval(found.get(m), m) for m in shown}
            )
            first.append(r)
    return lines, first


def scores(results: Results) -> Table | None:
    """The W2S paper's Table 1 in our numbers: every method with its interval, PGR, and the published value where it
    is one."""
    lines, first = _score_lines(results["rows"], SHOWN, "Method")
    if not lines:
        return None
    published = results.get("published")
    for line, r in zip(lines, first, strict=True):
        pgr = [
            x
            for x in results["pgr"]
            if x["metric"] == "accuracy" and all(x[k] == r[k] for k in ("dataset", "method", "variant"))
        ]
        line["PGR (accuracy)"] = w.pgr_text(pgr[0]) if pgr else ""
        if not results["synthetic"]:
            value = ((published or {}).get("values") or {}).get(r["method"], {}).get("accuracy")
            line["Published accuracy, %"] = w.number(value, "accuracy") if value is not None else ""
    caption = (
        f"Mean over seeds [95 % interval]. {_sample(results)}. PGR = (W2S - weak) / (ceiling - weak), of the means; "
    )
    caption += "its interval is Fieller's, from a bootstrap paired by item."
    if not results["synthetic"]:
        caption += (
            f" Published: {published['source']}. {published.get('note', '')}"
            if published
            else " Published values: not at hand."
        )
    return Table("scores", "Scores", caption + _mark(results), pd.DataFrame(lines), _flat(results["rows"]))


def pgr(results: Results) -> Table | None:
    """PGR of every student on every metric."""
    rows = results["pgr"]
    if not rows:
        return None
    shown = [m for m in SHOWN if any(r["metric"] == m for r in rows)]
    lines = []
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        part = [r for (d, _, _), r in _keys(rows) if d == dataset]
        for name, r in zip(w.row_names(part), part, strict=True):
            found = {x["metric"]: x for x in rows if all(x[k] == r[k] for k in ("dataset", "method", "variant"))}
            line = {"Data": dataset, "Method": name} | {w.METRICS[m]: w.pgr_text(found.get(m)) for m in shown}
            lines.append(
                line
                | {
                    "By seed (accuracy)": ", ".join(
                        w.DASH if v is None else f"{v:.2f}" for v in found["accuracy"]["values"]
                    )
                }
            )
    table = pd.DataFrame(lines)
    table = table.drop(columns="Data") if table["Data"].nunique() == 1 else table
    caption = (
        "Share of the gap between weak supervisor and ceiling that the student recovers [95 % interval]: 0 is the weak "
        "supervisor, 1 the ceiling. 'Undefined': the ceiling is not above the weak supervisor. 'No finite interval': "
        "the gap does not differ from zero."
    )
    return Table("pgr", "Performance gap recovered", caption + _mark(results), table, _flat(rows))


def label_quality(results: Results) -> Table | None:
    """How good the weak labels of the transfer split are, by vote."""
    found = results.get("label_quality")
    if not found:
        return None
    lines, _ = _score_lines(found["rows"], LABEL_METRICS, "Labels by")
    sample = _capital(w.sample_text(found["rows"], found["covers"], "transfer"))
    caption = f"Weak labels against the truth on the transfer split [95 % interval]. {sample}."
    return Table(
        "label_quality",
        "Quality of the weak labels",
        caption + _mark(results),
        pd.DataFrame(lines),
        _flat(found["rows"]),
    )


def _test_table(rows: Sequence[Mapping]) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = {}
    for side in "ab":
        names[side] = w.row_names([{"method": r[side], "variant": r[f"variant_{side}"]} for r in rows])
    lines = []
    for a, b, r in zip(names["a"], names["b"], rows, strict=True):
        lo, hi = (100 * x for x in r["ci95"])
        verdict = {"a": f"{a} is better", "b": f"{b} is better", None: "no difference shown"}[r["better"]]
        lines.append(
            {
                "Data": r["dataset"],
                "A": a,
                "B": b,
                "A - B, points": f"{100 * r['difference']:+.1f} [{lo:+.1f}, {hi:+.1f}]",
                "p": w.p_text(r["p"]),
                "p (Holm)": w.p_text(r["p_holm"]),
                "Verdict": verdict,
            }
        )
    shown = pd.DataFrame(lines)
    shown = shown.drop(columns="Data") if shown["Data"].nunique() == 1 else shown
    flat = [
        {k: v for k, v in r.items() if not isinstance(v, list | dict)}
        | {"ci95_low": r["ci95"][0], "ci95_high": r["ci95"][1]}
        | {"variant_a": str(r["variant_a"]), "variant_b": str(r["variant_b"])}
        for r in rows
    ]
    return shown, pd.DataFrame(flat)


def tests(results: Results) -> Table | None:
    """Paired tests between methods."""
    rows = results["tests"]["rows"]
    return (
        Table("tests", "Paired tests", results["tests"]["rule"] + _mark(results), *_test_table(rows)) if rows else None
    )


def label_tests(results: Results) -> Table | None:
    """Paired tests between the votes' labels."""
    rows = (results.get("label_quality") or {}).get("tests")
    if not rows:
        return None
    caption = "Accuracy of the weak labels, paired by transfer item, by the same rule as the tests between methods."
    return Table("label_tests", "Paired tests of the weak labels", caption + _mark(results), *_test_table(rows))


def hygiene(results: Results) -> Table | None:
    """What the data stage found: duplicates, conflicts, overlap between splits."""
    if not results.get("hygiene"):
        return None
    data = pd.DataFrame(results["hygiene"])
    shown = data.rename(columns=lambda c: c[:1].upper() + c[1:].replace("_", " ")).copy()
    for column in shown.columns:
        shown[column] = shown[column].map(lambda v, c=column: _cell(v, percent=c == "Share"))
    shown = shown.rename(columns={"Share": "Share, %"})
    caption = (
        "Duplicates, label conflicts and overlap between splits, as measured on the data that this experiment used."
    )
    return Table("hygiene", "Data hygiene", caption + _mark(results), shown, data)


def cost(results: Results) -> Table | None:
    """The ledger: what was spent, by stage where it is known by stage."""
    by_stage = cost_by_stage(results["cost"])
    if not by_stage:
        return None
    data = pd.DataFrame([{"stage": k, **v} for k, v in by_stage.items()]).fillna(0)
    shown = data.rename(columns=lambda c: _capital(c.replace("_", " ")))
    shown = shown.rename(columns={"Seconds": "Time, s", "Peak memory mb": "Peak memory, MB"})
    for column in shown.columns[1:]:
        shown[column] = shown[column].map(_cell)
    caption = (
        "What this report rests on, each stage instance counted once. Tokens without padding; peak memory is the "
        "largest of the instances."
    )
    return Table("cost", "Cost", caption, shown, data)


def cost_by_stage(ledger: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Any ledger summed by stage, a total last. Flat ledgers have one line; keys like 'w2s/4_student/<key>' lose
    the key."""
    nested = {k: v for k, v in ledger.items() if isinstance(v, Mapping)}
    flat = {k: v for k, v in ledger.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    nested = {k: v for k, v in nested.items() if k != "total"} or (
        {"total": ledger["total"]} if "total" in nested else {}
    )
    if not nested:
        return {"all stages": dict(flat)} if flat else {}
    if len(nested) == 1 and all(isinstance(v, Mapping) for v in next(iter(nested.values())).values()):
        return cost_by_stage(next(iter(nested.values())))
    out: dict[str, dict[str, float]] = {}
    for name, spent in sorted(nested.items()):
        parts = name.split("/")
        stage = "/".join(parts[:-1]) if len(parts) > 2 else name
        for line in (out.setdefault(stage, {"instances": 0}), out.setdefault("total", {"instances": 0})):
            line["instances"] += 1
            for key, value in spent.items():
                if isinstance(value, int | float):
                    line[key] = max(line.get(key, 0), value) if key.startswith("peak") else line.get(key, 0) + value
    return {**{k: v for k, v in out.items() if k != "total"}, "total": out["total"]}


def case_study(results: Results) -> Table | None:
    """Table 3 of the W2S paper: what each model answers to one item."""
    case = results.get("case_study")
    if not case:
        return None
    names = w.row_names(case["answers"])
    lines = [{"Model": "Truth", "Answer": case["truth"], "Probability of " + results["classes"][1]: "", "Right": ""}]
    lines += [
        {
            "Model": n,
            "Answer": a["answer"],
            "Probability of " + results["classes"][1]: f"{a['p']:.3f}",
            "Right": "yes" if a["right"] else "no",
        }
        for n, a in zip(names, case["answers"], strict=True)
    ]
    data = [
        {
            "model": a["method"],
            "variant": str(a["variant"]),
            "answer": a["answer"],
            "p": a["p"],
            "right": a["right"],
            "id": case["id"],
        }
        for a in case["answers"]
    ]
    caption = f"Item {case['id']}, seed {case['seed']}: {case['rule']}. "
    caption += f"{case['n_candidates']:,} of {case['n_items']:,} items fit the rule" + (
        "" if case["rule_fits"] else ", so the first item of all is shown"
    )
    right = [f"{w.method_name(m)} {100 * v:.0f} %" for m, v in case["right_among_candidates"].items()]
    caption += f"; of these are answered right by {'; '.join(right)}." if right else "."
    return Table("case_study", "Case study", caption + _mark(results), pd.DataFrame(lines), pd.DataFrame(data))


def prompt_text(case: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> str:
    """The case study's prompt, or what stands for it: a redacted or unknown text. `texts` given: the raw text is
    shown."""
    if texts and case["id"] in texts:
        return str(texts[case["id"]])
    if case["redacted"]:
        words = f", {case['words']} words" if case["words"] else ""
        return f"[redacted prompt{words}, truth {case['truth']}, id {case['id']}]"
    return case["text"] if case["text"] is not None else f"[text not stored, id {case['id']}]"


TABLES: dict[str, Sequence[Callable[[Results], Table | None]]] = {
    "w2s": (scores, pgr, tests, label_quality, label_tests, hygiene, case_study, cost),
}
"""Tables of each pipeline, in the order of the page."""


def _sample(results: Results) -> str:
    rows = w.pick(results["rows"], dataset=w.main_dataset(results))
    return _capital(w.sample_text(rows, results["interval"]["covers"]))


def _mark(results: Results) -> str:
    return f" {w.SYNTHETIC_SHORT}" if results["synthetic"] else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(value: Any, *, percent: bool = False) -> str:
    if value is None or value != value:
        return w.DASH
    if isinstance(value, bool | str):
        return str(value)
    if percent:
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"
