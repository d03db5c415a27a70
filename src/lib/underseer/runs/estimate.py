"""What the stages of a plan that are left to run will cost, from what like stages have cost in this store.

A stage that has finished is like one that is planned where both are of one stage, with the same models, judges, engine,
precision and device. Of these the nearest ones count: those that differ in the fewest parameters, their own and those of all
stages that they rest on. Seeds are no difference. Where a count differs (rows, epochs, samples), the cost lies between that of
the like stage and the same times the ratio of the counts: not all of a stage's work grows with each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from rich.table import Table

from underseer import store
from underseer.runs import console, resources
from underseer.runs.files import JUDGES, MODELS
from underseer.runs.plan import Instance, Plan

SEEDS = frozenset({"seed", "pretrain_seed", "replicate", "name"})
"""Parameters that tell repetitions of the same work apart."""
DECISIVE = MODELS | JUDGES | {"base_model", "chat_model", "judge", "engine", "precision"}
"""Parameters without which costs cannot be compared."""
COUNTS = frozenset(
    {
        "epochs",
        "weak_epochs",
        "judge_epochs",
        "reset_epochs",
        "supervised_epochs",
        "baseline_epochs",
        "bootstraps",
        "judge_members",
        "samples",
    }
    | {"max_new_tokens", "attack_budget", "attack_rounds", "answers_per_prompt", "pairs_per_prompt"}
)
"""Parameters that the work grows with, beside those that begin with ``n_``."""

Lineage = dict[tuple[str, str], frozenset]
"""By stage and parameter, the values of a stage instance and of all that it rests on."""
SECONDS, TOKENS, BYTES = "seconds", "tokens", "bytes"


@dataclass(frozen=True)
class Finished:
    """A finished stage: its device, the parameters that its cost can depend on, and its cost."""

    device: str
    lineage: Lineage
    cost: dict[str, float]


@dataclass
class Estimate:
    """Of one stage of a plan: how many instances are left, and the bounds (low, high) of what they cost together.

    ``seconds`` are those of the notebooks, one after the other; ``gpu_hours`` those of the GPUs that their jobs ask for.
    ``known`` instances have like ones among the finished, ``runs`` of them at least; ``differing`` names the counts in which
    these differ.
    """

    stage: str
    left: int = 0
    known: int = 0
    runs: int = 0
    bounds: dict[str, list[float]] = field(default_factory=dict)
    differing: set[str] = field(default_factory=set)

    def add(self, like: list[Finished], gpus: int, lineage: Lineage) -> None:
        """Count one more instance, with the finished stages that are like it."""
        self.left += 1
        if not like:
            return
        ratio, names = _growth(lineage, like[0].lineage)
        self.known, self.runs = self.known + 1, min(self.runs or len(like), len(like))
        self.differing |= names
        cost = {name: median(one.cost[name] for one in like) for name in (SECONDS, TOKENS, BYTES)}
        for name, value in {**cost, "gpu_hours": gpus * cost[SECONDS] / 3600}.items():
            bound = self.bounds.setdefault(name, [0.0, 0.0])
            bound[0] += value * min(1.0, ratio)
            bound[1] += value * max(1.0, ratio)


class History:
    """The finished stages of the store, by stage."""

    def __init__(self) -> None:
        self._outputs = {output.name: output for output in store.readable()}
        self._lineages: dict[str, Lineage] = {}
        self._like: dict[tuple, list[Finished]] = {}

    @cached_property
    def finished(self) -> dict[str, list[Finished]]:
        by_stage: dict[str, list[Finished]] = {}
        for name, output in self._outputs.items():
            manifest = output.manifest
            if manifest["marks"].get("rehearsal") or output.seconds is None:
                continue
            tokens = sum(value for key, value in manifest["cost"].items() if key.startswith("tokens_"))
            size = sum(file["bytes"] for file in manifest["files"].values())
            cost = {SECONDS: output.seconds, TOKENS: tokens, BYTES: size}
            one = Finished(manifest["runtime"].get("device", "auto"), self._lineage(name), cost)
            by_stage.setdefault(manifest["stage"], []).append(one)
        return by_stage

    def _lineage(self, name: str) -> Lineage:
        if name not in self._lineages:
            output = self._outputs.get(name)
            above = [self._lineage(one) for one in output.inputs.values()] if output else []
            self._lineages[name] = _joined(output.manifest["stage"], output.parameters, above) if output else {}
        return self._lineages[name]

    def like(self, instance: Instance, lineage: Lineage) -> list[Finished]:
        """The finished stages that are nearest to a planned one, of those that its cost can be compared with."""
        device = instance.runtime.get("device", "auto")
        asked = (instance.stage, device, frozenset(lineage.items()))
        if asked not in self._like:  # repetitions with other seeds ask the same
            alike = [one for one in self.finished.get(instance.stage, ()) if one.device == device]
            differing = [(one, _differences(lineage, one.lineage)) for one in alike]
            near = [(one, len(d)) for one, d in differing if not any((instance.stage, name) in d for name in DECISIVE)]
            self._like[asked] = [one for one, distance in near if distance == min(n for _, n in near)]
        return self._like[asked]


def _joined(stage: str, parameters: dict[str, Any], above: Iterable[Lineage]) -> Lineage:
    own = {(stage, name): frozenset({repr(value)}) for name, value in parameters.items() if name not in SEEDS}
    joined: Lineage = dict(own)
    for lineage in above:
        for key, values in lineage.items():
            joined[key] = joined.get(key, frozenset()) | values
    return joined


def _differences(one: Lineage, other: Lineage) -> set[tuple[str, str]]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def _growth(planned: Lineage, finished: Lineage) -> tuple[float, set[str]]:
    """How many times as large the counts of a planned stage are, all together, and which of them differ."""
    ratio, names = 1.0, set()
    for key in _differences(planned, finished):
        name = key[1]
        if not (name in COUNTS or name.startswith("n_")) or key not in planned or key not in finished:
            continue
        try:
            new, old = (max(float(v) for v in lineage[key]) for lineage in (planned, finished))
        except ValueError:  # null
            continue
        if old > 0 and new > 0 and name not in names:  # null and 0 are no multiples
            ratio, names = ratio * new / old, names | {name}
    return ratio, names


def estimate(plan: Plan) -> list[Estimate]:
    """What each stage of a plan will cost, for its instances that are left to run; in the plan's order."""
    history, lineages, estimates = History(), {}, {}
    missing = {instance.key for instance in plan.missing()}
    for instance in plan.instances.values():
        above = [lineages[key] for keys in instance.inputs.values() for key in keys]
        lineages[instance.key] = lineage = _joined(instance.stage, instance.parameters, above)
        if instance.key in missing:
            gpus = resources.asked(instance).get(resources.GPUS, 0)
            one = estimates.setdefault(instance.stage, Estimate(instance.stage))
            one.add(history.like(instance, lineage), gpus, lineage)
    return list(estimates.values())


def table(estimates: list[Estimate]) -> Table:
    """One row a stage, and their sum; what nothing is known of is said to be so."""
    rows, total = [], Estimate("all")
    for one in estimates:
        total.left, total.known = total.left + one.left, total.known + one.known
        for name, (low, high) in one.bounds.items():
            sums = total.bounds.setdefault(name, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + low, sums[1] + high
        rows.append((one.stage, one.left, *_cells(one), _source(one)))
    missing = total.left - total.known
    rows.append(("all", total.left, *_cells(total), f"without {missing} of which nothing is known" if missing else ""))
    columns = ("stage", "left", "minutes", "GPU-hours", "tokens", "disk, MB", "from")
    return console.table(columns, rows, numbers=5)


def _cells(one: Estimate) -> list[str]:
    units = {SECONDS: (60, 1), "gpu_hours": (1, 2), TOKENS: (1, 0), BYTES: (1e6, 1)}
    return [_range(one.bounds[name], *unit) if name in one.bounds else "?" for name, unit in units.items()]


def _range(bounds: list[float], unit: float, digits: int) -> str:
    low, high = (f"{bound / unit:,.{digits}f}" for bound in bounds)
    return low if math.isclose(*bounds) else f"{low} to {high}"


def _source(one: Estimate) -> str:
    if not one.known:
        return "nothing like it has run in this store"
    lacking = f"; {one.left - one.known} without any" if one.known < one.left else ""
    other = f", with another {', '.join(sorted(one.differing))}" if one.differing else ""
    return f"{one.runs} like run{'s' * (one.runs > 1)}{other}{lacking}"
