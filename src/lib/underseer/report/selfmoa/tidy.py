"""Results of the loop as tidy tables, for the figures of its report; units and ``attrs`` as in ``report.tidy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.report import tidy
from underseer.report import wording as w
from underseer.report.names import iteration, named_numbers
from underseer.report.selfmoa import accounts, stages
from underseer.report.selfmoa.stages import Line, Results
from underseer.selfmoa.checks import BASELINES, HUMAN

SCORED = (("attack", "unsafe_rate"), ("safe", "helpfulness"), ("borderline", "over_refusal"))
"""What stands for safety, helpfulness and over-refusal: role of the set, and metric."""
WEIGHTS = "objective_weights"


def staged(results: Results, lines: Sequence[Line]) -> pd.DataFrame:
    """Runs of the loop as one table, with ``line`` (its name), ``place`` and ``tick`` (the stage)."""
    places = {m: k for k, m in enumerate(sorted({m for line in lines for m in line.rows}, key=stages.order))}
    rows = [r for line in lines for r in line.rows.values()]
    names = [line.name or "Self-MOA" for line in lines for _ in line.rows]
    methods = [r["method"] for r in rows]
    table = tidy.frame(results, rows)
    ticks = [stages.stage_name(m) for m in methods]
    return table.assign(line=names, place=[places[m] for m in methods], tick=ticks)


def by_stage(results: Results, *wanted: tuple[str, str]) -> pd.DataFrame:
    """Scores after each stage of the loop: of each (role, metric) every data set, in a ``panel`` of its own; role 'main_attack'
    is the set that stands for all attacks."""
    parts = []
    for role, metric in wanted:
        main = [w.main_dataset(results)]
        datasets = main if role == "main_attack" else stages.of_role(results, role)
        if role == "attack" and w.main_dataset(results) not in datasets:
            datasets = [*main, *datasets]
        parts += [of_dataset(results, dataset, metric) for dataset in datasets]
    return joined(results, [p for p in parts if len(p)])


def of_dataset(results: Results, dataset: str | None, metric: str) -> pd.DataFrame:
    """A score after each stage of the loop on one data set."""
    lines = stages.lines(results, stages.rows_of(results, dataset, metric))
    return staged(results, lines).assign(panel=w.capital(w.dataset_name(dataset or "")))


def joined(results: Results, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; the foot counts the items of the largest."""
    if not parts:
        return tidy.frame(results, [])
    table = pd.concat(parts, ignore_index=True)
    foot = w.sample_text(table.to_dict("records"), results["interval"]["covers"])
    return tidy.footed(results, table, foot)


def methods(results: Results) -> pd.DataFrame:
    """Every method on SCORED, a ``panel`` each; of several variants of the loop only the last iterates."""
    parts = []
    for role, metric in SCORED:
        dataset = stages.main_of(results, role)
        rows = stages.rows_of(results, dataset, metric)
        lines = stages.lines(results, rows)
        last = {line.last for line in lines}
        kept = [r for r in rows if len(lines) < 2 or not iteration(r["method"]) or r["method"] in last]
        if kept:
            parts.append(tidy.frame(results, kept).assign(panel=w.capital(w.dataset_name(dataset))))
    return joined(results, parts)


def categories(results: Results) -> pd.DataFrame:
    """Unsafe rate by harm category before and after the first run of the loop, the worst category after the reset first."""
    rows = [r for r in results["categories"] if r["metric"] == "unsafe_rate" and r["mean"] is not None]
    kept, worst = [], {}
    for category in sorted({r["category"] for r in rows}):
        line = next(iter(stages.lines(results, [r for r in rows if r["category"] == category])), None)
        if line:
            kept += [line.rows[m] for m in ("aligned", "reset", line.last) if m in line.rows]
            worst[category] = -(line.rows.get("reset") or next(iter(line.rows.values())))["mean"]
    if not kept:
        return tidy.frame(results, [])
    seeds = w.sample_text(kept).split(",")[0]
    name = w.capital(w.dataset_name(kept[0]["dataset"]))
    foot = f"{name}, prompts of all seeds in brackets; {seeds}; 95 % intervals over {results['interval']['covers']}"
    table = tidy.frame(results, kept, foot)
    order = {c: k for k, c in enumerate(sorted(worst, key=worst.__getitem__))}
    sizes = table.groupby("category")["n_items"].max()
    ticks = [f"{c.replace('_', ' ')} ({sizes[c]:,})" for c in table["category"]]
    return table.assign(place=table["category"].map(order), tick=ticks, name=table["method"].map(w.method_name))


def attack_success(results: Results) -> pd.DataFrame:
    """Attack success by iteration, a line a variant of the loop."""
    block = results.get("attacks") or {}
    rows = sorted(block.get("rows") or [], key=lambda r: stages.order(r["method"]))
    if not rows:
        return tidy.frame(results, [])
    rates = stages.lines(results, stages.rows_of(results, stages.main_of(results, "attack"), "unsafe_rate"))
    begun = {"reset" if "reset" in line.rows else "aligned model" for line in rates}
    first = begun.pop() if len(begun) == 1 else "first model"
    order = list(dict.fromkeys(r["method"] for r in rows))
    sizes = [sum(r["n_items"] for r in rows if r["method"] == m) for m in order]
    targets = [first, *(f"iterate {k}" for k in range(1, len(order)))]
    ticks = [f"{iteration(m)}\nagainst\n{t}\nn = {n:,}" for m, t, n in zip(order, targets, sizes, strict=True)]
    foot = f"{w.sample_text(rows).split(',')[0]}; n: prompts asked, all seeds; 95 % intervals over {block['covers']}"
    table = tidy.frame(results, rows, foot)
    at = table["method"].map(order.index)
    return table.assign(line=_variants(results, rows), place=at, tick=[ticks[k] for k in at])


def _variants(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each row's variant of the loop."""
    unique = list({repr(r["variant"]): r["variant"] for r in rows}.values())
    names = w.row_names([{"method": "selfmoa", "variant": v} for v in unique])
    return [names[unique.index(r["variant"])].partition("(")[2].rstrip(")") or "Self-MOA" for r in rows]


def strategies(results: Results) -> pd.DataFrame:
    """Attack success by strategy, over all iterations (method 'all') and in each, of the first variant of the loop."""
    rows = (results.get("attacks") or {}).get("strategies") or []
    rows = [r for r in rows if r["variant"] == rows[0]["variant"]]
    whole = sorted((r for r in rows if r["method"] == "all"), key=lambda r: -(r["mean"] or 0))
    order = {r["strategy"]: k for k, r in enumerate(whole)}
    ticks = {r["strategy"]: f"{r['strategy'].replace('_', ' ')} (n = {r['n_items']:,})" for r in whole}
    table = tidy.frame(results, rows, "")
    if not len(table):
        return table
    return table.assign(place=table["strategy"].map(order), tick=table["strategy"].map(ticks)).sort_values("place")


def fates(results: Results) -> pd.DataFrame:
    """What became of the red team's prompts: a line for each variant and iteration with counts of one seed (mean) by outcome, and
    ``self_bleu`` (with ``values``, one a seed) of the successful ones."""
    counts = (results.get("attacks") or {}).get("fate") or []
    if not counts:
        return pd.DataFrame()
    table = pd.DataFrame(counts).assign(line=_variants(results, counts))
    table["resisted"] = table["asked"] - table["successes"]
    outcomes = ["successes", "resisted", "duplicates", "refused_by_attacker", "not_judged"]
    table["n_successes"] = table["successes"]
    table[outcomes] = table[outcomes].div(table["n_seeds"], axis=0)
    seeds = w.plural(counts[0]["n_seeds"], "seed")
    table = table.rename(columns={"self_bleu_values": "values"})
    return tidy.footed(results, table, f"{seeds}; no intervals; n: successes of all seeds")


def weights(results: Results) -> pd.DataFrame:
    """The last iterate at each objective weight: unsafe rate on attacks, and (columns ``_across``) helpfulness on safe prompts, with
    ``label``; aligned model and reset follow. Empty where there is one weight only."""
    safe, attack = stages.main_of(results, "safe"), stages.main_of(results, "attack")
    safety, help_ = stages.rows_of(results, attack, "unsafe_rate"), stages.rows_of(results, safe, "helpfulness")
    across = {repr(x.variant): x for x in stages.lines(results, help_)}
    points = []
    for line in stages.lines(results, safety):
        other = across.get(repr(line.variant))
        if line.last and other and line.last in other.rows and WEIGHTS in line.variant:
            points.append((other.rows[line.last], line.rows[line.last], line.variant[WEIGHTS]))
    labels = weight_labels([f[2] for f in points])
    if len(set(labels)) < 2:
        return tidy.frame(results, [])
    explained = _explained(points[0][2])
    pairs = [(x, y) for x, y, _ in points]
    for method in ("aligned", "reset"):
        own = [[r for r in rows if r["method"] == method] for rows in (help_, safety)]
        if len(own[0]) == len(own[1]) == 1:
            pairs.append((own[0][0], own[1][0]))
            labels.append(w.method_name(method))
    foot = f"{w.sample_text([y for _, y, _ in points], results['interval']['covers'])}; {explained}"
    up = tidy.frame(results, [y for _, y in pairs], foot)
    over = tidy.frame(results, [x for x, _ in pairs]).add_suffix("_across")
    table = pd.concat([up, over], axis=1).assign(label=labels)
    table.attrs = up.attrs
    return table


def weight_labels(values: Sequence[Any]) -> list[str]:
    """'0.3 : 0.7' for 'helpfulness:0.3,safety:0.7' where all name the same objectives; else the values' own labels."""
    parts = [named_numbers(v) for v in values]
    same = all(parts) and len({tuple(p) for p in parts}) == 1
    return [" : ".join(p.values()) for p in parts] if same else w.labels(values)


def _explained(value: Any) -> str:
    named = named_numbers(value)
    return "labels: " + " : ".join(named) if named else "labels: objective weights"


def efficiency(results: Results, role: str = "attack", metric: str = "unsafe_rate") -> pd.DataFrame:
    """Preference pairs used up to each model (``pairs``, mean over seeds) and its score (unsafe rate on attacks), a ``line`` a method;
    then aligned model and reset, without pairs."""
    rows = stages.rows_of(results, stages.main_of(results, role), metric)
    points = []
    for line in stages.lines(results, rows):
        name = "Self-MOA" + (f" ({line.name})" if line.name else "")
        points += [
            (r, name, accounts.pairs_used(results, m, line.variant)) for m, r in line.rows.items() if iteration(m)
        ]
    for method in BASELINES:
        own = [r for r in rows if r["method"] == method]
        points += [(r, w.method_name(method), accounts.pairs_used(results, method, r["variant"])) for r in own]
    points = [(r, name, accounts.mean(used)) for r, name, used in points]
    points = [p for p in points if p[2]]
    if not points:
        return tidy.frame(results, [])
    before = [own[0] for m in ("aligned", "reset") if len(own := [r for r in rows if r["method"] == m]) == 1]
    points += [(r, w.method_name(r["method"]), float("nan")) for r in before]
    foot = w.sample_text([p[0] for p in points], results["interval"]["covers"]) + "; pairs: mean over seeds"
    kind = ["loop" if iteration(r["method"]) else "human" if r["method"] in HUMAN else "other" for r, *_ in points]
    table = tidy.frame(results, [p[0] for p in points], foot)
    return table.assign(line=[p[1] for p in points], pairs=[p[2] for p in points], kind=kind)


def quantity(metric: str) -> str | None:
    """What a training curve shows: 'chosen', 'rejected' (log-probabilities), 'margin', 'loss', or None."""
    name = metric.lower()
    if name.startswith(("eval", "validation")):
        return None
    if "logp" in name:
        return next((k for k in ("chosen", "rejected") if k in name), None)
    return "margin" if "margin" in name else "loss" if name.endswith("loss") else None


def curves(results: Results, *quantities: str) -> pd.DataFrame:
    """Training curves of some quantities: name, method, seed, step, quantity, value; of several variants of a method the first."""
    if not results.get("curves"):
        return pd.DataFrame()
    table = pd.DataFrame(results["curves"]).dropna(subset=["value"])
    table = table.assign(quantity=table["metric"].map(quantity))
    table = table[table["quantity"].isin(quantities)]
    if "variant" in table.columns and table["variant"].astype(str).nunique() > 1:
        kept = table.groupby("method")["variant"].transform("first")
        table = table[table["variant"].astype(str) == kept.astype(str)]
    table = table.sort_values("method", key=lambda c: c.map(stages.order), kind="stable")
    return tidy.with_seeds(results, table.assign(name=table["method"].map(w.method_name)))
