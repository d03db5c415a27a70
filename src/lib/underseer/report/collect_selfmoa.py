"""From the stored outputs of all variants of the loop to tidy tables, and to results.json.

Roles of a variant's outputs: ``evaluation_<method>`` (tables ``evaluation``; json ``utility``), ``red_team_<k>`` (table
``attacks``, the archive so far), ``preferences_<k>`` (table ``pairs``, json ``summary``), ``align_<method>`` (table ``curves``), ``reset``,
and the judges of ``JUDGES`` (json ``card``). What is not there is left out. Only the report reads the answers of an evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from underseer.errors import StageError
from underseer.report import collect
from underseer.report.collect import Cell, Output, Run, Variants
from underseer.report.names import iteration
from underseer.report.results import Experiment
from underseer.report.selfmoa import stages
from underseer.report.selfmoa.case import raw_texts
from underseer.selfmoa.checks import HUMAN

JUDGES = {
    "training_judge": ("training", "unsafe"),
    "helpfulness_judge": ("training", "helpful"),
    "refusal_judge": ("reporting", "refusal"),
    "reporting_judge": ("reporting", "unsafe"),
    "reporting_helpfulness_judge": ("reporting", "helpful"),
}
"""Roles of judges, of members of a vote as ``ROLE_member_K``: who listens to them, and what they measure."""

COUNTS = ("n_candidates", "n_prompts", "dropped_near_ties", "dropped_duplicates", "dropped_both_unsafe")
"""What the summary of a preference stage may count."""


def once(variants: Variants, role: str) -> Iterator[tuple[dict[str, Any], Output]]:
    """Each stage instance that fills a role once, as (its ``variant`` as JSON and its ``seed``, its output)."""
    for cells, output in collect.once(variants, role):
        yield _instance(cells, output), output


def _instance(cells: Sequence[Cell], output: Output) -> dict[str, Any]:
    return {"variant": collect.variant_text(cells), "seed": seed_of(cells[0], output)}


def seed_of(cell: Cell, output: Output) -> int:
    """The seed of a variant: its own, or that of one of its outputs where all variants share it."""
    return int(cell["values"].get("seed", output.parameters.get("seed", 0)))


def suffixes(variants: Variants, start: str) -> list[str]:
    """What follows ``start`` in the roles that begin with it, in order: methods, or iterations."""
    roles = dict.fromkeys(r for cell in variants for r in cell["outputs"])
    ends = [r.removeprefix(start) for r in roles if r.startswith(start)]
    return sorted(ends, key=int) if all(f.isdigit() for f in ends) else ends


def results(
    name: str, run: Run, variants: Variants, answers: pd.DataFrame, n_boot: int | None = None
) -> dict[str, Any]:
    """results.json from the judged answers that ``answers`` gave. n_boot: draws of the bootstrap, where not the usual number."""
    from underseer.report.selfmoa.results import Loop, build_selfmoa_results

    experiment = Experiment(
        name=name,
        pipeline="selfmoa",
        task="self-alignment",
        synthetic=run.synthetic,
        cost=costs(run, variants),
        provenance=run.provenance(),
        curves=curves(variants),
        notes=collect.taught(variants),
    )
    tables = {"attacks": attacks(variants), "pairs": pairs(variants), "utility": utility(variants)}
    boot = {"n_boot": n_boot} if n_boot else {}
    loop = Loop(judges=judges(variants), **tables)
    return build_selfmoa_results(experiment, answers, loop, unsafe_threshold=threshold(variants), **boot)


def answers(variants: Variants) -> pd.DataFrame:
    """Every judged answer of every model: method, variant, seed, and the columns of its evaluation.

    Raises:
        StageError: when no evaluation is among the outputs.
    """
    table = stage_tables(variants, "evaluation_", "evaluation")
    if table is None:
        raise StageError("no variant has an output 'evaluation_<method>': there is nothing to report")
    return table.drop(columns="key")


def curves(variants: Variants) -> pd.DataFrame | None:
    """Training curves of every aligned model: method, variant, seed, step, metric, value."""
    table = stage_tables(variants, "align_", "curves")
    return table if table is None else table.drop(columns="key")


def stage_tables(variants: Variants, start: str, name: str) -> pd.DataFrame | None:
    """A table of every stage whose role begins with ``start``, with ``method`` (what follows it), variant, seed and key."""
    frames = [
        output.table(name).assign(method=method, **instance, key=output.key)
        for method in suffixes(variants, start)
        for instance, output in once(variants, start + method)
        if output.has(f"{name}.parquet")
    ]
    return pd.concat(frames, ignore_index=True) if frames else None


def utility(variants: Variants) -> pd.DataFrame | None:
    """method, variant, seed, metric, value, and stderr, n where a benchmark tells them; the share of judged answers that ran out of
    tokens among them."""
    rows = []
    for method in suffixes(variants, "evaluation_"):
        for instance, output in once(variants, f"evaluation_{method}"):
            benchmarks = output.json("utility") if output.has("utility.json") else {}
            rows += [{"method": method, **instance, **row} for row in _utility(benchmarks)]
            if (share := output.metrics.get("cut_share")) is not None:
                n = len(output.table("evaluation"))
                rows.append({"method": method, **instance, "metric": "cut_share", "value": share, "n": n})
    return pd.DataFrame(rows) if rows else None


def _utility(benchmarks: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Perplexity, and the accuracy of each benchmark."""
    if benchmarks.get("perplexity") is not None:
        yield {"metric": "perplexity", "value": benchmarks["perplexity"], "n": benchmarks.get("n_texts")}
    for task, score in benchmarks.items():
        if isinstance(score, Mapping) and score.get("acc") is not None:
            yield {"metric": task, "value": score["acc"], "stderr": score.get("stderr"), "n": score.get("n")}


def attacks(variants: Variants) -> pd.DataFrame | None:
    """The archive of the last red team of each variant and seed."""
    last: dict[tuple[str, int], Any] = {}
    for k in suffixes(variants, "red_team_"):
        last |= {(t["variant"], t["seed"]): o for t, o in once(variants, f"red_team_{k}")}
    frames = [o.table("attacks").assign(variant=v, seed=s) for (v, s), o in last.items()]
    return pd.concat(frames, ignore_index=True) if frames else None


def pairs(variants: Variants) -> pd.DataFrame | None:
    """What every model learnt from, and whose labels stand behind it: one row a method, variant and seed, as
    ``build_selfmoa_results`` takes it."""

    def learnt(start: str, name: str) -> Iterator[tuple[str, dict[str, Any], Output]]:
        for suffix in suffixes(variants, start):
            for cells, output in collect.once(variants, start + suffix):
                method = name.format(suffix)
                row = {"method": method, **_instance(cells, output), **labels(cells[0], method)}
                yield suffix, row | collect.objectives(cells[0], method), output

    rows = [row | _counted(output, int(k)) for k, row, output in learnt("preferences_", "selfmoa_iter{}")]
    for method, row, output in learnt("align_", "{}"):
        n = output.metrics.get("n_pairs", output.metrics.get("pairs_trained"))
        if n is not None and iteration(method) is None:
            rows.append(row | {"n_pairs": int(n)})
    return pd.DataFrame(rows) if rows else None


def labels(cell: Cell, method: str) -> dict[str, Any]:
    """Who ordered a method's pairs, and the labels behind its judges, each counted by itself (None: not trained here)."""
    if method in HUMAN:
        return {"ordered_by": "people", "judge_labels": 0}
    judges = [cell["outputs"].get(role) for role in ("training_judge", "helpfulness_judge")]
    learnt = [judge.metrics.get("n_labels") if judge else None for judge in judges]
    return {"ordered_by": "judges", "judge_labels": None if None in learnt else int(sum(learnt))}


def _counted(output: Output, iteration: int) -> dict[str, Any]:
    """Counts and mean differences of one iteration's own pairs."""
    own = output.table("pairs")
    if "iteration" in own.columns:
        own = own[own["iteration"] == iteration]
    summary = output.json("summary") if output.has("summary.json") else {}
    counts = {k: summary[k] for k in COUNTS if summary.get(k) is not None}
    counts |= {f"n_{k}": int((own["set"] == k).sum()) for k in ("attack", "safe", "borderline")}
    counts |= {k: output.metrics[k] for k in ("cut_share",) if k in output.metrics}
    counts |= {"iteration": iteration, "n_pairs": len(own)}
    if len(own):
        counts["safety_difference"] = float(own["safety_difference"].mean())
        counts["chosen_less_safe"] = float((own["safety_difference"] > 0).mean())
        counts["helpful_difference"] = float((own["helpful_chosen"] - own["helpful_rejected"]).mean())
    return counts


def judges(variants: Variants) -> list[dict[str, Any]]:
    """Every judge: role, measure, name, version, seed (None where all share it), variant, card; those of the evaluation as
    it names them."""
    listed: list[dict[str, Any]] = []
    members = [f"{role}_member_{k}" for role in JUDGES for k in suffixes(variants, f"{role}_member_")]
    for role in (*JUDGES, *members):
        listener, measure = JUDGES[role.partition("_member_")[0]]
        for cells, output in collect.once(variants, role):
            seeds = {seed_of(c, output) for c in cells}
            seed = seeds.pop() if len(seeds) == 1 else None
            card = output.json("card")
            named = {"role": card.get("role", listener), "measure": card.get("measure", measure)}
            named |= {"name": card.get("judge"), "version": card.get("version")}
            listed.append({**named, "seed": seed, "variant": json.loads(collect.variant_text(cells)), "card": card})
    known = {(j["role"], j["measure"]) for j in listed}
    for method in suffixes(variants, "evaluation_")[:1]:
        _, output = next(once(variants, f"evaluation_{method}"))
        reporting = [{"seed": None, "card": None, **judge} for judge in output.json("judges")]
        listed += [judge for judge in reporting if (judge["role"], judge["measure"]) not in known]
    return listed


def costs(run: Run, variants: Variants) -> dict[str, dict[str, Any]]:
    """The ledger of every stage instance, with the ``role`` that it has in the loop."""
    roles = {
        o.key: role for cell in variants for role, o in cell["outputs"].items() if not role.startswith("evaluation_")
    }
    spent = run.costs()
    return {n: {**c, **({"role": roles[k]} if (k := n.rpartition("/")[2]) in roles else {})} for n, c in spent.items()}


def threshold(variants: Variants) -> float:
    """From which safety score on an answer counts as unsafe.

    Raises:
        StageError: when the evaluations do not agree on it.
    """
    outputs = [o for cell in variants for role, o in cell["outputs"].items() if role.startswith("evaluation_")]
    thresholds = sorted({float(o.parameters["unsafe_threshold"]) for o in outputs})
    if len(thresholds) != 1:
        given = ", ".join(map(str, thresholds)) or "none"
        raise StageError(f"unsafe_threshold: the evaluations of one report must share it; they have {given}")
    return thresholds[0]


def evaluated(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Variants as a report's manifest holds them (values, roles), with those outputs that hold judged answers."""
    from underseer import store

    kept = []
    for cell in cells:
        keys = {r: k for r, k in cell["roles"].items() if r.startswith("evaluation_")}
        outputs = {r: store.read("selfmoa/5_evaluate", k) for r, k in keys.items()}
        kept.append({"values": cell["values"], "outputs": {r: o for r, o in outputs.items() if o}})
    return kept


def case_texts(case: Mapping[str, Any] | None, variants: Variants) -> dict[str, str]:
    """The raw prompts and answers of a case study, by the names that the page knows them by."""
    return raw_texts(case, answers(variants)) if case else {}


PLAIN = re.compile(r"[^A-Za-z0-9_.-]+")
"""What may not stand in a metric's name in MLflow."""


def summary(variants: Variants, results: Mapping[str, Any]) -> dict[str, Any]:
    """Final numbers by variant and by configuration, for MLflow (``collect.by_configuration``): ``<method>_<metric>_<data set>``, the
    last iterate also as ``selfmoa``."""
    rows = list(_named(results))
    cells = []
    for cell in variants:
        own = [(n, r) for n, r in rows if _belongs(r, cell)]
        own += [(n.replace(last, "selfmoa", 1), r) for last in [_last(own)] for n, r in own if r["method"] == last]
        cells.append((cell, seed_of(cell, next(iter(cell["outputs"].values()))), own))
    return collect.by_configuration(cells)


SUMMARISED = {
    "attack": ("unsafe_rate", "safety_score", "helpfulness", "refusal_rate", "unsafe_rate_training_judge"),
    "held_out": ("unsafe_rate",),
    "safe": ("helpfulness", "over_refusal"),
    "borderline": ("over_refusal",),
}
"""Metrics for MLflow by what a set is for, of the set that stands for it; further sets stand in the report alone."""


def _named(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows with their names: of the sets of SUMMARISED, the red team and utility."""
    kept = {s["dataset"]: "held_out" for s in results["sets"] if s["dataset"].startswith("held_out")}
    kept |= {stages.main_of(results, role): role for role in ("attack", "safe", "borderline")}
    for r in results["rows"]:
        if r["dataset"] in ("red_team", "utility"):
            yield PLAIN.sub("_", f"{r['method']}_{r['metric']}"), r
        elif r["metric"] in SUMMARISED.get(kept.get(r["dataset"], ""), ()):
            yield PLAIN.sub("_", f"{r['method']}_{r['metric']}_{r['dataset']}"), r


def _last(own: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The last iterate among rows, or '' where there is none."""
    iterates = [r["method"] for _, r in own if iteration(r["method"])]
    return max(iterates, key=lambda m: iteration(m) or 0, default="")


def _belongs(row: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a row is of a variant: one of its models, and no key of the grid at odds."""
    if not row["method"] or (f"evaluation_{row['method']}" not in cell["outputs"] and row["dataset"] != "red_team"):
        return False
    values = json.loads(json.dumps(cell["values"]))
    return all(values.get(k, v) == v for k, v in row["variant"].items())
