"""What the job of a stage asks of a cluster: GPUs, memory and time, from an experiment's parameters.

``job_gpus``, ``job_memory_gb`` and ``job_minutes`` are each a number for all stages, STAGE:NUMBER for one stage, or several of
these joined by ','. A stage that none of them names asks for nothing, and the cluster's profile decides; but a stage that
computes on a device asks for its GPUs where ``device`` is cuda. Rehearsals run on CPUs and ask for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from underseer.errors import UserError, nearest
from underseer.runs.keys import read_notebook
from underseer.runs.plan import Instance, Plan

GPUS, MEMORY, MINUTES = "gpu", "mem_mb", "runtime"  # as Snakemake's executors name them
UNITS = {"job_gpus": (GPUS, 1), "job_memory_gb": (MEMORY, 1000), "job_minutes": (MINUTES, 1)}


@cache
def parse(name: str, text: str) -> dict[str, float]:
    """The numbers of a parameter by stage; "" stands for the stages that are not named.

    Raises:
        UserError: a part that is neither NUMBER nor STAGE:NUMBER, a number below 0, or a stage that is named twice.
    """
    numbers: dict[str, float] = {}
    for part in text.split(","):
        stage, _, number = part.strip().rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf or stage in numbers:
            raise UserError(
                f"{name} = {text!r}: {part!r}: expected NUMBER, or STAGE:NUMBER, each stage once, joined by ','"
            )
        numbers[stage] = value
    return numbers


def asked(instance: Instance) -> dict[str, int]:
    """What a stage instance asks for: of ``gpu`` (a number), ``mem_mb`` and ``runtime`` (minutes) those that are set."""
    resources: dict[str, int] = {}
    if instance.rehearsal:
        return resources
    for name, (resource, unit) in UNITS.items():
        value = instance.runtime.get(name)
        numbers = {} if value is None else parse(name, str(value))
        number = numbers.get(instance.stage, numbers.get(""))
        if number is not None:
            resources[resource] = math.ceil(number * unit)
    resources.setdefault(GPUS, _gpus(instance))
    return resources if resources[GPUS] else {k: v for k, v in resources.items() if k != GPUS}


def _gpus(instance: Instance) -> int:
    """GPUs that a stage computes on where no parameter says it."""
    declared = read_notebook(instance.stage).defaults
    if "device" not in declared or not str(instance.runtime.get("device")).startswith("cuda"):
        return 0
    shared = [instance.runtime.get(name, 1) for name in ("tensor_parallel", "data_parallel")]
    return math.prod(shared) if instance.parameters.get("engine") == "vllm" else 1


def check(instances: Iterable[Instance], stages: Iterable[str]) -> None:
    """Look for mistakes in what the stages of a plan ask for.

    Args:
        instances: the plan's.
        stages: those that a parameter may name.

    Raises:
        UserError: a parameter that is not in the notation, or names no stage of the pipeline.
    """
    stages = tuple(stages)
    for name, value in {(n, i.runtime[n]) for i in instances for n in UNITS if i.runtime.get(n) is not None}:
        for stage in parse(name, str(value)):
            if stage and stage not in stages:
                hint = nearest(stage, stages) or f"; it has {', '.join(stages)}"
                raise UserError(f"{name} = {value!r}: the pipeline has no stage {stage!r}{hint}")


def of_rule(plan: Plan, stage: str) -> dict[str, Callable[[Any], int]]:
    """The ``resources`` of a stage's rule in the Snakefile: functions of the wildcards, whose ``key`` names the instance. An
    instance that asks for nothing where others of its stage do gets the most that they ask for."""
    requests = {key: asked(i) for key, i in plan.instances.items() if i.stage == stage}
    names = sorted({name for request in requests.values() for name in request})
    most = {name: max(request.get(name, 0) for request in requests.values()) for name in names}
    return {name: lambda wildcards, name=name: requests[wildcards.key].get(name, most[name]) for name in names}
