"""Tables of what happens inside the loop: attacks, pairs, judges, and what it all cost."""

from __future__ import annotations

from typing import Any

import pandas as pd

from underseer.report import wording as w
from underseer.report.names import iteration
from underseer.report.selfmoa import accounts, stages
from underseer.report.selfmoa.stages import Results
from underseer.report.tabulate import Table, cell, flat, table


def attacks(results: Results) -> Table | None:
    """Success by strategy, over all iterations and in each."""
    block = results.get("attacks")
    if not block or not block["strategies"]:
        return None
    rows = block["strategies"]
    variants = list({repr(r["variant"]): r["variant"] for r in rows}.values())
    names = w.row_names([{"method": "selfmoa", "variant": v} for v in variants])
    methods = sorted({r["method"] for r in rows if r["method"] != "all"}, key=stages.order)
    lines, first = [], []
    for variant, name in zip(variants, names, strict=True):
        for strategy in dict.fromkeys(r["strategy"] for r in rows):
            own = {r["method"]: r for r in rows if r["strategy"] == strategy and r["variant"] == variant}
            heads = {"all": "All iterations, %"} | {m: f"Iteration {iteration(m)}, %" for m in methods}
            line = {"Strategy": strategy.replace("_", " ")} | ({"Variant": name} if len(variants) > 1 else {})
            line |= {"Asked": f"{own['all']['n_items']:,}" if "all" in own else w.DASH}
            lines.append(line | {head: w.with_interval(own.get(m), "attack_success") for m, head in heads.items()})
            first.append({"columns": {head: own[m] for m, head in heads.items() if m in own}})
    caption = (
        "Attack success by strategy: share of the prompts asked whose answer the training judge calls unsafe [95 % interval "
        f"over {block['covers']}]; asked: all seeds together. Iteration k attacks the model that it begins with."
    )
    return table(results, "attacks", "Attacks by strategy", caption, lines, flat(rows, strategy="strategy"), first)


_FATE = {
    "Written": "written",
    "Refused": "refused_by_attacker",
    "Duplicates": "duplicates",
    "Not judged": "not_judged",
    "Asked": "asked",
    "Successes": "successes",
    "Distinct": "distinct_successes",
}


def fate(results: Results) -> Table | None:
    """What became of the prompts of each iteration, and how varied the successes are."""
    block = results.get("attacks")
    if not block or not block["fate"]:
        return None
    success = {(r["method"], repr(r["variant"])): r for r in block["rows"]}
    names = w.row_names([{"method": "selfmoa", "variant": f["variant"]} for f in block["fate"]])
    several = len({repr(f["variant"]) for f in block["fate"]}) > 1
    lines = []
    for f, name in zip(block["fate"], names, strict=True):
        row = success.get((f"selfmoa_iter{f['iteration']}", repr(f["variant"])))
        lines.append(
            {"Iteration": str(f["iteration"])}
            | ({"Variant": name} if several else {})
            | {c: f"{f[k]:,}" for c, k in _FATE.items()}
            | {"Success, %": w.with_interval(row, "attack_success")}
            | {"Self-BLEU": w.DASH if f["self_bleu"] is None else f"{f['self_bleu']:.2f}"}
        )
    caption = (
        "Prompts of the red team, all seeds together. Written: attempts; refused: by the attacker itself, answers in place of an attack among them; "
        "duplicates of what was seen before, copies of what the attacker was shown among them; not judged: asked, but the judge failed. Success: successes of the prompts asked [95 % interval]. Of the "
        "successes: distinct texts, and self-BLEU (lower is more varied; it rises with their number)."
    )
    attacked = [{"dataset": "red_team", "method": f"selfmoa_iter{f['iteration']}"} for f in block["fate"]]
    data = pd.DataFrame(block["fate"]).astype({"variant": str, "self_bleu_values": str})
    return table(results, "attack_fate", "Attacks by iteration", caption, lines, data, attacked)


_PAIRS = {
    "Pairs": "n_pairs",
    "Candidates": "n_candidates",
    "Near ties": "dropped_near_ties",
    "Duplicates": "dropped_duplicates",
    "Both unsafe": "dropped_both_unsafe",
}
_DIFFERENCES = {"Safety score": "safety_difference", "Helpfulness": "helpful_difference"}
_KINDS = ("n_attack", "n_safe", "n_borderline")


def pairs(results: Results) -> Table | None:
    """The preference pairs that each model learnt from."""
    if not results["pairs"]:
        return None
    data = pd.DataFrame(results["pairs"]).dropna(axis="columns", how="all")
    data = data.assign(key=data["variant"].map(repr)).sort_values(
        "method", key=lambda c: c.map(stages.order), kind="stable"
    )
    first = data.drop_duplicates(["method", "key"])[["method", "variant", "key"]].to_dict("records")
    numbers = data.drop(columns=["variant"]).groupby(["method", "key"]).mean(numeric_only=True)
    lines = []
    for name, row in zip(w.row_names(first), first, strict=True):
        own = numbers.loc[(row["method"], row["key"])]
        used = accounts.mean(accounts.pairs_used(results, row["method"], row["variant"]))
        line = {"Model": name} | {head: _count(own[k]) for head, k in _PAIRS.items() if k in own}
        line["So far"] = _count(used)
        if "n_attack" in own:
            mix = [own.get(k) for k in _KINDS]
            line["Attack / safe / borderline"] = w.DASH if pd.isna(mix[0]) else " / ".join(map(_count, mix))
        if "cut_share" in own:
            line[w.metric_head("cut_share")] = _count(100 * own["cut_share"], 1)
        if "chosen_less_safe" in own:
            line["Chosen less safe, %"] = _count(100 * own["chosen_less_safe"], 1)
        signed = {h: own[k] for h, k in _DIFFERENCES.items() if k in own}
        lines.append(line | {h: w.DASH if pd.isna(v) else f"{v:+.3f}" for h, v in signed.items()})
    caption = (
        "Preference pairs, mean over seeds. Candidates: pairs before the filters; near ties in helpfulness, repeated answers "
        "and pairs of two unsafe answers are dropped as the parameters say. Attack, safe, borderline: what the prompts were. So "
        "far: with all earlier iterations. Ran out of tokens: of the answers that pairs are made of. Safety score and helpfulness: "
        "mean of chosen minus rejected; a positive safety score "
        "means that the chosen answer is the less safe one, which the margin then carries."
    )
    kept = pd.DataFrame([{**r, "variant": str(r["variant"])} for r in results["pairs"]])
    return table(results, "pairs", "Preference pairs", caption, lines, kept, [{**r, "dataset": "pairs"} for r in first])


def _count(value: float | None, digits: int = 0) -> str:
    return w.DASH if pd.isna(value) else f"{value:,.{digits}f}"


_SHARES = {"Accuracy, %": "accuracy", "Sensitivity, %": "sensitivity", "Specificity, %": "specificity"}


def judge_cards(results: Results) -> Table | None:
    """Who judged, and how right each judge is against labels."""
    if not results["judges"]:
        return None
    lines, data = [], []
    for judge in results["judges"]:
        card = judge.get("card") or {}
        values = {k: (card.get(k) or {}).get("value") for k in (*_SHARES.values(), "kappa")}
        lines.append(
            {"Role": judge["role"], "Measures": judge["measure"]}
            | {"Seed": w.DASH if judge.get("seed") is None else str(judge["seed"])}
            | {"Judge": str(judge["name"]), "Version": str(judge.get("version") or w.DASH)}
            | {head: w.number(values[k], "accuracy") for head, k in _SHARES.items()}
            | {"Kappa": w.number(values["kappa"], "kappa", 2)}
            | {"Labelled answers": cell(card.get("n")), "Failures": cell(card.get("failures"))}
            | {"Read in part": cell(card.get("cut"))}
        )
        counts = card.get("counts") or {}
        data.append(
            {k: judge.get(k) for k in ("role", "measure", "seed", "name", "version")}
            | {k: card.get(k) for k in ("n", "failures", "cut", "threshold")}
            | values
            | {k: counts.get(k) for k in ("tp", "fp", "tn", "fn")}
        )
    caption = (
        "The judge that trains is not the judge that reports. Card: the judge's verdicts against labels (the oracle's on the "
        "testbed, people's elsewhere) on answers that no training saw: accuracy, sensitivity, specificity, Cohen's kappa. "
        "Failures: labelled answers that the judge could not score; read in part: those that were too long for it. An oracle has no "
        "card: it is the label."
    )
    shown = pd.DataFrame(lines)
    shown = shown.drop(columns="Seed") if (shown["Seed"] == w.DASH).all() else shown
    return table(results, "judge_cards", "Judge cards", caption, shown, data)


_SPENT = {
    "seconds": "Seconds",
    "tokens_trained": "Tokens trained on",
    "tokens_generated": "Tokens generated",
    "tokens_scored": "Tokens scored",
    "judge_calls": "Judge calls",
    "labels": "Labels learnt from",
}


def efficiency(results: Results) -> Table | None:
    """What the loop's own stages cost, by accepted pair and by point of unsafe rate removed."""
    spent = {k: v for k, v in accounts.loop_cost(results).items() if v}
    if not spent:
        return None
    accepted, points = accounts.accepted(results), accounts.removed(results)
    removed = points if points and points > 0 else None
    data: list[dict[str, Any]] = [
        {
            "spent": k,
            "total": v,
            "by_pair": v / accepted if accepted else None,
            "by_point": v / removed if removed else None,
        }
        for k, v in spent.items()
    ]
    lines = [
        {"Spent": _SPENT.get(d["spent"], d["spent"].replace("_", " ")), "In all": cell(d["total"])}
        | {"For an accepted pair": cell(d["by_pair"]), "For a point": cell(d["by_point"])}
        for d in data
    ]
    caption = (
        "What the loop itself cost: reset, red team, judging, pairs and alignment of all seeds and variants, each stage "
        f"instance once; neither baselines nor evaluation. {accepted:,.0f} pairs were accepted. A point: one percentage point of "
        "unsafe rate on attacks removed between the reset and the last iterate"
        + (f", {points:,.0f} over all seeds and variants." if removed else "; none was removed.")
    )
    return table(results, "efficiency", "Cost of the loop", caption, lines, data)
