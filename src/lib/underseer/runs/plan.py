"""From an experiment file to stage instances with content-addressed keys.

A key is a hash of all that decides the result of a stage: the notebook's code, the parameters that it declares and that
affect results, the keys of its inputs, the content of the data files and the revision of the models it reads, and the
library modules that it reaches. Planning reads the files it names and writes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from underseer import paths
from underseer.errors import UserError, nearest
from underseer.judges import spec as judge_specs
from underseer.runs.params import DATASETS, JUDGES, KNOWN, MODELS, RUNTIME, Experiment
from underseer.runs.pipelines import DECIDED, DYNAMIC, NOTEBOOKS, PIPELINES, REPORTS, STEERS

BY_HAND = ("experiment", "scratch")
"""Names in a parameters cell that only a notebook run by hand reads; they are no parameters of an experiment."""

PLUMBING = frozenset({"cost", "errors", "look", "look_selfmoa", "paths", "runs", "store"})
"""Modules that move results about without deciding them: a change there reruns nothing."""


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
    the report reads, and ``needs``, every stage instance that the variant rests on.
    """

    name: str
    file: str
    pipeline: str
    description: str
    instances: dict[str, Instance]
    variants: list[dict[str, Any]]

    @property
    def report(self) -> Instance:
        return next(i for i in self.instances.values() if i.stage == REPORTS[self.pipeline])

    def missing(self) -> list[Instance]:
        """What has to run: the instances that the missing ones need and that have not run themselves."""
        wanted: set[str] = set()
        found: list[Instance] = []
        for instance in reversed(self.instances.values()):
            needed = instance.key in wanted or instance.stage in REPORTS.values()
            if needed and not instance.cached:
                found.append(instance)
                wanted.update(key for keys in instance.inputs.values() for key in keys)
        return found[::-1]

    def as_json(self) -> str:
        return json.dumps({**vars(self), "instances": [vars(i) for i in self.instances.values()]})

    @staticmethod
    def from_json(text: str) -> Plan:
        raw = json.loads(text)
        raw["instances"] = {i["key"]: Instance(**i) for i in raw["instances"]}
        return Plan(**raw)


@dataclass(frozen=True)
class Notebook:
    """What planning needs of a stage's notebook."""

    stage: str
    path: Path
    defaults: dict[str, Any]
    code: str
    imports: tuple[str, ...]

    @cached_property
    def reached(self) -> frozenset[str]:
        """The library's modules that it imports, directly and through others. Found when asked for: a stage that runs only
        wants the parameters, and following imports reads most of the library."""
        return frozenset(_reached(self.imports))

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The parameters that decide the result."""
        return tuple(name for name in self.defaults if name not in RUNTIME)

    def modules(self, values: dict[str, Any]) -> str:
        """The hash of the library's modules that the notebook reaches with these values of its parameters."""
        names = [name(values[p]) for m, (p, name) in DYNAMIC.items() if m in self.reached and p in values]
        return _modules_hash(self.reached, tuple(name for name in names if name))


def merged(plans: Sequence[Plan]) -> Plan:
    """Several plans as one that the workflow runs: what they share is there once. It has no report of its own."""
    instances = {key: instance for plan in plans for key, instance in plan.instances.items()}
    names = {name: " + ".join(getattr(p, name) for p in plans) for name in ("name", "file", "pipeline", "description")}
    return Plan(**names, instances=instances, variants=[v for p in plans for v in p.variants])


def make(experiment: Experiment) -> Plan:
    """All stage instances of an experiment.

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
    shown = paths.shown(experiment.file)
    return Plan(experiment.name, shown, experiment.pipeline, experiment.description, builder.instances, variants)


class _Builder:
    """Collects instances; the same stage with the same key is one instance."""

    def __init__(self, pipeline: str, rehearsal: bool = False) -> None:
        self.pipeline, self.rehearsal = pipeline, rehearsal
        self.instances: dict[str, Instance] = {}
        self._memo: dict[str, Instance] = {}
        self._engines: dict[tuple[str, ...], str] = {}

    def variant(self, parameters: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        needs: dict[str, None] = {}

        def add(stage: str, values: dict[str, Any] | None = None, **inputs: Any) -> Instance:
            instance = self.add(stage, {**parameters, **(values or {})}, inputs)
            needs[instance.key] = None
            return instance

        roles = PIPELINES[self.pipeline](add, parameters)
        return {role: instance.key for role, instance in roles.items()}, list(needs)

    def report(self, name: str, parameters: dict[str, Any], variants: list[dict[str, Any]]) -> Instance:
        cells = [{"values": v["values"], "roles": v["roles"]} for v in variants]
        inputs: dict[str, dict[str, Instance]] = {}
        for cell in cells:
            for role, key in cell["roles"].items():
                inputs.setdefault(role, {})[key] = self.instances[key]
        lists = {role: list(found.values()) for role, found in inputs.items()}
        return self.add(REPORTS[self.pipeline], {**parameters, "name": name}, lists, cells)

    def add(self, stage: str, values: dict[str, Any], inputs: dict[str, Any], variants: list | None = None) -> Instance:
        notebook = read_notebook(stage)
        declared = {k: values[k] for k in notebook.results}
        if declared.get("engine"):
            declared["engine"] = self._engine(declared, values.get("device", "auto"))
        keys = {role: [i.key for i in _listed(found)] for role, found in inputs.items() if found is not None}
        memo = repr((stage, declared, keys, variants))  # most calls name an instance that is there: hash each once
        if memo not in self._memo:
            self._memo[memo] = self._new(notebook, declared, values, keys, variants or [])
        return self._memo[memo]

    def _engine(self, declared: dict[str, Any], device: str) -> str:
        """The engine's name; ``auto`` is decided here, so that the key says which engine answers, and that one does."""
        from underseer import engines

        models = tuple(v for k, v in declared.items() if k in MODELS)
        asked = (declared["engine"], device, *models)
        if asked not in self._engines:  # else the machine would be looked at for every stage
            self._engines[asked] = engines.choose(declared["engine"], models, device)
        return self._engines[asked]

    def _new(self, notebook: Notebook, declared: dict, values: dict, keys: dict, variants: list) -> Instance:
        hashes = _contents(declared)
        identity = [notebook.stage, {**declared, **hashes}, keys, variants, *(["rehearsal"] if self.rehearsal else [])]
        modules = notebook.modules(declared)
        key = _sha(json.dumps([identity, notebook.code, modules], sort_keys=True))[:16]
        hashes |= {"notebook": notebook.code, "modules": modules}
        runtime = {k: values[k] for k in RUNTIME if k in values}
        instance = Instance(notebook.stage, key, declared, runtime, keys, hashes, variants, self.rehearsal)
        return self.instances.setdefault(key, instance)


def _listed(found: Any) -> list[Instance]:
    return list(found) if isinstance(found, list) else [found]


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


@cache
def stages(pipeline: str) -> tuple[str, ...]:
    """The notebooks of a pipeline, by name, those that pipelines share first."""
    rooms = NOTEBOOKS.get(pipeline, (f"{pipeline}/*",))
    found = [p for room in rooms for p in sorted((paths.ROOT / "notebooks").glob(f"{room}.ipynb"))]
    return tuple(f"{p.parent.name}/{p.stem}" for p in found)


@cache
def read_notebook(stage: str) -> Notebook:
    """The declared parameters of a notebook with their defaults, and the hashes of its code and of what it imports.

    Raises:
        UserError: no such notebook, not exactly one cell tagged ``parameters``, or a name that nothing knows.
    """
    path = paths.ROOT / "notebooks" / f"{stage}.ipynb"
    if not path.is_file():
        raise UserError(
            f"notebooks/{stage}.ipynb: no such notebook; the stages are {', '.join(stages(stage.split('/')[0]))}"
        )
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise UserError(f"{paths.shown(path)}: {len(tagged)} cells tagged 'parameters'; exactly one is needed")
    defaults = _assignments("".join(tagged[0]["source"]), path)
    sources = ["".join(c["source"]) for c in cells if c is not tagged[0]]
    trees = [_parse(source, path) for source in sources]
    code = _sha("\n".join(ast.dump(tree) for tree in trees))
    imports = tuple(name for tree in trees for name in _imports(tree))
    return Notebook(stage, path, defaults, code, imports)


def _parse(source: str, path: Path) -> ast.Module:
    """The code of a cell; lines with IPython magics do not decide results and are left out."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise UserError(f"{paths.shown(path)}: a code cell is not Python: {error.msg} in {error.text!r}") from None


def _assignments(source: str, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in _parse(source, path).body:
        try:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            text = ast.unparse(node)
            raise UserError(f"{paths.shown(path)}: parameters cell: {text!r}: expected NAME = a flat scalar") from None
    unknown = [n for n in found if n not in KNOWN and n not in DECIDED and n not in ("name", *BY_HAND)]
    if unknown:
        raise UserError(f"{paths.shown(path)}: parameters cell: {unknown[0]}: unknown{nearest(unknown[0], KNOWN)}")
    return {name: value for name, value in found.items() if name not in BY_HAND}


PACKAGE = Path(__file__).parents[1]


@cache
def _module_file(name: str) -> Path | None:
    """The file of ``underseer.<name>``: a module or a package; None when there is none."""
    base = PACKAGE.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _modules_hash(reached: frozenset[str], chosen: tuple[str, ...]) -> str:
    """One hash for modules already followed to their ends, and for those that a parameter's value chooses."""
    names = reached | _reached(chosen)
    return _sha("".join(f"{m}:{_module_hash(m)}\n" for m in sorted(names)))


def _reached(names: Iterable[str]) -> set[str]:
    """These modules of the library and all that they import, directly and through others, also inside functions."""
    reached: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in reached or name.split(".")[0] in PLUMBING:
            continue
        reached.add(name)
        queue += _module_imports(name)
        if "." in name:
            queue.append(name.rpartition(".")[0])
    return reached


@cache
def _module_imports(name: str) -> tuple[str, ...]:
    return tuple(_imports(_module_tree(name)))


def _imports(tree: ast.AST) -> list[str]:
    found = []
    for node in _statements(tree, types=False):
        if isinstance(node, ast.Import):
            found += [a.name.partition(".")[2] for a in node.names if a.name.startswith("underseer.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "underseer":
            base = node.module.partition(".")[2]
            names = [f"{base}.{a.name}".lstrip(".") for a in node.names]
            found += [n if _module_file(n) else base for n in names]
    return [n for n in found if n and _module_file(n)]


_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


def _statements(tree: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """The tree and all statements in it, also inside functions; expressions are not looked into, which is most of a tree.
    ``types``: also those under ``if TYPE_CHECKING``; types decide no result."""
    queue = [tree]
    while queue:
        node = queue.pop()
        if not types and isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            continue
        yield node
        queue += [child for name in _BODIES for child in getattr(node, name, ())]


@cache
def _module_tree(name: str) -> ast.Module:
    """The module without its docstrings: words do not decide results."""
    tree = ast.parse(_module_file(name).read_text(encoding="utf-8"))
    for node in _statements(tree, types=True):
        if hasattr(node, "body"):
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree


@cache
def _module_hash(name: str) -> str:
    return _sha(ast.dump(_module_tree(name)))


def _contents(declared: dict[str, Any]) -> dict[str, str]:
    """What stands for models and paths in a key: a revision, or a hash of the content."""
    found = {k: _model_fingerprint(v) for k, v in declared.items() if k in MODELS}
    judges = {k: v for k, v in declared.items() if k in JUDGES | {"judge"} and v is not None}
    found |= {k: judge_specs.fingerprint(v, _model_fingerprint) for k, v in judges.items()}
    if declared.get("dataset_path") is not None:
        read = [_files_hash(v, declared["dataset_path"]) for k, v in declared.items() if k in DATASETS]
        found["dataset_path"] = read[0] if len(read) == 1 else _sha(" ".join(read))
    if declared.get("engine"):
        from underseer import engines

        found["engine"] = engines.identity(declared["engine"], declared["precision"])
    return found


@cache
def _model_fingerprint(spec: str) -> str:
    from underseer.models import loading

    return loading.fingerprint(spec)


@cache
def _files_hash(dataset: str, value: str) -> str:
    """SHA-256 over the content of the files that a data set is read from."""
    from underseer import data

    return _sha(" ".join(data.sha256(file) for file in data.local_files(dataset, value)))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
