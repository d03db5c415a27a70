"""Keep an exploratory result: execute the saved notebook with the same parameters under a key of its own."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from underseer import paths, store
from underseer.errors import StageError, UserError
from underseer.runs import execute
from underseer.runs.by_hand import Choice, choose
from underseer.runs.keys import Notebook, cells_diff, code_cells, read_notebook
from underseer.runs.params import KNOWN, problem
from underseer.runs.plan import Instance, varied
from underseer.store import Output


def promote(folder: Path) -> tuple[Output, bool]:
    """Execute the notebook of an exploratory result under its key.

    Returns:
        The keyed result, and whether it was there already.

    Raises:
        UserError: no exploratory result, or one that the saved notebook would not make again: what differs. Nothing is
            written.
        StageError: an input of the experiment is not there, or the notebook failed.
    """
    explored = _explored(folder)
    manifest, notebook = explored.manifest, read_notebook(explored.manifest["stage"])
    values = {**manifest["parameters"], **manifest["runtime"]}
    decided = {n for n, v in values.items() if v is None and n in KNOWN and problem(n, v)}  # nothing reads them
    own = {n: values[n] for n in notebook.defaults if n in values and n not in decided}
    choice = choose(notebook.stage, own, manifest["experiment"], manifest["scratch"])
    names = {key: _promoted(output) or output.key for key, output in choice.stand_ins.items()}
    instance = varied(choice.planned, choice.values, names)
    differences = _inputs_differ(manifest, choice) + _code_differs(manifest, notebook, instance)
    if differences:
        head = f"{explored.name}: not promoted, since notebooks/{notebook.stage}.ipynb would not make it again:"
        tail = "Save the notebook as it shall be, restart its kernel, Run All, and promote that result."
        raise UserError("\n".join([head, *differences, tail]))
    there = instance.cached
    if not there and _execute(choice, instance, names, explored.name):
        raise StageError(f"{explored.name}: not promoted: its notebook failed; `.venv/bin/underseer status` names it")
    _note(explored, f"{instance.stage}/{instance.key}")
    return Output(instance.place), there


def _explored(folder: Path) -> Output:
    """The exploratory result in a folder, given as it stands or relative to the store."""
    for path in (folder, paths.home() / folder):
        if (path / store.MANIFEST).is_file() and Output(path).is_scratch:
            return Output(path.resolve())
    raise UserError(
        f"{folder}: no exploratory result; a notebook run by hand names its folder, such as scratch/w2s/4_student/20260101-120000"
    )


def _promoted(output: Output) -> str | None:
    """The key that an exploratory result was promoted to, as far as that place is still there."""
    name = output.manifest.get("promoted")
    if not name or not store.locate(name, paths.home()).path.joinpath(store.MANIFEST).is_file():
        return None
    return name.rpartition("/")[2]


def _inputs_differ(manifest: dict[str, Any], choice: Choice) -> list[str]:
    """Inputs that are exploratory themselves, and planned ones that have another key now."""
    lines = [
        f"its input {output.name} is exploratory; promote that first: .venv/bin/underseer promote {output.name}"
        for output in choice.stand_ins.values()
        if output.is_scratch and _promoted(output) is None
    ]
    for role, outputs in choice.inputs().items():
        now, then = [o.name for o in outputs], manifest["inputs"].get(role, [])
        if now != then:
            lines.append(f"its input '{role}' was {', '.join(then) or 'nothing'} and is {', '.join(now)} now")
    return lines


def _code_differs(manifest: dict[str, Any], notebook: Notebook, instance: Instance) -> list[str]:
    """How the cells that ran differ from the saved ones, and whether the library is another."""
    lines = []
    if manifest["hashes"]["modules"] != instance.hashes["modules"]:
        lines.append("the library's modules were edited since")
    saved = [cell.strip() for cell in code_cells(notebook.path) if cell.strip()]
    earlier, ran = manifest["cells"][: manifest["begun"]], manifest["cells"][manifest["begun"] :]
    known = {_normal(cell) for cell in saved}
    strange = [c.strip() for c in earlier if _normal(c) not in known and not _is_parameters(c, notebook)]
    lines += [f"ran in the same kernel before it:\n{indent(cell, ' ' * 4)}" for cell in dict.fromkeys(strange)]
    ran = [cell.strip() for cell in ran if cell.strip()]
    if [_normal(c) for c in ran] != [_normal(c) for c in saved]:
        lines.append(cells_diff(saved, ran, "saved", "ran"))
    return lines


def _normal(cell: str) -> str:
    """A cell's code without comments and layout; as it stands where it holds magics."""
    try:
        return ast.unparse(ast.parse(cell))
    except SyntaxError:
        return cell.strip()


def _is_parameters(cell: str, notebook: Notebook) -> bool:
    """Whether a cell only sets parameters: their values were recorded when the stage began."""
    try:
        body = ast.parse(cell).body
    except SyntaxError:
        return False
    names = {*notebook.defaults, "experiment", "scratch"}
    return all(
        isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", None) in names
        and isinstance(node.value, ast.Constant | ast.UnaryOp)
        for node in body
    )


def _execute(choice: Choice, instance: Instance, names: dict[str, str], origin: str) -> int:
    """Run one instance as the workflow would; a key that the experiment has itself needs no note of where it came from."""
    stand_ins = {
        names[key]: Instance(output.manifest["stage"], names[key], {}, {}, {}, {})
        for key, output in choice.stand_ins.items()
    }
    plan = replace(choice.plan, instances={**choice.plan.instances, **stand_ins, instance.key: instance})
    notes = {} if instance.key in choice.plan.instances else {"promoted_from": origin}
    return execute.run(plan, instance, **notes)


def _note(explored: Output, name: str) -> None:
    """Write into an exploratory result's manifest where it was promoted to, for what was made of it."""
    manifest = {**explored.manifest, "promoted": name}
    file = explored.path / store.MANIFEST
    file.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
