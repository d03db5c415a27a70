"""Looking into the run store and keeping it small: finding a result, its size, what reaches it, how two results differ."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.errors import StageError, UserError, short
from underseer.runs import keys
from underseer.store import Output

KINDS = {".safetensors": "models", ".parquet": "tables", ".ipynb": "notebooks"}


def named(key: str) -> Output:
    """The finished result of a key, or of the first characters of one; also of a folder of ``scratch/``.

    Raises:
        UserError: nothing, or more than one result, is named so.
    """
    for folder in (Path(key), paths.home() / key):
        if (folder / store.MANIFEST).is_file():
            return Output(folder.resolve())
    if not re.fullmatch(r"\w*", key):  # else it might be a pattern of several
        raise UserError(f"{short(key)}: no finished result; give a key, its first characters, or a folder of scratch/")
    found = paths.runs().glob(f"*/*/{key}*/{store.MANIFEST}")
    matches = sorted(p.parent for p in found if p.parent.name[0] != ".")
    if len(matches) != 1:
        first = ", ".join(f.name for f in matches[:5])
        few = (
            f"{len(matches)} results have such a key ({first}, ...); give more of it"
            if matches
            else "no finished result"
        )
        raise UserError(f"{key}: {few}; .venv/bin/underseer plan PARAMS.yaml shows an experiment's keys")
    return Output(matches[0])


def sizes(outputs: Iterable[Output]) -> dict[str, dict[str, int]]:
    """By stage, the number of ``results`` and the bytes of each kind of file: models, tables, notebooks, other."""
    rows: dict[str, dict[str, int]] = {}
    for output in outputs:
        row = rows.setdefault(output.manifest["stage"], dict.fromkeys(("results", *KINDS.values(), "other"), 0))
        row["results"] += 1
        for name, record in output.manifest["files"].items():
            row[KINDS.get(Path(name).suffix, "other")] += record["bytes"]
    return rows


def folder_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


@dataclass
class Garbage:
    """What nothing reaches: ``results`` that are finished, ``leavings`` of runs that ended, and files that could not be ``planned``."""

    results: list[Output] = field(default_factory=list)
    leavings: list[Path] = field(default_factory=list)
    unplanned: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        held = sum(r["bytes"] for o in self.results for r in o.manifest["files"].values())
        return held + sum(folder_bytes(p) if p.is_dir() else p.stat().st_size for p in self.leavings)


def garbage() -> Garbage:
    """What no experiment file, no report, no promoted result and no experiment that was run last in its present form reaches.

    Raises:
        StageError: a run is going on in this store.
    """
    unreached = Garbage()
    wanted = _wanted(unreached.unplanned)
    there = {output.key: output for output in store.outputs()}
    queue = [there[key] for key in wanted if key in there]
    queue += [output for output in there.values() if "promoted_from" in output.manifest]
    kept: set[str] = set()
    while queue:
        output = queue.pop()
        if output.key not in kept:
            kept.add(output.key)
            queue += [there[key] for key in output.inputs if key in there]
    unreached.results = [output for key, output in there.items() if key not in kept]
    for left, folder in store.work_folders(paths.runs(), "*/*/"):
        if store.is_working(folder):
            raise StageError(f"{paths.shown(folder)}: a run is going on in this store; wait until it has ended")
        if folder.name.removeprefix(".work-") not in wanted:
            unreached.leavings.append(left)
    unreached.leavings += [f for f in paths.runs().glob("*/*/failed/*") if f.stem not in wanted]
    return unreached


def _wanted(unplanned: list[str]) -> set[str]:
    """The keys that experiment files plan, that saved plans of experiments hold, that published reports and results by hand read."""
    from underseer.runs import workflow
    from underseer.runs.params import load
    from underseer.runs.plan import make

    wanted = {key for plan in workflow.saved() for key in plan.instances}
    for file in sorted((paths.ROOT / "params").glob("*/*.yaml")):
        if file.parent.name == "base":
            continue
        try:
            wanted.update(make(load(file)).instances)
        except UserError as error:
            unplanned.append(f"{paths.shown(file)}: {str(error).splitlines()[0]}")
    for results in paths.home().glob("reports/*/*/results.json"):
        wanted.add(_report_of(results))
    for manifest in paths.home().glob(f"{paths.SCRATCH}/*/*/*/{store.MANIFEST}"):
        wanted.update(Output(manifest.parent).inputs)
    return wanted


def _report_of(results: Path) -> str:
    """The key of the report that a published one shows. Raises UserError where that cannot be read: what it rests on is unknown."""
    try:
        return str(json.loads(results.read_text(encoding="utf-8"))["provenance"].get("report", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        name = "/".join(results.parts[-3:-1])
        again = f"make it anew (.venv/bin/underseer report {name}), or remove {paths.shown(results.parent)}"
        raise UserError(f"{paths.shown(results)}: not the results of a report; {again}") from None


def remove(unreached: Garbage) -> None:
    """Delete what nothing reaches; a result's manifest first, so that a deletion that is cut short leaves no half of a result."""
    for output in unreached.results:
        (output.path / store.MANIFEST).unlink()
        shutil.rmtree(output.path)
    for path in unreached.leavings:
        store.remove(path)


def differences(a: Output, b: Output) -> dict[str, list[tuple[str, Any, Any]]]:
    """How two results differ: by ``parameters``, ``inputs``, ``code``, ``metrics`` and ``cost``, rows of (name, in a, in b)."""
    pairs = {
        "parameters": (a.parameters, b.parameters),
        "inputs": tuple({r: ", ".join(names) for r, names in o.manifest["inputs"].items()} for o in (a, b)),
        "code": (_code(a), _code(b)),
        "metrics": (a.metrics, b.metrics),
        "cost": (a.manifest["cost"], b.manifest["cost"]),
    }
    return {
        part: [(n, x.get(n), y.get(n)) for n in dict.fromkeys((*x, *y)) if x.get(n) != y.get(n)]
        for part, (x, y) in pairs.items()
    }


def _code(output: Output) -> dict[str, Any]:
    """What stands for a result's code, data and models: hashes, commit and versions."""
    manifest = output.manifest
    made = manifest["provenance"]
    return {"stage": manifest["stage"], **manifest["hashes"], "commit": made["commit"], **made["versions"]}


def code_diff(a: Output, b: Output) -> str:
    """A unified diff of the code cells of two executed notebooks; '' where they are the same."""
    notebooks = (output.path / "notebook.ipynb" for output in (a, b))
    old, new = (keys.code_cells(file) if file.is_file() else [] for file in notebooks)
    return keys.cells_diff(old, new, a.name, b.name)


def printed(notebook: Path) -> Iterator[str]:
    """What the cells of an executed notebook printed, and the error that one of them ended with."""
    for cell in keys.cells_of(notebook):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                yield "".join(output["text"]).rstrip("\n")
            elif output["output_type"] == "error":
                yield f"{output['ename']}: {output['evalue']}"


def executed(key: str) -> Path:
    """The executed notebook of a key: of the finished result, or of its failure.

    Raises:
        UserError: there is none.
    """
    failed = sorted(paths.runs().glob(f"*/*/failed/{key}*.ipynb")) if re.fullmatch(r"\w*", key) else []
    if len(failed) == 1:
        return failed[0]
    output = named(key)
    if output.is_scratch or not output.has("notebook.ipynb"):
        raise UserError(f"{key}: a result made by hand keeps no executed notebook; its cells stand in its manifest")
    return output.file("notebook.ipynb")
