"""The weak-to-strong tasks: what is learnt, which class is positive, and what the paper reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from underseer.errors import UserError, nearest


@dataclass(frozen=True)
class Task:
    """One task of arXiv 2410.12621."""

    name: str
    title: str
    labels: tuple[str, str]  # names of class 0 and class 1
    metrics: tuple[str, ...]  # reported, the primary one first; names as in underseer.metrics
    weak: str  # the paper's models
    strong: str
    # method -> metric -> value; empty where the paper's numbers are not at hand (PAPERS.md)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def positive(self) -> str:
        """Name of class 1: the class whose probability a model gives, and which precision and recall are about."""
        return self.labels[1]

    @property
    def primary_metric(self) -> str:
        return self.metrics[0]


TASKS: dict[str, Task] = {
    "safety": Task(
        name="safety",
        title="Classify a prompt as safe or unsafe",
        labels=("safe", "unsafe"),
        metrics=("accuracy", "balanced_accuracy", "f1_weighted", "auroc"),
        weak="GPT-2 small",
        strong="GPT-2 medium",
    ),
}


def task(name: str) -> Task:
    """A task by name. Raises UserError for one that does not exist."""
    if name not in TASKS:
        raise UserError(f"task {name!r} does not exist; allowed are {', '.join(TASKS)}{nearest(name, TASKS)}")
    return TASKS[name]
