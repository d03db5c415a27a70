"""Rows of weak-to-strong experiments: test rows with every model's answer, and transfer rows with what supervisors said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from underseer.look.viewer.parts import KEYS, Part, inputs
from underseer.report.collect import Variants
from underseer.report.collect_w2s import ROLES, instances, method_name, vote_name
from underseer.report.selfmoa.stages import agrees
from underseer.w2s import tasks

ANSWERED = {
    "wrong": "Wrong",
    "right": "Right",
    "gained": "Weak supervisor wrong, student right",
    "lost": "Weak supervisor right, student wrong",
    "copied": "Weak supervisor and student wrong",
    "below_ceiling": "Student wrong, ceiling right",
}
LABELLED = {
    "wrong": "Label wrong",
    "right": "Label right",
    "gained": "Vote right, single supervisor wrong",
    "lost": "Vote wrong, single supervisor right",
    "split": "Supervisors disagree",
}
CONTINUED = {
    "toxic": "Toxic by the reporting judge",
    "civil": "Civil by the reporting judge",
    "toxic_training": "Toxic by the training judge",
    "disagree": "Judges disagree",
    "training_only": "Toxic by the training judge only",
    "empty": "Says nothing",
    "failed": "Without a score",
}
TOXIC = 0.5
"""From which score on a text counts as toxic, as in the report."""
FACTS = {
    "truth": "Truth",
    "category": "Category",
    "source": "Source",
    "group": "Group",
    "prompt_toxicity": "Toxicity of the prompt",
}


def parts(variants: Variants, task: str) -> list[Part]:
    """The test rows and, of a classifier, the transfer rows."""
    described = tasks.task(task)
    if described.kind == "continuation":
        return [p for p in (_continued(variants),) if p is not None]
    both = (_answered(variants, described.labels), _labelled(variants, described.labels))
    return [p for p in both if p is not None]


def _answered(variants: Variants, labels: Sequence[str]) -> Part | None:
    """Every classifier's answer to the test rows, with the truth."""
    frames = [
        output.table("predictions")
        .query("split == 'test'")
        .assign(method=method_name(role, output), role=role, **named, key=output.key)
        for role in ROLES
        for named, _, output in instances(variants, role)
    ]
    items = _items(variants, "test", labels)
    if not frames or items is None:
        return None
    cells = _with_truth(pd.concat(frames, ignore_index=True), items, labels)
    student, right = cells["role"] == "student", cells["right"]
    weak, ceiling = (_of_role(cells, role) for role in ("weak", "ceiling"))
    filters = {"wrong": ~right, "right": right, "gained": student & (weak == 0) & right}
    filters |= {"lost": student & (weak == 1) & ~right, "copied": student & (weak == 0) & ~right}
    filters |= {"below_ceiling": student & (ceiling == 1) & ~right}
    values = {f"probability of {labels[1]}": cells["p"].astype(float)}
    return Part("test", "Test rows", items, cells, FACTS, values, filters, ANSWERED, ("wrong", "right"))


def _labelled(variants: Variants, labels: Sequence[str]) -> Part | None:
    """The supervisors' answers to the transfer rows, and the label that each vote made of them."""
    frames, supervisors = [], {}
    for named, _, output in instances(variants, "weak_labels"):
        given, vote = output.table("weak_labels").query("split == 'transfer'"), vote_name(output)
        labelled = given.assign(method=f"vote_{vote}", answer=given["weak_label"], role=vote)
        frames.append(labelled.assign(**named, key=output.key))
        for k, one in enumerate(inputs(output, "supervisors")):
            supervisors.setdefault(one.key, (one, f"supervisor_{vote}_{k}", named["seed"]))
    items = _items(variants, "transfer", labels)
    if not frames or items is None:
        return None
    for one, method, seed in supervisors.values():
        given = one.table("predictions").query("split == 'transfer'")
        frames.append(given.assign(method=method, role="supervisor", variant="{}", seed=seed, key=one.key))
    cells = _with_truth(pd.concat(frames, ignore_index=True), items, labels)
    vote, right = cells["role"].isin(["hard", "soft"]), cells["right"]
    single = _of_role(cells, "single")
    filters = {"wrong": ~right, "right": right, "gained": vote & (single == 0) & right}
    filters |= {"lost": vote & (single == 1) & ~right, "split": cells["share"] < 1}
    values = {f"probability of {labels[1]}": cells["p"].astype(float), "share of supervisors": cells["share"]}
    names = {m: _label_name(m) for m in cells["method"].unique()}
    return Part("transfer", "Weak labels", items, cells, FACTS, values, filters, LABELLED, ("wrong", "right"), names)


def _continued(variants: Variants) -> Part | None:
    """Every model's continuations of the test prompts, with both judges' scores."""
    frames = []
    for role in ROLES:
        for named, cell, output in instances(variants, role):
            if f"{role}_scores" in cell["outputs"]:
                scored = cell["outputs"][f"{role}_scores"].table("scores")
                frames.append(scored.assign(method=method_name(role, output), **named, key=output.key))
    items = _items(variants, "test", None)
    if not frames or items is None:
        return None
    cells = pd.concat(frames, ignore_index=True)
    cells = cells.assign(tag=["greedy" if d == 0 else f"draw {d}" for d in cells["draw"]])
    reporting = cells["toxicity"].astype(float)
    training = cells["toxicity_training"].astype(float) if "toxicity_training" in cells else float("nan") * reporting
    disagree = reporting.notna() & training.notna() & ((reporting >= TOXIC) != (training >= TOXIC))
    filters = {"toxic": reporting >= TOXIC, "civil": reporting < TOXIC, "toxic_training": training >= TOXIC}
    filters |= {"disagree": disagree, "training_only": disagree & (training >= TOXIC)}
    filters |= {"empty": cells["text"].str.strip() == "", "failed": reporting.isna()}
    values = {"toxicity, reporting judge": reporting, "toxicity, training judge": training}
    return Part("test", "Continuations", items, cells, FACTS, values, filters, CONTINUED, ("toxic", "civil"))


def _items(variants: Variants, split: str, labels: Sequence[str] | None) -> pd.DataFrame | None:
    """Rows of a split of every seed's data, with the truth: of the test split from the labels that are stored apart. Data that
    differ in what else they hold, such as rows for supervisors, share rows: each stands once."""
    frames = []
    for named, _, output in instances(variants, "data"):
        rows = output.table("rows").query("split == @split").drop(columns="split")
        if split == "test" and output.has("test_labels.parquet"):
            truth = output.table("test_labels")
            rows = rows.drop(columns=[c for c in truth.columns if c != "id" and c in rows]).merge(truth, on="id")
        pair = rows["text_pair"] if "text_pair" in rows else pd.Series("", index=rows.index)
        prompt = [
            t if not isinstance(p, str) or not p else f"{t}\n{p}" for t, p in zip(rows["text"], pair, strict=True)
        ]
        truth = [labels[int(v)] for v in rows["label"]] if labels else None
        frames.append(rows.assign(seed=named["seed"], prompt=prompt, truth=truth))
    items = pd.concat(frames).drop_duplicates(KEYS).reset_index(drop=True) if frames else None
    return items if items is None else items[[c for c in items.columns if items[c].notna().any()]]


def _with_truth(cells: pd.DataFrame, items: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Answers with ``answer`` (0 or 1), whether it is right, and its name as the tag."""
    own = cells["answer"] if "answer" in cells else float("nan") * cells["p"]
    answer = own.fillna((cells["p"] >= 0.5).astype(float)).astype(int)
    truth = cells[KEYS].merge(items[[*KEYS, "label"]], on=KEYS, how="left")["label"]
    share = cells["share"] if "share" in cells else float("nan")
    named = {"answer": answer, "share": share, "right": answer.to_numpy() == truth.to_numpy()}
    return cells.assign(**named, text=None, tag=[labels[a] for a in answer])


def _of_role(cells: pd.DataFrame, role: str) -> pd.Series:
    """Whether the model of a role is right on the row of each answer, of the variant that agrees; NaN where there is none."""
    theirs = cells[cells["role"] == role]
    variants = theirs["variant"].unique()
    fitting: Mapping[str, str] = {
        v: next((o for o in variants if agrees(_but_vote(o), json.loads(v))), "") for v in cells["variant"].unique()
    }
    known = (
        theirs.drop_duplicates(["variant", "seed", "id"]).set_index(["variant", "seed", "id"])["right"].astype(float)
    )
    asked = pd.MultiIndex.from_arrays([cells["variant"].map(fitting), cells["seed"], cells["id"]])
    return pd.Series(known.reindex(asked).to_numpy(), index=cells.index)


def _but_vote(variant: str) -> dict[str, object]:
    return {k: v for k, v in json.loads(variant).items() if k != "voting"}


def _label_name(method: str) -> str:
    kind, _, rest = method.partition("_")
    if kind == "vote":
        return f"Label of the {rest} supervisor" if rest == "single" else f"Label by {rest} vote"
    vote, _, k = rest.rpartition("_")
    return "Single supervisor" if vote == "single" else f"Supervisor {int(k) + 1} of the {vote} vote"
