"""Tables of a report: each a function of the results, shown as text and kept as numbers; None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from underseer.report import tidy
from underseer.report import wording as w
from underseer.report.tabulate import Results, Table, about_seeds, cell, flat, lines_of, sample, score_lines, table

SHOWN = {
    "accuracy": ("accuracy", "balanced_accuracy", "f1", "auroc"),
    "toxicity": ("toxicity", "toxicity_greedy", "toxic_share", "expected_max_toxicity", "toxicity_probability"),
}
"""Metrics shown with a primary one."""
GAPS = {"accuracy": SHOWN["accuracy"], "toxicity": ("toxicity", "toxic_share", "expected_max_toxicity")}
LABELS = {
    "accuracy": ("accuracy", "balanced_accuracy", "f1", "ece"),
    "toxicity": ("toxicity", "toxic_share", "toxicity_training_judge", "n_tokens", "cut_share"),
}
ENDLESS = "[–]"
"""A PGR without a finite interval, in a table."""
BUCKET = ("toxicity", "toxic_share", "expected_max_toxicity", "toxicity_probability")
BY_JUDGE = {"toxicity": "By the reporting judge", "toxicity_training_judge": "By the training judge"}
FLUENCY = ("perplexity", "distinct_1", "distinct_2", "n_tokens", "empty_share", "judge_failures")


def _main(results: Results) -> list[Mapping]:
    """Rows of the main data set; of a classifier those of further ones too."""
    return w.pick(results["rows"], dataset=w.main_dataset(results)) if w.generates(results) else results["rows"]


def scores(results: Results) -> Table | None:
    """The W2S paper's Table 1 (or, for toxicity, 2) in our numbers: every method with its interval, PGR, and the published value
    where there is one."""
    primary, rows = w.primary(results), _main(results)
    lines, first = score_lines(rows, [m for m in SHOWN[primary] if any(r["metric"] == m for r in rows)], "Method", True)
    published = (results.get("published") or {}).get("values") or {}
    for line, row in zip(lines, first, strict=True):
        if not w.generates(results):
            same = w.pick(results["pgr"], dataset=row["dataset"], metric=primary)
            gap = [g for g in same if (g["method"], g["variant"]) == (row["method"], row["variant"])]
            line["PGR (accuracy)"] = w.pgr_text(gap[0], ENDLESS) if gap else ""
        if not results["synthetic"]:
            value = published.get(row["method"], {}).get(primary)
            head = "Published" if w.generates(results) else "Published accuracy, %"
            line[head] = "" if value is None else w.number(value, primary)
    title = "Toxicity of the continuations" if w.generates(results) else "Scores"
    caption = (
        f"Mean over seeds [95 % interval]. {sample(results)}.{about_seeds(lines)} {_meaning(results)}{_source(results)}"
    )
    return table(results, "scores", title, caption, lines, flat(rows), first)


def _meaning(results: Results) -> str:
    if not w.generates(results):
        return f"PGR = (W2S - weak) / (ceiling - weak), of the means; its interval is Fieller's, from a bootstrap paired by item; {ENDLESS}: no finite one."
    draws = results.get("draws") or 0
    return (
        f"Lower is better. {w.plural(draws, 'sampled continuation')} of each prompt, and a greedy one. Mean toxicity, and toxic "
        "share (score 0.5 or more): of the sampled continuations, averaged by prompt first. Expected maximum toxicity: mean over "
        "prompts of the highest score among the sampled ones; toxicity probability: prompts where that is 0.5 or more. "
        "Continuations without a score are left out. Scores are the reporting judge's."
    )


def _source(results: Results) -> str:
    if results["synthetic"]:
        return ""
    published = results.get("published")
    if published and published.get("values"):
        return f" Published: {published['source']}. {published.get('note', '')}"
    if w.generates(results):
        return " Published values: the numbers of the paper's Table 2 are not at hand."
    return " Published values are shown where they are at hand and the models are the paper's; here they are not."


def figure1(results: Results) -> Table | None:
    """Accuracy, balanced accuracy and weighted F1 of each method of the legal task, each with the published value."""
    rows = tidy.figure1(results)
    if not len(rows):
        return None
    known = rows["published"].notna().any()
    lines, first = [], []
    for name, part in rows.groupby("name", sort=False):
        line, method = {"Method": name}, {"dataset": w.main_dataset(results), "method": part["method"].iloc[0]}
        first.append({"columns": {w.metric_head(m): method | {"metric": m} for m in part["metric"]}})
        for row in part.itertuples():
            line[w.metric_head(row.metric)] = row.text
            if known:
                line[f"Published {w.spoken(row.metric)}, %"] = "" if pd.isna(row.published) else f"{row.published:.1f}"
        lines.append(line)
    numbers = rows.rename(columns={"low": "ci95_low", "high": "ci95_high"})
    data = numbers[["method", "metric", "mean", "ci95_low", "ci95_high", "published"]]
    return table(results, "figure1", "Figure 1 as numbers", figure1_caption(results), lines, data, first)


def figure1_caption(results: Results) -> str:
    """What the bars are, and where the published ones come from."""
    text = "Scores of each method with 95 % intervals, in percent."
    published = results.get("published") or {}
    if published.get("values") and not results["synthetic"]:
        return (
            text
            + f" Hatched: published values ({'; '.join(filter(None, (published['source'], published.get('note'))))})."
        )
    return text + (
        "" if results["synthetic"] else " No published bars: the models of this experiment are not the paper's."
    )


def pgr(results: Results) -> Table | None:
    """PGR of every student on every metric."""
    rows, primary = results["pgr"], w.primary(results)
    shown = [m for m in GAPS[primary] if any(r["metric"] == m for r in rows)]
    lines, first = score_lines(rows, (), "Method")
    for line, row in zip(lines, first, strict=True):
        by_metric = lines_of(rows, row)
        by_seed = ", ".join(w.DASH if v is None else f"{v:.2f}" for v in by_metric[primary]["values"])
        line |= {w.METRICS[m]: w.pgr_text(by_metric.get(m), ENDLESS) for m in shown} | {
            f"By seed ({w.spoken(primary)})": by_seed
        }
    lower = w.lower_is_better(primary)
    caption = (
        "Share of the gap between weak supervisor and ceiling that the student recovers [95 % interval]: 0 is the weak "
        f"supervisor, 1 the ceiling. 'Undefined': the ceiling is not {'below' if lower else 'above'} the weak supervisor. "
        f"{ENDLESS}: no finite interval, since the gap does not differ from zero."
    ) + (" Lower scores are better here: PGR = (weak - W2S) / (weak - ceiling)." if lower else "")
    return table(
        results, "pgr", "Performance gap recovered", caption, lines, flat(rows), [{**r, "metric": "pgr"} for r in first]
    )


def label_quality(results: Results) -> Table | None:
    """How good the weak labels of the transfer split are, by vote."""
    block = results.get("label_quality")
    if not block:
        return None
    shown = [
        m for m in LABELS[w.primary(results)] if any(r["metric"] == m and r["mean"] is not None for r in block["rows"])
    ]
    lines, first = score_lines(block["rows"], shown, "Labels by", True)
    sizes = w.capital(w.sample_text(block["rows"], block["covers"], "transfer"))
    text = "Weak labels against the truth on the transfer split [95 % interval]."
    if w.generates(results):
        flatters = "the training judge, which chose them where there was a choice: such a score flatters"
        by = f"the reporting judge, and by {flatters}" if "toxicity_training_judge" in shown else flatters
        text = f"The continuations that students learn from, scored by {by} [95 % interval]. Lower is less toxic."
    text = f"{text} {sizes}.{about_seeds(lines)}"
    return table(results, "label_quality", "Quality of the weak labels", text, lines, flat(block["rows"]), first)


def buckets(results: Results) -> Table | None:
    """Toxicity by the toxicity of the prompt."""
    rows = [r for r in results["rows"] if r["dataset"] != w.main_dataset(results)] if w.generates(results) else []
    lines, first = score_lines(rows, BUCKET, "Method")
    heads = [{"Prompt toxicity": w.bucket(r["dataset"]), "Prompts": f"{r['n_items']:,}"} for r in first]
    lines = [head | {k: v for k, v in line.items() if k != "Data"} for head, line in zip(heads, lines, strict=True)]
    caption = (
        "Lower is better. Toxicity of the sampled continuations by the toxicity of their prompt as the data state it, mean "
        f"over seeds [95 % interval]. {sample(results)}."
    )
    return table(results, "buckets", "Toxicity by prompt toxicity", caption, lines, flat(rows), first)


def fluency(results: Results) -> Table | None:
    """What a low toxicity may cost: fluency, diversity, length, silence."""
    main = _main(results) if w.generates(results) else []
    lines, first = score_lines(main, FLUENCY[:-1], "Method")
    for line, r in zip(lines, first, strict=True):
        line["Without a score"] = f"{sum(int(v) for v in lines_of(main, r)['judge_failures']['values']):,}"
    caption = (
        "Sampled continuations. Perplexity under a separate language model (exp of nats per token; lower is more fluent, "
        "and repetition is fluent too); distinct n-grams of words over all n-grams of a seed (higher is more diverse; it "
        "falls with the number of continuations); length in tokens; share that says nothing. Mean over seeds [95 % "
        "interval; of distinct-n over seeds alone]. Without a score: continuations, greedy ones included, that the "
        f"reporting judge could not score, all seeds together. {sample(results)}."
    )
    rows = [r for r in main if r["metric"] in FLUENCY]
    return table(results, "fluency", "Fluency and diversity", caption, lines, flat(rows), first)


_CALIBRATION = {"spearman": "Spearman", "pearson": "Pearson", "mae": "Mean absolute error", "kappa": "Kappa"}


def judges(results: Results) -> Table | None:
    """Who scored, and how far that agrees with the scores that the data hold."""
    given = results.get("judges")
    if not given:
        return None
    lines, data = [], []
    for judge in given:
        known = judge.get("calibration") or {}
        data.append(
            {k: judge.get(k) for k in ("role", "seed", "name", "version", "failures", "cut")}
            | {k: known.get(k) for k in ("spearman", "pearson", "mae", "agreement", "kappa", "n")}
            | {"calibration_failures": known.get("failures")}
        )
        lines.append(
            {"Role": judge["role"], "Seed": str(judge.get("seed", w.DASH)), "Judge": judge["name"]}
            | {"Version": judge.get("version") or w.DASH}
            | {head: w.number(known.get(k), k) for k, head in _CALIBRATION.items()}
            | {"Agreement at 0.5, %": w.number(known.get("agreement"), "accuracy")}
            | {"Held-out rows": cell(known.get("n")), "Failures": cell(judge.get("failures"))}
            | {"Read in part": cell(judge.get("cut"))}
        )
    caption = (
        "The judge that selects is not the judge that reports. Calibration: scores of held-out rows against those stored "
        "with the data (Perspective's, for RealToxicityPrompts; the oracle's, on the testbed): rank and linear "
        "correlation, mean absolute error, Cohen's kappa and agreement on whether a text scores 0.5 or more. Failures: "
        "continuations without a score. Read in part: held-out rows that were too long for the judge, which read their beginnings."
    )
    shown = pd.DataFrame(lines)
    shown = shown if any("seed" in j for j in given) else shown.drop(columns="Seed")
    return table(results, "judges", "Judges", caption, shown, data)


def by_judge(results: Results) -> Table | None:
    """Mean toxicity by the judge that selects and by the one that reports."""
    main = [r for r in _main(results) if r["metric"] in BY_JUDGE]
    if not any(r["mean"] is not None for r in main if r["metric"] == "toxicity_training_judge"):
        return None
    lines, first = score_lines(main, list(BY_JUDGE), "Method")
    shown = pd.DataFrame(lines).rename(columns={w.METRICS[m]: head for m, head in BY_JUDGE.items()})
    caption = (
        "Mean toxicity of the same sampled continuations by both judges, lower is better: a method that gains on the "
        f"training judge alone has learnt to please it. Mean over seeds [95 % interval]. {sample(results)}."
    )
    return table(results, "by_judge", "Both judges side by side", caption, shown, flat(main), first)
