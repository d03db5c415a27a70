"""Which stage needs which. The one place that says so.

A pipeline is a function of one variant's parameters. It names each stage instance with ``add(stage, values, role=...)``:
``values`` are the parameters that the pipeline itself decides (a replicate, whose labels a student sees); the roles are
the stage instances whose outputs it reads. It returns the instances that the report reads, by role.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

REPORTS = {"w2s": "w2s/5_report"}
"""The last stage of each pipeline: it reads all variants."""

DECIDED = {"replicate", "supervision", "base_model"}
"""Parameters of notebooks that the pipeline decides and no experiment file may hold."""


STEERS = {"w2s": frozenset({"bootstraps"})}
"""Parameters that no notebook declares: the pipeline reads them to decide which instances there are."""


class Add(Protocol):
    def __call__(self, stage: str, values: dict[str, Any] | None = None, **inputs: Any) -> Any: ...


def w2s(add: Add, p: dict[str, Any]) -> dict[str, Any]:
    """Weak-to-strong generalisation: supervisors -> weak labels -> student, beside the ceiling."""
    data = add("w2s/1_data")
    weak_base, strong_base = _pretrained(add, p["weak_model"]), _pretrained(add, p["strong_model"])
    single = add("w2s/2_supervisors", {"replicate": 0}, data=data, base=weak_base)
    replicates = range(1, p["bootstraps"] + 1) if p["voting"] != "none" else ()
    voters = [add("w2s/2_supervisors", {"replicate": r}, data=data, base=weak_base) for r in replicates]
    labels = add("w2s/3_weak_labels", data=data, supervisors=voters or [single])
    student = add("w2s/4_student", {"supervision": "weak"}, data=data, weak_labels=labels, base=strong_base)
    truth = {"supervision": "truth", "student_loss": "hard_ce", "voting": "none"}
    ceiling = add("w2s/4_student", truth, data=data, base=strong_base)
    return {"data": data, "weak": single, "weak_labels": labels, "student": student, "ceiling": ceiling}


def _pretrained(add: Add, model: str) -> Any:
    """The stage that pre-trains a testbed model; None for a model that exists already."""
    kind, _, name = model.partition(":")
    return add("testbed/pretrain", {"base_model": name}) if kind == "testbed" else None


PIPELINES: dict[str, Callable[[Add, dict[str, Any]], dict[str, Any]]] = {"w2s": w2s}
