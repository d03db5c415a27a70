"""What decides a stage's key: its notebook's code, the library modules that it reaches, and what stands for data and models.

Reads the files that it is asked about, and writes nothing.
"""

from __future__ import annotations

import ast
import difflib
import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from underseer import paths
from underseer.errors import UserError, nearest
from underseer.judges import spec as judge_specs
from underseer.runs import modules
from underseer.runs.files import JUDGES, MODELS
from underseer.runs.modules import sha
from underseer.runs.params import DATASETS, KNOWN, RUNTIME
from underseer.runs.pipelines import DECIDED, DYNAMIC, NOTEBOOKS

BY_HAND = ("experiment", "scratch")
"""Names in a parameters cell that only a notebook run by hand reads; they are no parameters of an experiment."""


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
        return frozenset(modules.follow(self.imports))

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The parameters that decide the result."""
        return tuple(name for name in self.defaults if name not in RUNTIME)

    def modules(self, values: dict[str, Any]) -> str:
        """The hash of the library's modules that the notebook reaches with these values of its parameters."""
        return modules.hash_of(self._names(values))

    def sources(self, values: dict[str, Any]) -> dict[str, str]:
        """The same modules by name, each with the hash of its file as it is."""
        return {name: modules.file_hash(name) for name in sorted(self._names(values))}

    def _names(self, values: dict[str, Any]) -> frozenset[str]:
        names = [name(values[p]) for m, (p, name) in DYNAMIC.items() if m in self.reached and p in values]
        return _with_chosen(self.reached, tuple(name for name in names if name))


@cache
def stages(pipeline: str) -> tuple[str, ...]:
    """The notebooks of a pipeline, by name, those that pipelines share first."""
    rooms = NOTEBOOKS.get(pipeline, (f"{pipeline}/*",))
    files = [p for room in rooms for p in sorted((paths.ROOT / "notebooks").glob(f"{room}.ipynb"))]
    return tuple(f"{p.parent.name}/{p.stem}" for p in files)


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
    facts = path.stat()
    return _read_notebook(stage, path, facts.st_mtime_ns, facts.st_size)


@cache
def _read_notebook(stage: str, path: Path, _modified: int, _size: int) -> Notebook:
    """Read once as long as the file stays as it is: a notebook may be edited while a kernel has this module open."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise UserError(f"{paths.shown(path)}: {len(tagged)} cells tagged 'parameters'; exactly one is needed")
    defaults = _assignments("".join(tagged[0]["source"]), path)
    sources = ["".join(c["source"]) for c in cells if c is not tagged[0]]
    trees = [_parse(source, path) for source in sources]
    code = sha("\n".join(ast.dump(tree) for tree in trees))
    imports = tuple(name for tree in trees for name in modules.imports(tree))
    return Notebook(stage, path, defaults, code, imports)


def code_cells(file: Path) -> list[str]:
    """The code of a notebook, by cell, without its parameters and those that papermill put in."""
    cells = [c for c in cells_of(file) if c["cell_type"] == "code"]
    hidden = {"parameters", "injected-parameters"}
    return ["".join(c["source"]) for c in cells if not hidden & set(c["metadata"].get("tags", ()))]


def cells_of(file: Path) -> list[dict[str, Any]]:
    """The cells of a notebook. Raises UserError for a file that is damaged."""
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        if all(isinstance(cell["cell_type"], str) and "".join(cell["source"]) is not None for cell in cells):
            return cells
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{paths.shown(file)}: not a notebook, or cut short; remove it, and run its experiment again")


def cells_diff(old: list[str], new: list[str], *names: str) -> str:
    """A unified diff of two lists of cells, each cell under a line of its own; '' where they are the same."""
    lines = ([line for cell in cells for line in ("# cell", *cell.splitlines())] for cells in (old, new))
    return "\n".join(difflib.unified_diff(*lines, *names, lineterm="", n=1))


def _parse(source: str, path: Path) -> ast.Module:
    """The code of a cell; lines with IPython magics do not decide results and are left out."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise UserError(f"{paths.shown(path)}: a code cell is not Python: {error.msg} in {error.text!r}") from None


def _assignments(source: str, path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for node in _parse(source, path).body:
        try:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            values[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            text = ast.unparse(node)
            raise UserError(f"{paths.shown(path)}: parameters cell: {text!r}: expected NAME = a flat scalar") from None
    unknown = [n for n in values if n not in KNOWN and n not in DECIDED and n not in ("name", *BY_HAND)]
    if unknown:
        raise UserError(f"{paths.shown(path)}: parameters cell: {unknown[0]}: unknown{nearest(unknown[0], KNOWN)}")
    return {name: value for name, value in values.items() if name not in BY_HAND}


@cache
def _with_chosen(reached: frozenset[str], chosen: tuple[str, ...]) -> frozenset[str]:
    """Modules already followed to their ends, and those that a parameter's value chooses."""
    return reached | modules.follow(chosen)


def edited(notebook: Notebook, instance: Any, sources: dict[str, str]) -> str | None:
    """What was edited of a stage's code since it was planned: the notebook, a module, or nothing.

    Args:
        notebook: the stage's notebook as it is now.
        instance: the planned stage instance, with the hashes of its code.
        sources: the ``Notebook.sources`` that it was planned with; while they are the same no module is parsed.
    """
    if notebook.code != instance.hashes["notebook"]:
        return f"notebooks/{notebook.stage}.ipynb"
    changed = [name for name, planned in sources.items() if modules.file_hash(name) != planned]
    if sources and not changed:
        return None
    modules.forget()
    _with_chosen.cache_clear()
    if replace(notebook).modules(instance.parameters) == instance.hashes["modules"]:
        return None  # comments and docstrings decide nothing
    return f"underseer.{changed[0]}" if changed else "the library"


def contents(declared: dict[str, Any]) -> dict[str, str]:
    """What stands for models, paths and the engine in a key: a revision, a hash of the content, a version."""
    hashes = _read(declared)
    if declared.get("engine"):
        from underseer import engines

        hashes["engine"] = engines.identity(declared["engine"], declared["precision"])
    return hashes


def replaced(declared: dict[str, Any], hashes: dict[str, str]) -> str | None:
    """Which data or model of a stage no longer holds what it was planned with, as ``name = value``; None of none.

    Args:
        declared: the parameters that decide the stage's result.
        hashes: those of the planned instance.

    Raises:
        UserError: it is gone.
    """
    _model_fingerprint.cache_clear()
    _files_hash.cache_clear()
    now = _read(declared)
    return next((f"{name} = {declared[name]}" for name, found in now.items() if hashes.get(name, found) != found), None)


def _read(declared: dict[str, Any]) -> dict[str, str]:
    """What stands for the models and the files that a stage reads."""
    hashes = {k: _model_fingerprint(v) for k, v in declared.items() if k in MODELS and v is not None}
    judges = {k: v for k, v in declared.items() if k in JUDGES | {"judge"} and v is not None}
    served = declared.get("engine") == "openai"
    hashes |= {k: _judge_fingerprint(v, served=served) for k, v in judges.items()}
    if declared.get("dataset_path") is not None:
        read = [
            _files_hash(v, declared["dataset_path"]) for k, v in declared.items() if k in DATASETS and v is not None
        ]
        hashes["dataset_path"] = read[0] if len(read) == 1 else sha(" ".join(read))
    return hashes


def _judge_fingerprint(value: str, *, served: bool) -> str:
    """What stands for a judge; where a server answers, one that writes has a name there instead of files here."""
    if not served:
        return judge_specs.fingerprint(value, _model_fingerprint)

    def stands(kind: str, model: str, _: str) -> str:
        return f"served:{model}" if kind and judge_specs.KINDS[kind].writing else _model_fingerprint(model)

    return judge_specs.mapped(value, stands)


@cache
def _model_fingerprint(spec: str) -> str:
    from underseer.models import loading

    return loading.fingerprint(spec)


@cache
def _files_hash(dataset: str, value: str) -> str:
    """SHA-256 over the content of the files that a data set is read from."""
    from underseer import data

    return sha(" ".join(data.sha256(file) for file in data.local_files(dataset, value)))
