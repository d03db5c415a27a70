"""What a notebook reads that is run by hand: the inputs that its experiment plans for it, or exploratory ones instead."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.errors import StageError, UserError, nearest
from underseer.runs import names, notation
from underseer.runs.files import absolute
from underseer.runs.params import KNOWN, RUNTIME, load, problem
from underseer.runs.pipelines import DECIDED
from underseer.runs.plan import Instance, Plan, make
from underseer.store import Output

BRINGS = {"selfmoa/4_finetune": {"baselines": "sft"}}
"""Values that bring a stage which an experiment may leave out, where the stage does not declare them itself."""


@dataclass(frozen=True)
class Choice:
    """The planned instance that a notebook run by hand stands beside, with its own ``values``.

    ``sets`` are the parameters that select the instance and are not, or not alone, in the experiment file. ``stand_ins``
    maps the key of an input to the output that is read instead. ``others`` says which instances it was chosen from, if several fit.
    """

    file: str
    plan: Plan
    planned: Instance
    values: dict[str, Any]
    sets: dict[str, Any]
    scratch: str | None = None
    stand_ins: dict[str, Output] = field(default_factory=dict)
    others: str = ""

    def inputs(self) -> dict[str, list[Output]]:
        """By role, the outputs to read."""
        return {role: [self._output(key) for key in keys] for role, keys in self.planned.inputs.items()}

    def _output(self, key: str) -> Output:
        return self.stand_ins[key] if key in self.stand_ins else Output(self.plan.instances[key].place)

    def replaced(self) -> dict[str, Output]:
        """By the name of the input that was planned, the output that stands in for it."""
        return {f"{self.plan.instances[key].stage}/{key}": output for key, output in self.stand_ins.items()}


def choose(stage: str, own: dict[str, Any], file: str, scratch: str | None) -> Choice:
    """Find the instance that the notebook's values name, and its inputs.

    Parameters by which the pipeline tells instances apart select the instance; where the experiment has no such value, it
    is planned again with it. All other values are the notebook's own: its inputs stay the experiment's.

    Args:
        stage: the stage.
        own: the notebook's parameters by name.
        file: the experiment file, relative to the repository.
        scratch: results to read in place of planned inputs, ``[role=]PATH`` joined by '+'.

    Raises:
        UserError: a value that is not allowed, no such instance or several, or a result that fits no input.
        StageError: an input has not been made; the message names the command that makes it.
    """
    own = _checked(stage, own)
    written = make(load(paths.ROOT / file))
    selecting = {*written.selecting, *DECIDED} - RUNTIME - {"engine"}
    wanted = {n: v for n, v in own.items() if n in selecting}
    plan, matching = _select(stage, file, written, wanted)
    agreeing = [sum(i.parameters.get(n) == v for n, v in own.items()) for i in matching]
    matching = [i for i, n in zip(matching, agreeing, strict=True) if n == max(agreeing)]
    instance, stand_ins, others = _fill(stage, file, plan, matching, _given(scratch))
    sets = {n: v for n, v in wanted.items() if n in KNOWN and any(p["parameters"][n] != v for p in written.variants)}
    choice = Choice(file, plan, instance, settled(plan, instance, own), sets, scratch, stand_ins, others)
    _check_made(choice)
    return choice


def cells() -> list[str]:
    """The source of every cell that this kernel has run, or begun, in their order; none outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return list(shell.history_manager.input_hist_raw[1:]) if shell else []


def check_injected(stage: str, own: dict[str, Any]) -> None:
    """Refuse what ``papermill -p`` was given and the notebook does not declare: papermill itself only warns."""
    run = cells()
    at = max((n for n, cell in enumerate(run) if cell.startswith("# Parameters\n")), default=None)
    declared = {*own, "experiment", "scratch", *re.findall(r"^(\w+) = ", "\n".join(run[:at]), re.MULTILINE)}
    for node in ast.parse(run[at]).body if at is not None else ():
        name = getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else None
        if name and name not in declared:
            hint = nearest(name, own) or f"; it declares {', '.join(own)}"
            raise UserError(f"{stage}: {name}: unknown parameter{hint}")


def _checked(stage: str, own: dict[str, Any]) -> dict[str, Any]:
    """The values with their paths made absolute, as a plan holds them."""
    wrong = [line for n, v in own.items() if n in KNOWN and (line := problem(n, v))]
    if wrong:
        raise UserError("\n".join(f"{stage}: {line}" for line in wrong))
    return {n: absolute(n, v, paths.ROOT) if isinstance(v, str) and n in KNOWN else v for n, v in own.items()}


def _select(stage: str, file: str, written: Plan, wanted: dict[str, Any]) -> tuple[Plan, list[Instance]]:
    """The instances of a stage that have the wanted values, and the plan that they stand in."""
    written = _with_stage(stage, file, written, wanted)
    same = _of_stage(written, stage)
    if matching := _with(written, stage, wanted):
        return written, matching
    known = {n: v for n, v in wanted.items() if n in KNOWN}
    absent = {n: v for n, v in known.items() if v not in [i.parameters[n] for i in same]}
    for sets in filter(None, (absent, known)):
        plan = make(load(paths.ROOT / file, [f"{n}={json.dumps(v)}" for n, v in sets.items()]))
        if matching := _with(plan, stage, wanted):
            return plan, matching
    close = max(same, key=lambda i: sum(i.parameters[n] == v for n, v in wanted.items()))
    differs = [f"{n} = {v!r}, not {close.parameters[n]!r}" for n, v in wanted.items() if close.parameters[n] != v]
    raise UserError(
        f"{stage}: {file} has no instance with these parameters; the nearest differs by {'; '.join(differs)}"
    )


def _with_stage(stage: str, file: str, written: Plan, wanted: dict[str, Any]) -> Plan:
    """The plan of the file, or with the notebook's values where these bring a stage that the file alone does not need."""
    plan = written
    if not _of_stage(plan, stage):
        own = {n: v for n, v in wanted.items() if n in KNOWN and not _is_given(written, n, v)} | BRINGS.get(stage, {})
        with contextlib.suppress(UserError):
            plan = make(load(paths.ROOT / file, [f"{n}={json.dumps(v)}" for n, v in own.items()]))
    if not _of_stage(plan, stage):
        raise UserError(f"{stage}: {file} needs no such stage; name another file in the notebook's 'experiment'")
    return plan


def _of_stage(plan: Plan, stage: str) -> list[Instance]:
    return [i for i in plan.instances.values() if i.stage == stage]


def _with(plan: Plan, stage: str, wanted: dict[str, Any]) -> list[Instance]:
    """The instances of a stage that have the wanted values; one has None where nothing reads a parameter."""

    def has(instance: Instance, name: str, value: Any) -> bool:
        planned = instance.parameters[name]
        return planned == value or (planned is None and _is_given(plan, name, value))

    return [i for i in _of_stage(plan, stage) if all(has(i, n, v) for n, v in wanted.items())]


def _is_given(plan: Plan, name: str, value: Any) -> bool:
    """Whether the experiment itself has a value of a parameter, in any variant."""
    return any(name in v["parameters"] and v["parameters"][name] == value for v in plan.variants)


def settled(plan: Plan, instance: Instance, own: dict[str, Any]) -> dict[str, Any]:
    """The notebook's values; where one is the experiment's, what the pipeline made of it for this instance: the engine that
    ``auto`` is here, or None for a parameter that nothing reads."""
    planned = {**instance.runtime, **instance.parameters}
    return {n: planned[n] if _is_given(plan, n, v) and n in planned else v for n, v in own.items()}


def _given(scratch: str | None) -> list[tuple[str | None, Output]]:
    """What the parameter ``scratch`` names: each result, and the role that it is given."""
    given = []
    for part in (scratch or "").split("+") if scratch else ():
        role, equals, text = part.strip().rpartition("=")
        folder = paths.home() / Path(text).expanduser()
        if not (folder / store.MANIFEST).is_file():
            raise UserError(f"scratch = {scratch!r}: no finished result in {text}; run.finish() makes it one")
        output = Output(folder.resolve())
        place = store.locate(output.name, paths.home()).path  # where all that is made of it will look for it
        if not (place.exists() and place.samefile(folder)):
            raise UserError(
                f"scratch = {scratch!r}: {text} is not {output.name} of this store; name it where it was made"
            )
        given.append((role if equals else None, output))
    return given


def _fill(
    stage: str, file: str, plan: Plan, matching: list[Instance], given: list[tuple[str | None, Output]]
) -> tuple[Instance, dict[str, Output], str]:
    """The one of several instances that the given results fit, what they stand in for, and a line on the others. Where nothing
    is given it is the first that is planned."""
    fits: dict[str, tuple[Instance, dict[str, Output]]] = {}
    misfit: UserError | None = None
    for instance in matching:
        try:
            stand_ins = _stand_ins(plan, instance, given)
        except UserError as error:
            misfit = error
            continue
        names = {k: o.name for k, o in stand_ins.items()}
        read = repr({r: [names.get(k, k) for k in keys] for r, keys in instance.inputs.items()})
        fits.setdefault(read, (instance, stand_ins))
    if misfit and not fits:
        raise misfit
    others = ""
    if len(fits) > 1:
        roles = {role for instance in matching for role in instance.inputs}
        role = min(r for r in roles if len({repr(i.inputs.get(r)) for i in matching}) > 1)
        stages = sorted({plan.instances[i.inputs[role][0]].stage for i in matching if i.inputs.get(role)})
        others = (
            f"{len(fits)} instances of {file} have these parameters and differ in '{role}'; name one, finished "
            f'by hand or by key, of {" or ".join(stages)}: scratch = "{role}=PATH"'
        )
        if given:
            raise UserError(f"{stage}: {others}")
    return *next(iter(fits.values())), others


def _stand_ins(plan: Plan, instance: Instance, given: list[tuple[str | None, Output]]) -> dict[str, Output]:
    stand_ins: dict[str, Output] = {}
    for role, output in given:
        key = _replaced(plan, instance, role, output)
        if key in stand_ins:
            raise UserError(
                f"{instance.stage}: {stand_ins[key].name} and {output.name} stand for the same input; drop one"
            )
        stand_ins[key] = output
    return stand_ins


def _replaced(plan: Plan, instance: Instance, role: str | None, output: Output) -> str:
    """The key of the input that a result stands in for: of its stage and, of several, with its parameters."""
    made_by = output.manifest["stage"]
    inputs = {r: [plan.instances[k] for k in keys] for r, keys in instance.inputs.items()}
    same = {i.key: i for r, filling in inputs.items() if role in (None, r) for i in filling if i.stage == made_by}
    roles = ", ".join(f"{r} ({filling[0].stage})" for r, filling in inputs.items() if filling) or "none"
    if not same:
        raise UserError(f"{instance.stage}: {output.name} fits none of its inputs{f' {role}' if role else ''}: {roles}")
    telling = [n for n in output.parameters if len({repr(i.parameters.get(n)) for i in same.values()}) > 1]
    fits = [i for i in same.values() if all(i.parameters.get(n) == output.parameters[n] for n in telling)]
    if len(fits) > 1:
        shared = [len(output.inputs.keys() & {k for keys in i.inputs.values() for k in keys}) for i in fits]
        fits = [i for i, n in zip(fits, shared, strict=True) if n == max(shared)]
    if len(fits) != 1:
        values = ", ".join(f"{n} = {output.parameters[n]!r}" for n in telling) or "the same parameters"
        raise UserError(
            f"{instance.stage}: {len(fits) or 'none'} of {len(same)} inputs of {made_by} agree with {output.name} ({values}); "
            f"give its role, role=PATH; the roles are {roles}"
        )
    return fits[0].key


def _check_made(choice: Choice) -> None:
    """Raise StageError with the command that makes what is missing of the inputs, and nothing beyond what they need."""
    missing: dict[str, str] = {}
    for role, keys in choice.planned.inputs.items():
        for instance in (choice.plan.instances[key] for key in keys if key not in choice.stand_ins):
            if not instance.cached:
                missing[role] = instance.stage
    if not missing:
        return
    sets = names.sets({n: _yaml(v) for n, v in choice.sets.items()})
    until = ",".join(dict.fromkeys(missing.values()))
    command = names.command(shlex.join([choice.file, *sets, "--until", until]))
    absent = ", ".join(f"'{role}' ({stage} makes it)" for role, stage in missing.items())
    raise StageError(f"{choice.planned.stage}: not there yet: input {absent}. Run: {command}")


def _yaml(value: Any) -> str:
    """A value as ``--set`` reads it back; a word that means nothing else in YAML stands without quotes."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./:?&=-]*", value) and notation.parse(value) == value
    return value if plain else json.dumps(value)
