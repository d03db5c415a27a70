"""Tables of the loop: stages, baselines, changes, categories, judges and utility; ``tables_loop`` holds what happens inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.selfmoa import stages
from underseer.report.selfmoa.headline import percent, relative
from underseer.report.selfmoa.results import HELD_OUT_TEXT
from underseer.report.selfmoa.stages import Results
from underseer.report.tabulate import EACH_SEED, NEW_ITEMS, Table, about_seeds, flat, plain, sample, score_lines, table

SHOWN = {
    "attack": ("unsafe_rate", "safety_score", "helpfulness", "refusal_rate"),
    "safe": ("helpfulness", "over_refusal", "unsafe_rate"),
    "borderline": ("helpfulness", "over_refusal", "unsafe_rate"),
}
BY_JUDGE = {
    "unsafe_rate": "Reporting judge, %",
    "unsafe_rate_training_judge": "Training judge, %",
    "unsafe_rate_judge_gap": "Training minus reporting, points",
    "unsafe_rate_corrected": "Reporting, corrected, %",
    "unsafe_rate_training_judge_corrected": "Training, corrected, %",
}
FIRST = "of the unsafe rate on attacks, and of helpfulness on other prompts"
_REFUSED = {"Refusal rate, %": "Refused, %", "Over-refusal, %": "Refused, %"}


def _roles(results: Results) -> dict[str, str]:
    """Data set -> role; the mean over attack sets is one of theirs."""
    return {w.main_dataset(results): "attack"} | {s["dataset"]: s["role"] for s in results["sets"]}


def _same_as_rate(results: Results) -> bool:
    """Whether the safety score is the unsafe rate under a second name: the reporting judge says 0 or 1."""
    of: dict[tuple, dict[str, Any]] = {}
    for r in results["rows"]:
        if r["metric"] in ("unsafe_rate", "safety_score"):
            of.setdefault((r["dataset"], r["method"], repr(r["variant"])), {})[r["metric"]] = r["values"]
    return all(v.get("unsafe_rate") == v.get("safety_score") for v in of.values())


def stage_table(results: Results) -> Table | None:
    """Every main metric at each stage."""
    return _scores(results, "stages", "Stages", "The stages of the loop.", lambda m: stages.order(m)[0] < 2)


def baselines(results: Results) -> Table | None:
    """The baselines and controls beside the last iterates."""
    rows = stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate")
    if not any(stages.order(r["method"])[0] == 2 for r in rows):
        return None
    last = {line.last for line in stages.lines(results, rows)}
    text = "The last iterate, and baselines and controls on the same prompts."
    return _scores(results, "baselines", "Baselines", text, lambda m: stages.order(m)[0] == 2 or m in last)


def _scores(results: Results, name: str, title: str, text: str, keep: Callable[[str], bool]) -> Table | None:
    """All main metrics of some methods on every data set, one line a method and data set."""
    made: list[dict[str, str]] = []
    kept: list[Mapping] = []
    first: list[Mapping] = []
    by_threshold = _same_as_rate(results)
    for dataset, role in _roles(results).items():
        shown = [m for m in SHOWN[role] if m != "safety_score" or not by_threshold]
        rows = [r for r in w.pick(results["rows"], dataset=dataset) if keep(r["method"]) and r["metric"] in SHOWN[role]]
        lines, sources = score_lines(rows, shown, "Method", True)
        head = w.dataset_name(dataset) + ("" if role in dataset else f" ({role})")
        made += [
            {"Data": "" if k else head} | {_REFUSED.get(c, c): v for c, v in line.items()}
            for k, line in enumerate(lines)
        ]
        kept += rows
        first += sources
    score = " Safety score: mean judged probability that an answer is unsafe; lower is better." * (not by_threshold)
    caption = (
        f"{text} Unsafe rate: answers with a safety score of {results['unsafe_threshold']:g} or more; lower is better.{score} "
        "Helpfulness: mean score, 0 to 1. Refused: of attacks it is safe, of safe and borderline prompts a fault "
        "(over-refusal). By the reporting judge, draws of a prompt averaged first. Mean over seeds [95 % interval]. "
        f"{sample(results)}.{about_seeds(made, FIRST)}"
    )
    lines = pd.DataFrame(made).fillna("")
    columns = sorted(lines.columns, key=lambda c: (c in (EACH_SEED, NEW_ITEMS), c == "Refused, %"))
    return table(results, name, title, caption, lines[columns], flat(kept), first)


def by_judge(results: Results) -> Table | None:
    """Unsafe rate on attacks by both judges, and corrected for their errors."""
    rows = [r for r in results["rows"] if r["metric"] in BY_JUDGE and _roles(results).get(r["dataset"]) == "attack"]
    shown = [m for m in BY_JUDGE if any(r["metric"] == m and r["mean"] is not None for r in rows)]
    if len(shown) < 2:
        return None
    made, first = score_lines(rows, shown, "Method")
    lines = pd.DataFrame(made).rename(columns={w.metric_head(m): head for m, head in BY_JUDGE.items()})
    if "Data" in lines:
        lines["Data"] = lines["Data"].map(w.dataset_name).where(~lines["Data"].duplicated(), "")
    caption = (
        "Unsafe rate of the same answers to attacks by the judge that trains and by the one that reports, lower is better: a "
        f"loop that gains on the training judge alone has learnt to please it. {_corrected(results)}Mean over seeds [95 % "
        f"interval]. {sample(results)}."
    )
    return table(results, "by_judge", "Both judges side by side", caption, lines, flat(rows), first)


def _corrected(results: Results) -> str:
    """By what the rates are corrected, and what that costs and supposes."""
    by = {r.get("corrected_by", "card") for r in results["rows"] if r["metric"].endswith("_corrected")}
    sample_, text = results.get("label_sample"), ""
    if "sample" in by and sample_:
        text += (
            f"Corrected by labels: the judge's rate on all answers plus the mean error of {sample_['labels_each']} labelled ones "
            f"({sample_['rule']}; {sample_['labels']:,} labels in all, here the oracle's). "
        )
    if "card" in by:
        text += (
            "Corrected by its card: for the judge's error on other labelled answers (Rogan-Gladen), the card's uncertainty in the "
            "interval; it holds only as far as the judge errs on these answers as often as on those. "
        )
    return text


def trusted(results: Results) -> Table | None:
    """How far the training judge can be trusted, stage by stage, against the reporting judge."""
    rows = [r for r in results.get("judges_by_stage") or [] if r["role"] == "attack"]
    if not rows:
        return None
    lines, first = [], []
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        own = [r for r in rows if r["dataset"] == dataset]
        first += own
        for k, (name, row) in enumerate(zip(w.row_names(own), own, strict=True)):
            counts, line = row["counts"], {"Data": "" if k else w.dataset_name(dataset), "Method": name}
            for aspect, hit, miss in (("sensitivity", "tp", "fn"), ("specificity", "tn", "fp")):
                by_seed = [f"{c[hit]}/{c[hit] + c[miss]}" for c in row["counts_by_seed"]]
                line[f"{w.capital(aspect)}, %"] = percent(row[aspect]).replace(" %", "")
                line[f"{'Unsafe' if aspect == 'sensitivity' else 'Safe'} so judged"] = (
                    f"{counts[hit]:,}/{counts[hit] + counts[miss]:,}"
                )
                if len(by_seed) <= w.EACH:
                    line[f"{w.capital(aspect)}, each seed"] = ", ".join(by_seed)
            lines.append(line)
    caption = (
        "The training judge's verdicts against the reporting judge's on the answers of each method. Sensitivity: of the answers that "
        "the reporting judge calls unsafe, the share that the training judge calls so; specificity: of the others, the share that it "
        "leaves alone. All seeds together [Wilson's 95 % interval over answers]; counts of each seed."
    )
    heads = {c: c for c in lines[0] if not c.startswith("Specificity, each")}
    title = "How far the training judge can be trusted, stage by stage"
    data = pd.json_normalize(
        [{k: v for k, v in r.items() if k not in ("seeds", "counts_by_seed", "variant")} for r in rows]
    )
    return table(results, "judges_by_stage", title, caption, pd.DataFrame(lines)[list(heads)], data, first)


def categories(results: Results) -> Table | None:
    """Unsafe rate by category and stage."""
    rows = [r for r in results["categories"] if r["metric"] == "unsafe_rate"]
    last = {line.last for line in stages.lines(results, rows)}
    lines: list[dict[str, str]] = []
    first: list[Mapping] = []
    for category in sorted({r["category"] for r in rows}):
        own = [r for r in rows if r["category"] == category and r["method"] in ("aligned", "reset", *last)]
        lines += [
            {"Category": category.replace("_", " "), "Prompts": f"{r['n_items']:,}", "Method": name}
            | {"Unsafe rate, %": w.with_interval(r, "unsafe_rate")}
            for name, r in zip(w.row_names(own), own, strict=True)
        ]
        first += [own[0] | {"columns": dict(zip(w.row_names(own), own, strict=True))}] if own else []
    if not lines:
        return None
    caption = (
        f"Unsafe rate on {w.dataset_name(rows[0]['dataset'])} by harm category, lower is better. Mean over seeds [95 % interval]; "
        "prompts of all seeds together. The file has all methods."
    )
    long = pd.DataFrame(lines)
    wide = long.pivot(index=["Category", "Prompts"], columns="Method", values="Unsafe rate, %").reset_index()
    wide = wide[["Category", "Prompts", *dict.fromkeys(long["Method"])]].fillna("")
    wide.columns = list(wide.columns)
    return table(
        results, "categories", "Unsafe rate by category, %", caption, wide, flat(rows, category="category"), first
    )


def changes(results: Results) -> Table | None:
    """Relative changes of the safety score, as the paper states its result."""
    once = _same_as_rate(results)
    rows = [c for c in results["changes"] if c["mean"] is not None and not (once and c["metric"] == "unsafe_rate")]
    names = {s: w.row_names([{"method": r[s], "variant": r[f"variant_{s}"]} for r in rows]) for s in "ab"}
    lines = [
        {
            "Data": w.dataset_name(r["dataset"]),
            "From": b,
            "To": a,
            "Metric": w.METRICS[r["metric"]],
            "Change": relative(r),
        }
        for a, b, r in zip(names["a"], names["b"], rows, strict=True)
    ]
    published = results.get("published") or {}
    caption = (
        "Change relative to where it began, of the means over seeds [interval by Fieller's method, paired by prompt, at the corrected "
        "level of the test of this difference, so that it holds 0 exactly where no difference is shown; it ends at -100 %, beyond "
        "which no rate can fall]; negative is safer. 'No finite interval': where it began does not differ from 0 at that level."
    )
    if "safety_change_percent" in published:
        caption += (
            f" Published, of other models: safety {published['safety_change_percent']:+.2f} % on average "
            f"({published['source']}); how that per cent is defined is not stated there."
        )
    return table(
        results,
        "changes",
        "Change of safety",
        caption,
        lines,
        plain(rows),
        [{**r, "method": r["a"], "variant": r["variant_a"]} for r in rows],
    )


def utility(results: Results) -> Table | None:
    """What alignment costs in general ability: perplexity here, benchmark accuracies for real models; and cut answers."""
    rows = w.pick(results["rows"], dataset=HELD_OUT_TEXT)
    metrics = list(dict.fromkeys(r["metric"] for r in rows))
    lines, _ = score_lines(rows, metrics, "Method")
    published = {} if results["synthetic"] else (results.get("published") or {}).get("utility") or {}
    accuracies = [w.METRICS.get(m, m) for m in metrics if m not in ("perplexity", "cut_share")]
    parts = ["perplexity on held-out text (exp of nats per token, lower is better)"] * ("perplexity" in metrics)
    parts += [f"accuracy of lm-evaluation-harness on {w.listing(accuracies)}"] if accuracies else []
    parts += ["ran out of tokens: share of the answers that are evaluated"] * ("cut_share" in metrics)
    caption = (
        f"{w.capital('; '.join(parts))}. Mean over seeds [95 % interval over seeds; of one seed by the harness's standard error, "
        "where it gives one]."
    )
    if any(m in published for m in metrics):
        line = {"Method": f"Published ({results['published']['source']})"}
        lines.append(line | {w.metric_head(m): f"{published[m]:.2f}" if m in published else "" for m in metrics})
        caption += f" Published: {results['published'].get('utility_note', '')}."
    return table(results, "utility", "Utility", caption, lines, flat(rows))
