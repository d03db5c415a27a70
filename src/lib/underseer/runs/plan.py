"""From an experiment file to stage instances with content-addressed keys.

A key is a hash of all that decides the result of a stage: the notebook's code, the parameters that it declares and that
affect results, the keys of its inputs, the content of the data files and the revision of the models it reads, and the
library modules that it reaches. Planning reads the files it names and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underseer import paths
from underseer.errors import UserError, nearest
from underseer.runs.files import MODELS, Experiment
from underseer.runs.keys import Notebook, contents, read_notebook, stages
from underseer.runs.limits import MOST_STAGES
from underseer.runs.modules import keep, sha
from underseer.runs.params import KNOWN, RUNTIME
from underseer.runs.pipelines import HANDED_ON, PIPELINES, REPORTS, STEERS


@dataclass(frozen=True)
class Instance:
    """One stage to run once. ``inputs`` maps a role to the keys of the instances that fill it."""

    stage: str
    key: str
    parameters: dict[str, Any]
    runtime: dict[str, Any]
    inputs: dict[str, list[str]]
    hashes: dict[str, str]
    variants: list[dict[str, Any]] = field(default_factory=list)
    rehearsal: bool = False

    @property
    def place(self) -> Path:
        return paths.place(self.stage, self.key)

    @property
    def cached(self) -> bool:
        return (self.place / "manifest.json").is_file()


@dataclass(frozen=True)
class Plan:
    """All stage instances of an experiment, inputs before those that read them.

    ``variants`` holds, for each variant, its ``values`` (the keys of the grid), all ``parameters``, the ``roles`` that
    the report reads, and ``needs``, every stage instance that the variant rests on. ``selecting`` names the parameters
    by which the pipeline tells instances apart. ``code`` holds, by the hash of a stage's modules, the hash of each of their
    files. ``until`` names the stages to stop at; with none, all of it runs. ``options`` holds, by the name of an experiment,
    what follows ``underseer run`` to make it once more.
    """

    name: str
    file: str
    pipeline: str
    description: str
    instances: dict[str, Instance]
    variants: list[dict[str, Any]]
    selecting: list[str] = field(default_factory=list)
    code: dict[str, dict[str, str]] = field(default_factory=dict)
    until: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def report(self) -> Instance:
        return next(i for i in self.instances.values() if i.stage == REPORTS[self.pipeline])

    def needed(self, *, missing: bool = False) -> list[Instance]:
        """What ``until`` needs, and without it all; where ``missing``, what has not run, and what that needs and has not run."""
        wanted: set[str] = set()
        needed: list[Instance] = []
        last = self.until or REPORTS.values()
        for instance in reversed(self.instances.values()):
            if (instance.key in wanted or instance.stage in last) and not (missing and instance.cached):
                needed.append(instance)
                wanted.update(key for keys in instance.inputs.values() for key in keys)
        return needed[::-1]

    def missing(self) -> list[Instance]:
        """What has to run: the instances that the missing ones need and that have not run themselves."""
        return self.needed(missing=True)

    def as_json(self) -> str:
        return json.dumps({**vars(self), "instances": [vars(i) for i in self.instances.values()]})

    @staticmethod
    def from_json(text: str) -> Plan:
        raw = json.loads(text)
        raw["instances"] = {i["key"]: Instance(**i) for i in raw["instances"]}
        return Plan(**raw)


def merged(plans: Sequence[Plan]) -> Plan:
    """Several plans as one that the workflow runs: what they share is there once. It has no report of its own."""
    instances = {key: instance for plan in plans for key, instance in plan.instances.items()}
    names = {name: " + ".join(getattr(p, name) for p in plans) for name in ("name", "file", "pipeline", "description")}
    code = {modules: files for plan in plans for modules, files in plan.code.items()}
    until = list(dict.fromkeys(stage for plan in plans for stage in plan.until))
    variants = [v for p in plans for v in p.variants]
    options = {name: text for plan in plans for name, text in plan.options.items()}
    return Plan(**names, instances=instances, variants=variants, code=code, until=until, options=options)


def make(experiment: Experiment, until: Sequence[str] = ()) -> Plan:
    """All stage instances of an experiment; ``until`` names the stages that its run stops at.

    Raises:
        UserError: unknown pipeline, a parameter that is missing, or that no stage of the pipeline reads, a file that
            does not exist.
    """
    if experiment.pipeline not in PIPELINES:
        hint = nearest(experiment.pipeline, PIPELINES) or f"; allowed: {', '.join(PIPELINES)}"
        raise UserError(f"{paths.shown(experiment.file)}: pipeline = {experiment.pipeline!r}: unknown{hint}")
    _check_names(experiment)
    builder = _Builder(experiment.pipeline, experiment.rehearsal)
    variants = []
    for values, parameters in zip(experiment.variants, experiment.resolved(), strict=True):
        roles, needs = builder.variant(parameters)
        variants.append({"values": values, "parameters": parameters, "roles": roles, "needs": needs})
    report_parameters = {**experiment.parameters, **experiment.variants[0]}
    builder.report(experiment.name, report_parameters, variants)
    file = paths.shown(experiment.file)
    planned = {i.stage for i in builder.instances.values()}
    for stage in until:
        if stage not in planned:
            hint = nearest(stage, planned) or f"; it has {', '.join(sorted(planned))}"
            raise UserError(f"--until {stage}: {file} needs no such stage{hint}")
    selecting = sorted(builder.selecting - RUNTIME - HANDED_ON)
    facts = (experiment.name, file, experiment.pipeline, experiment.description)
    keep()
    options = {experiment.name: experiment.options}
    return Plan(*facts, builder.instances, variants, selecting, builder.code, list(until), options)


def varied(instance: Instance, values: dict[str, Any], names: dict[str, str]) -> Instance:
    """An instance with other values of its notebook's parameters, and with some inputs replaced.

    Args:
        instance: a planned instance.
        values: the parameters, those that only decide how it runs too.
        names: key of an input -> the key that stands in for it.

    Raises:
        UserError: a file or a model that ``values`` names does not exist.
    """
    inputs = {role: [names.get(key, key) for key in keys] for role, keys in instance.inputs.items()}
    variants = [
        {**v, "roles": {role: names.get(key, key) for role, key in v["roles"].items()}} for v in instance.variants
    ]
    values = {**instance.parameters, **instance.runtime, **values}
    builder, notebook = _Builder("", instance.rehearsal), read_notebook(instance.stage)
    return builder.new(notebook, builder.declared(notebook, values), values, inputs, variants)


class _Noting(dict):
    """A variant's parameters; notes in ``read`` which of them a pipeline asks for."""

    def __init__(self, values: dict[str, Any], read: set[str]) -> None:
        super().__init__(values)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default


class _Builder:
    """Collects instances; the same stage with the same key is one instance."""

    def __init__(self, pipeline: str, rehearsal: bool = False) -> None:
        self.pipeline, self.rehearsal = pipeline, rehearsal
        self.instances: dict[str, Instance] = {}
        self.selecting: set[str] = {"seed"}
        self.code: dict[str, dict[str, str]] = {}
        self._memo: dict[str, Instance] = {}
        self._engines: dict[tuple[str, ...], str] = {}

    def variant(self, parameters: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        needs: dict[str, None] = {}

        def add(stage: str, values: dict[str, Any] | None = None, **inputs: Any) -> Instance:
            instance = self.add(stage, {**parameters, **(values or {})}, inputs)
            needs[instance.key] = None
            return instance

        roles = PIPELINES[self.pipeline](add, _Noting(parameters, self.selecting))
        return {role: instance.key for role, instance in roles.items()}, list(needs)

    def report(self, name: str, parameters: dict[str, Any], variants: list[dict[str, Any]]) -> Instance:
        cells = [{"values": v["values"], "roles": v["roles"]} for v in variants]
        inputs: dict[str, dict[str, Instance]] = {}
        for cell in cells:
            for role, key in cell["roles"].items():
                inputs.setdefault(role, {})[key] = self.instances[key]
        lists = {role: list(instances.values()) for role, instances in inputs.items()}
        return self.add(REPORTS[self.pipeline], {**parameters, "name": name}, lists, cells)

    def add(self, stage: str, values: dict[str, Any], inputs: dict[str, Any], variants: list | None = None) -> Instance:
        notebook = read_notebook(stage)
        declared = self.declared(notebook, values)
        keys = {role: [i.key for i in _listed(given)] for role, given in inputs.items() if given is not None}
        memo = repr((stage, declared, keys, variants))  # most calls name an instance that is there: hash each once
        if memo not in self._memo:
            self._memo[memo] = self.new(notebook, declared, values, keys, variants or [])
        return self._memo[memo]

    def declared(self, notebook: Notebook, values: dict[str, Any]) -> dict[str, Any]:
        declared = {k: values[k] for k in notebook.results}
        if declared.get("engine"):
            declared["engine"] = self._engine(declared, values.get("device", "auto"))
        return declared

    def _engine(self, declared: dict[str, Any], device: str) -> str:
        """The engine's name; ``auto`` is decided here, so that the key says which engine answers, and that one does."""
        from underseer import engines

        models = tuple(v for k, v in declared.items() if k in MODELS)
        asked = (declared["engine"], device, *models)
        if asked not in self._engines:  # else the machine would be looked at for every stage
            self._engines[asked] = engines.choose(declared["engine"], models, device)
        return self._engines[asked]

    def new(self, notebook: Notebook, declared: dict, values: dict, keys: dict, variants: list) -> Instance:
        hashes = contents(declared)
        identity = [notebook.stage, {**declared, **hashes}, keys, variants, *(["rehearsal"] if self.rehearsal else [])]
        modules = notebook.modules(declared)
        if modules not in self.code:
            self.code[modules] = notebook.sources(declared)
        key = sha(json.dumps([identity, notebook.code, modules], sort_keys=True))[:16]
        hashes |= {"notebook": notebook.code, "modules": modules}
        runtime = {k: values[k] for k in sorted(RUNTIME) if k in values}  # a plan's text is the same in every process
        instance = Instance(notebook.stage, key, declared, runtime, keys, hashes, variants, self.rehearsal)
        if len(self.instances) >= MOST_STAGES:
            raise UserError(
                f"{self.pipeline}: more than {MOST_STAGES:,} stages; lower bootstraps, iterations or variants"
            )
        return self.instances.setdefault(key, instance)


def _listed(given: Any) -> list[Instance]:
    return list(given) if isinstance(given, list) else [given]


def _check_names(experiment: Experiment) -> None:
    """Every parameter that the pipeline's notebooks declare is given, and every one given is declared."""
    declared = {k: stage for stage in stages(experiment.pipeline) for k in read_notebook(stage).defaults}
    declared |= {k: f"pipeline {experiment.pipeline}" for k in STEERS[experiment.pipeline]}
    given = set(experiment.parameters).union(*experiment.variants)
    file = paths.shown(experiment.file)
    problems = [
        f"{file}: {name}: missing; {declared[name]} needs it. Add '{name}: ...' or 'extends:' a file that holds it"
        for name in declared
        if name in KNOWN and name not in given
    ]
    idle = given - set(declared) - RUNTIME
    problems += [
        f"{file}: {name}: no stage of pipeline {experiment.pipeline} reads it; remove it" for name in sorted(idle)
    ]
    if problems:
        raise UserError("\n".join(problems))
