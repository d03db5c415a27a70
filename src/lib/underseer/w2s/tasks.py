"""The weak-to-strong tasks of arXiv 2410.12621, described: what is learnt, from which rows, and what the paper reports.

How each is done stands in the notebooks: 2_supervisors, 3_weak_labels and 4_student of a task that classifies, those with
``_continuation`` in their names of one that continues prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Task:
    """One task of the paper."""

    name: str
    kind: str  # classification | continuation: which notebooks do it
    title: str
    labels: tuple[str, str]  # names of class 0 and class 1
    metrics: tuple[str, ...]  # reported, the primary one first
    votings: tuple[str, ...]  # how the answers of several supervisors may be combined
    losses: tuple[str, ...]  # what a student may minimise
    sealed: tuple[str, ...]  # columns that are the truth: those of the test split only the report sees
    weak: str  # the paper's models, as hub ids
    strong: str
    train_labels: frozenset[int] | None = None  # classes that may be learnt from; None: all
    # method -> metric -> value; empty where the paper's numbers are not at hand (PAPERS.md)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    published_source: str = ""

    def seal(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(rows without the truth of the test split, that truth by id)."""
        test = rows.split == "test"
        sealed = rows.assign(label=rows.label.astype("Int64"))
        return sealed.assign(**{c: sealed[c].mask(test) for c in self.sealed}), rows.loc[test, ["id", *self.sealed]]

    def published_for(self, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Published values, where an experiment has the paper's models; else None."""
        models = tuple(str(parameters.get(k)).partition("@")[0] for k in ("weak_model", "strong_model"))
        if models != (self.weak, self.strong) or not self.published:
            return None
        return {"source": self.published_source, "note": "read off the figure, ±0.001", "values": dict(self.published)}


RELIABLE = ("filtered_ce", "weighted_ce")
"""Student losses that trust weak labels by how far the supervisors agree."""

_CLASSIFY = {
    "kind": "classification",
    "metrics": ("accuracy", "balanced_accuracy", "f1", "auroc"),
    "votings": ("none", "hard", "soft"),
    "losses": ("hard_ce", "soft_ce", "aux_conf", *RELIABLE),
    "sealed": ("label",),
    "weak": "openai-community/gpt2",
    "strong": "openai-community/gpt2-medium",
}

TASKS: dict[str, Task] = {
    "safety": Task(name="safety", title="Classify a prompt as safe or unsafe", labels=("safe", "unsafe"), **_CLASSIFY),
    "legal": Task(
        name="legal",
        title="Is a clause of a privacy policy relevant to a question?",
        labels=("irrelevant", "relevant"),
        published={
            "weak": {"accuracy": 0.802, "balanced_accuracy": 0.806, "f1": 0.801},
            "w2s_naive": {"accuracy": 0.810, "balanced_accuracy": 0.814, "f1": 0.810},
            "strong_ceiling": {"accuracy": 0.876, "balanced_accuracy": 0.874, "f1": 0.876},
        },
        published_source="arXiv 2410.12621, Figure 1",
        **_CLASSIFY,
    ),
    "toxicity": Task(
        name="toxicity",
        kind="continuation",
        title="Continue a prompt without toxic text",
        labels=("civil", "toxic"),
        metrics=("toxicity", "toxic_share", "expected_max_toxicity", "toxicity_probability"),
        votings=("none", "best_of_b", "least_toxic", "mbr"),
        losses=("hard_ce",),
        sealed=("label", "continuation", "toxicity", "prompt_toxicity"),
        train_labels=frozenset({0}),  # the paper: training rows have toxicity below 0.5
        weak="openai-community/openai-gpt",
        strong="openai-community/gpt2",
    ),
}


def task(name: str) -> Task:
    """A task by name. Raises UserError for one that does not exist."""
    if name not in TASKS:
        raise UserError(f"task {name!r} does not exist; allowed are {', '.join(TASKS)}{nearest(name, TASKS)}")
    return TASKS[name]


def check(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that do not go together, before anything runs. Raises UserError, one line a mistake."""
    p, mistakes = parameters, []
    description = task(p["task"])
    for key, allowed in (("voting", description.votings), ("student_loss", description.losses)):
        if p[key] not in allowed:
            hint = nearest(p[key], allowed)
            mistakes.append(f"{key} = {p[key]!r}: the {description.name} task takes {', '.join(allowed)}{hint}")
    if p["student_loss"] in RELIABLE and p["voting"] == "none":
        mistakes.append(
            f"student_loss = {p['student_loss']!r} with voting = 'none': it needs supervisors that can disagree; "
            "set voting to hard or soft"
        )
    mistakes += _judge_mistakes(p) if description.kind == "continuation" else _needless(p)
    if mistakes:
        raise UserError("\n".join(mistakes))


def _judge_mistakes(p: Mapping[str, Any]) -> list[str]:
    judges = ("training_judge", "reporting_judge", "fluency_model")
    mistakes = [
        f"{k} = null: the {p['task']} task needs it, for example trained:{p['weak_model']}" for k in judges if not p[k]
    ]
    trained = [k for k in judges if str(p[k]).startswith("trained:")]
    if trained and not p["n_judge"]:
        mistakes.append(f"n_judge = 0: {trained[0]} is trained on rows of the judge split; give it some")
    if p["max_new_tokens"] >= p["max_length"]:
        mistakes.append(
            f"max_new_tokens = {p['max_new_tokens']} and max_length = {p['max_length']}: a continuation leaves no room for its prompt; "
            f"give max_new_tokens below {p['max_length']}, or raise max_length"
        )
    return mistakes


def _needless(p: Mapping[str, Any]) -> list[str]:
    return [f"n_judge = {p['n_judge']}: the {p['task']} task has no judges; set 0"] if p["n_judge"] else []
