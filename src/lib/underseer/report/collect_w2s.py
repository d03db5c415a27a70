"""From the stored outputs of all W2S variants to tidy tables, and to results.json.

Predictions on the test split were stored without labels; here, in the report, they meet the sealed test labels by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from underseer.errors import StageError
from underseer.report import collect
from underseer.report.collect import Cell, Output, Run, Variants
from underseer.report.results import Experiment
from underseer.w2s.tasks import RELIABLE, Task

VOTES = {"none": "single", "hard": "hard", "soft": "soft"}
METHODS = {"weak": "weak", "ceiling": "strong_ceiling"}
VOTE_NAMES = {"none": "naive", "hard": "hard_vote", "soft": "soft_vote"}
ROLES = ("weak", "student", "ceiling")
ORACLE = {"name": "oracle", "version": "testbed", "calibration": None}


def student_name(voting: str, student_loss: str) -> str:
    """The method's name: ``w2s_naive``, ``w2s_hard_vote``, ``w2s_mbr``, and ``w2s_<loss>`` for other losses.

    Two losses exist with a vote only, so that the vote is left out of their names where it is the hard one.
    """
    vote = VOTE_NAMES.get(voting, voting)
    if student_loss == "hard_ce":
        return f"w2s_{vote}"
    alone = "hard" if student_loss in RELIABLE else "none"
    return f"w2s_{student_loss}" if voting == alone else f"w2s_{vote}_{student_loss}"


def method_name(role: str, output: Output) -> str:
    """The method that a stage instance stands for: ``weak``, ``strong_ceiling``, or the student's name."""
    p = output.parameters
    return METHODS.get(role) or student_name(p["voting"], p["student_loss"])


def vote_name(output: Output) -> str:
    """The vote behind a stage's weak labels, as the report calls it."""
    voting = output.parameters["voting"]
    return VOTES.get(voting, voting)


def predictions(task: Task, variants: Variants) -> pd.DataFrame:
    """Every method's answers to the test split with the truth: one row an item (method, variant, seed, dataset, id, label, p), or one
    a continuation. A stage that several variants share appears once.

    Raises:
        StageError: when answers and test split do not have the same ids.
    """
    if task.kind == "continuation":
        return _continuations(variants)
    rows = classified(variants)
    return rows if task.name != "legal" else _clustered(rows, variants)


def classified(variants: Variants) -> pd.DataFrame:
    """Every classifier's predictions on the test split: method, variant (JSON), seed, dataset, id, label, p."""
    frames = []
    for role in ROLES:
        for named, cell, output in instances(variants, role):
            name = method_name(role, output)
            truth = cell["outputs"]["data"].table("test_labels")
            given = output.table("predictions").query("split == 'test'")
            rows = _join(truth, given, f"{name}, {output.key}")
            frames.append(rows.assign(method=name, **named, dataset="test"))
    columns = ["method", "variant", "seed", "dataset", "id", "label", "p"]
    return pd.concat(frames, ignore_index=True)[columns]


def _continuations(variants: Variants) -> pd.DataFrame:
    """Every method's scored continuations of the test prompts, each with its prompt's stored toxicity."""
    frames = []
    for role in ROLES:
        for named, cell, output in instances(variants, role):
            truth = cell["outputs"]["data"].table("test_labels")[["id", "prompt_toxicity"]]
            scored = cell["outputs"][f"{role}_scores"].table("scores")
            rows = scored.merge(truth, on="id", how="left", validate="many_to_one")
            if rows.prompt_toxicity.isna().any() or set(rows.id) != set(truth.id):
                raise StageError(f"{output.key}: the continuations are of other prompts than the test split's")
            frames.append(rows.assign(method=method_name(role, output), **named, dataset="test"))
    first = ["method", "variant", "seed", "dataset", "id", "draw"]
    table = pd.concat(frames, ignore_index=True)
    return table[first + [c for c in table.columns if c not in first]]


def _clustered(rows: pd.DataFrame, variants: Variants) -> pd.DataFrame:
    """Rows of the legal task with the ``cluster`` that they were drawn in, a hash of their question."""
    asked = {i: t for cell in variants for i, t in cell["outputs"]["data"].table("rows")[["id", "text"]].to_numpy()}
    return rows.assign(cluster=[hashlib.sha256(asked[i].encode()).hexdigest()[:16] for i in rows.id])


def results(task: Task, name: str, run: Run, variants: Variants, rows: pd.DataFrame) -> dict[str, Any]:
    """results.json, from the rows that ``predictions`` gave; hygiene, and the parameters that are compared with the paper's, are those of the
    first variant."""
    from underseer.report import generation
    from underseer.report import results as classification

    first = variants[0]["outputs"]
    experiment = Experiment(
        name=name,
        pipeline="w2s",
        task=task.name,
        synthetic=run.synthetic,
        cost=run.costs(),
        provenance=run.provenance(),
        hygiene=first["data"].table("hygiene"),
        curves=curves(variants),
        texts=texts(variants),
        published=task.published_for({**first["weak"].parameters, **first["student"].parameters}),
    )
    if task.kind == "continuation":
        given = {"judges": judges(variants), "labels": taught(variants)}
        return generation.build_generation_results(experiment, rows, **given)
    weak_labels = labels(variants)
    weak_labels = weak_labels if task.name != "legal" else _clustered(weak_labels, variants)
    return classification.build_results(experiment, rows, labels=weak_labels, classes=task.labels)


def labels(variants: Variants) -> pd.DataFrame:
    """What the supervisors said of the transfer rows, beside the truth: vote, variant (JSON), seed, id, label, p,
    weak_label."""
    frames = []
    for named, cell, output in instances(variants, "weak_labels"):
        rows = cell["outputs"]["data"].table("rows").query("split == 'transfer'")
        given = output.table("weak_labels").query("split == 'transfer'")
        joined = _join(rows[["id", "label"]], given, f"weak labels {output.key}")
        frames.append(joined.assign(vote=vote_name(output), **named))
    columns = ["vote", "variant", "seed", "id", "label", "p", "weak_label"]
    return pd.concat(frames, ignore_index=True)[columns].astype({"label": int})


def taught(variants: Variants) -> pd.DataFrame:
    """The continuations that students learn from: vote, variant, seed, id, toxicity by the training judges; where the testbed's
    oracle reports, toxicity is its score, and that of the training judges stands in toxicity_training. cut: whether it ran out of
    tokens, where that is known."""
    from underseer.judges.oracle import Oracle

    frames = []
    for named, cell, output in instances(variants, "weak_labels"):
        rows = output.table("weak_labels").query("split == 'transfer'").dropna(subset="continuation")
        rows = rows.assign(vote=vote_name(output), **named)
        if "reporting_judge" not in cell["outputs"]:
            texts = rows["continuation"].tolist()
            rows = rows.assign(toxicity_training=rows["toxicity"], toxicity=Oracle().score(texts).values)
        frames.append(rows)
    columns = ["vote", "variant", "seed", "id", "toxicity", "toxicity_training", "cut"]
    return pd.concat(frames, ignore_index=True).reindex(columns=columns).dropna(axis="columns", how="all")


def curves(variants: Variants) -> pd.DataFrame:
    """The training curves of every student, ceiling and single supervisor: method, seed, step, metric, value."""
    frames = []
    for role in ROLES:
        for named, _, output in instances(variants, role):
            shown = output.table("curves").query("metric != 'learning_rate'")
            frames.append(shown.assign(method=method_name(role, output), seed=named["seed"]))
    return pd.concat(frames, ignore_index=True)


def judges(variants: Variants) -> list[dict[str, Any]]:
    """Each scorer once: role, name, version, seed, how it agrees with stored scores, how often it failed, and how many
    held-out texts it read in part."""
    known: dict[str, dict[str, Any]] = {}
    counted: set[tuple[str, str]] = set()
    for cell in variants:
        scored = {cell["outputs"][f"{r}_scores"].key: cell["outputs"][f"{r}_scores"] for r in ROLES}
        for role, column in (("reporting", "toxicity"), ("training", "toxicity_training")):
            output = cell["outputs"].get(f"{role}_judge")
            key = output.key if output else role
            if key not in known:
                known[key] = {**(_described(output) if output else ORACLE), "role": role, "failures": 0}
                known[key] |= {"seed": output.parameters["seed"]} if output else {}
            new = [s.table("scores")[column] for k, s in scored.items() if (key, k) not in counted]
            known[key]["failures"] += int(sum(scores.isna().sum() for scores in new))
            counted |= {(key, k) for k in scored}
    return list(known.values())


def _described(output: Output) -> dict[str, Any]:
    """What a judge's stage says of it, its reliability as lists over bins that hold something."""
    judge = output.json("judge")
    calibration = judge["calibration"]
    bins = calibration.pop("reliability")
    full = [k for k, n in enumerate(bins["n"]) if n]
    names = {"predicted": "mean_predicted", "stored": "mean_truth", "count": "n"}
    calibration["bins"] = {n: [bins[c][k] for k in full] for n, c in names.items()}
    return {**judge, "calibration": calibration, "cut": output.metrics.get("cut")}


def texts(variants: Variants) -> dict[str, str]:
    """The text of every test row, by id."""
    return {i: t for _, output in collect.once(variants, "data") for i, t in test_texts(output).items()}


def test_texts(data: Output) -> dict[str, str]:
    """The text of every test row of one data stage, by id."""
    rows = data.table("rows").query("split == 'test'")
    return dict(zip(rows.id, rows.text, strict=True))


def summary(variants: Variants, results: Mapping[str, Any]) -> dict[str, Any]:
    """Final numbers by variant and by configuration, for MLflow (``collect.by_configuration``): scores as ``<role>_<metric>``, and
    ``pgr_<metric>``."""
    main = results["rows"][0]["dataset"] if results["rows"] else None
    rows = [(f"{_role(r)}_{r['metric']}", r) for r in results["rows"] if r["dataset"] == main]
    rows += [(f"pgr_{r['metric']}", r) for r in results["pgr"] if r["dataset"] == main]
    cells = []
    for cell in variants:
        student = cell["outputs"]["student"].parameters
        values = {k: v for k, v in cell["values"].items() if k != "seed"}
        own = [(name, r) for name, r in rows if _belongs(r, student, values)]
        cells.append((cell, cell["outputs"]["data"].parameters["seed"], own))
    return collect.by_configuration(cells)


def _belongs(row: Mapping[str, Any], student: Mapping[str, Any], configuration: Mapping[str, Any]) -> bool:
    role = _role(row)
    if role == "student" and row["method"] != student_name(student["voting"], student["student_loss"]):
        return False
    variant = {k: v for k, v in row["variant"].items() if (role, k) != ("weak", "voting")}
    return all(configuration.get(k, v) == v for k, v in variant.items())


def _role(row: Mapping[str, Any]) -> str:
    return {"weak": "weak", "strong_ceiling": "ceiling"}.get(row["method"], "student")


def instances(variants: Variants, role: str) -> Iterator[tuple[dict[str, Any], Cell, Output]]:
    """Each stage instance that fills a role once: its ``variant`` (JSON) and ``seed``, the first cell that it is in, and its output."""
    fixed = {"voting": "none"} if role == "weak" else {}
    for cells, output in collect.once(variants, role):
        named = {"variant": collect.variant_text(cells, **fixed), "seed": output.parameters["seed"]}
        yield named, cells[0], output


def _join(truth: pd.DataFrame, given: pd.DataFrame, name: str) -> pd.DataFrame:
    joined = truth.merge(given.drop(columns=["split"]), on="id", how="outer", validate="one_to_one", indicator=True)
    lost = int((joined["_merge"] != "both").sum())
    if lost:
        raise StageError(
            f"{name}: {lost} of {len(joined)} ids stand on one side only; the predictions are of other rows"
        )
    return joined.drop(columns=["_merge"])
