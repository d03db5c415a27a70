"""What a notebook calls: begin a stage, read its inputs, save and check its outputs, finish.

The same notebook runs in three ways. Under ``underseer run`` the instance was planned beforehand and stands in the
work folder that ``UNDERSEER_WORK`` names. By "Run All" in JupyterLab and by plain papermill, the instance is planned
here, from the values of the notebook's parameters over the experiment file that its ``experiment`` names.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.cost import Ledger
from underseer.errors import StageError, UserError, nearest
from underseer.runs.params import KNOWN, RUNTIME, load
from underseer.runs.plan import Instance, make, read_notebook
from underseer.store import Output

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "trl",
    "peft",
    "accelerate",
    "numpy",
    "pandas",
    "scikit-learn",
    "papermill",
)
PENDING = "pending.json"


def begin(stage: str, values: dict[str, Any]) -> Run:
    """Open a stage; ``values`` is the notebook's ``globals()``.

    Raises:
        UserError: a parameter of the notebook is missing, unknown or of the wrong type.
        StageError: an input has not been made; the message names the stage and the command that makes it.
    """
    _quiet()
    notebook = read_notebook(stage)
    own = {name: values[name] for name in notebook.defaults if name in values}
    lost = [name for name in notebook.defaults if name not in values]
    if lost:
        raise UserError(f"{stage}: parameter {lost[0]} is not set; run the cell tagged 'parameters' first")
    work = os.environ.get("UNDERSEER_WORK")
    if work:
        return _planned(stage, own, Path(work))
    return _interactive(stage, own, values.get("experiment", ""))


def _planned(stage: str, own: dict[str, Any], work: Path) -> Run:
    raw = json.loads((work / "instance.json").read_text(encoding="utf-8"))
    instance = Instance(**raw["instance"])
    told = {**instance.parameters, **instance.runtime}
    wrong = [n for n in own if own[n] != told[n]]
    if stage != instance.stage or wrong:
        raise StageError(
            f"{stage}: planned as {instance.stage} with {[f'{n}={told[n]!r}' for n in wrong]}; the notebook differs"
        )
    inputs = {role: [Output(Path(p)) for p in found] for role, found in raw["inputs"].items()}
    return Run(instance, inputs, work)


def _interactive(stage: str, own: dict[str, Any], experiment: str) -> Run:
    """Plan the experiment with this notebook's values, and take the instance that they name."""
    _check_injected(stage, own)
    file = paths.ROOT / experiment
    sets = [f"{n}={json.dumps(v)}" for n, v in own.items() if n in KNOWN]
    plan = make(load(file, sets))
    same = [i for i in plan.instances.values() if i.stage == stage]
    if not same:
        raise UserError(f"{stage}: {plan.file} needs no such stage; name another file in the notebook's 'experiment'")
    found = [
        i for i in same if all(i.parameters[n] == _as_planned(n, v, i) for n, v in own.items() if n not in RUNTIME)
    ]
    if len(found) != 1:
        differs = {n: sorted({str(i.parameters[n]) for i in same}) for n in own if n not in RUNTIME}
        there = "; ".join(f"{n}: {', '.join(v)}" for n, v in differs.items() if v != [str(own[n])])
        raise UserError(
            f"{stage}: {len(found)} instances of {plan.file} have these parameters; it has {there or 'more than one'}"
        )
    instance = found[0]
    inputs: dict[str, list[Output]] = {}
    for role, keys in instance.inputs.items():
        needed = [plan.instances[k] for k in keys]
        missing = next((i for i in needed if not i.cached), None)
        if missing:
            swept = [f"--set {n}={own[n]}" for n in ("seed",) if n in own]
            command = " ".join(["underseer run", plan.file, *swept])
            raise StageError(f"{stage}: its input '{role}' is not there yet: {missing.stage} makes it. Run: {command}")
        inputs[role] = [Output(i.place) for i in needed]
    stack = ExitStack()
    work = stack.enter_context(store.working(stage, instance.key))
    return Run(instance, inputs, work, stack)


def _check_injected(stage: str, own: dict[str, Any]) -> None:
    """Refuse what ``papermill -p`` was given and the notebook does not declare: papermill itself only warns."""
    for cell in _executed():
        if cell.startswith("# Parameters\n"):
            given = [node.targets[0].id for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
            unknown = [name for name in given if name not in own and name != "experiment"]
            if unknown:
                hint = nearest(unknown[0], own) or f"; it declares {', '.join(own)}"
                raise UserError(f"{stage}: {unknown[0]}: unknown parameter{hint}")


def _executed() -> list[str]:
    """The cells that ran in this kernel."""
    import __main__

    return [cell.strip() for cell in getattr(__main__, "In", [])]


def _as_planned(name: str, value: Any, instance: Instance) -> Any:
    """Paths are planned as absolute paths; a notebook may hold a relative one. Which engine answers, the plan decides, and
    which parameters nothing reads (None)."""
    planned = instance.parameters[name]
    if name == "engine" or planned is None:
        return planned
    same_path = isinstance(value, str) and isinstance(planned, str) and Path(planned).is_absolute()
    return planned if same_path and (paths.ROOT / value).resolve() == Path(planned) else value


def _quiet() -> None:
    """Progress bars of downloads and advice for other programs do not belong into a notebook."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Run:
    """One stage instance at work."""

    def __init__(
        self, instance: Instance, inputs: dict[str, list[Output]], work: Path, stack: ExitStack | None = None
    ) -> None:
        self.instance = instance
        self.cost = Ledger()
        self._inputs = inputs
        self._work = work
        self._stack = stack
        self._metrics: dict[str, float] = {}
        self._checked: list[str] = []
        self._unmet: list[str] = []
        self._engines: dict[str, None] = {}
        self._started = datetime.now(UTC)
        self._marks = {"synthetic": self._is_synthetic(), "unsafe": False, "rehearsal": instance.rehearsal}
        self._check_apart()
        print(f"{instance.stage}  key {instance.key}  inputs: {self._describe_inputs() or 'none'}")  # noqa: T201

    def _describe_inputs(self) -> str:
        return ", ".join(f"{r} x{len(o)}" if len(o) > 1 else f"{r} {o[0].key}" for r, o in self._inputs.items())

    def _check_apart(self) -> None:
        """What a rehearsal made serves rehearsals alone."""
        for output in (o for found in self._inputs.values() for o in found):
            if output.manifest["marks"].get("rehearsal", False) != self.instance.rehearsal:
                raise StageError(
                    f"{self.instance.stage}: {paths.shown(output.path)} is of a rehearsal, or this stage is"
                )

    def _is_synthetic(self) -> bool:
        own = str(self.instance.parameters.get("dataset", "")).startswith("testbed") or self.instance.stage.startswith(
            "testbed/"
        )
        return own or any(o.manifest["marks"]["synthetic"] for found in self._inputs.values() for o in found)

    @property
    def synthetic(self) -> bool:
        """Whether anything that this stage reads comes from the testbed."""
        return self._marks["synthetic"]

    def input(self, role: str) -> Output | None:
        """The one stage instance that fills a role, or None where the pipeline leaves it out."""
        found = self._inputs.get(role, [])
        if len(found) > 1:
            raise StageError(
                f"{self.instance.stage}: {len(found)} inputs fill '{role}'; read them with inputs('{role}')"
            )
        return found[0] if found else None

    def inputs(self, role: str) -> list[Output]:
        """All stage instances that fill a role, in the plan's order."""
        return self._inputs.get(role, [])

    def variants(self) -> list[dict[str, Any]]:
        """For a report: each variant's ``values`` and, by role, its ``outputs``."""
        by_key = {o.key: o for found in self._inputs.values() for o in found}
        cells = self.instance.variants
        return [{"values": c["values"], "outputs": {r: by_key[k] for r, k in c["roles"].items()}} for c in cells]

    def costs(self) -> dict[str, dict[str, float]]:
        """The ledger of every stage instance that this one rests on, each once, by ``stage/key``."""
        found: dict[str, dict[str, float]] = {}
        queue = [o for outputs in self._inputs.values() for o in outputs]
        while queue:
            output = queue.pop()
            name = f"{output.manifest['stage']}/{output.key}"
            if name not in found:
                found[name] = output.manifest["cost"]
                queue += [Output(paths.runs() / i) for inputs in output.manifest["inputs"].values() for i in inputs]
        return found

    def provenance(self) -> dict[str, Any]:
        """Where the numbers of this stage come from: commit, versions, parameters, and the inputs with their hashes."""
        inputs = {
            r: {f"{o.manifest['stage']}/{o.key}": o.manifest["hashes"] for o in found}
            for r, found in self._inputs.items()
        }
        data = {k: v for o in self._inputs.get("data", []) for k, v in o.parameters.items()}
        mark = {"rehearsal": True} if self.instance.rehearsal else {}
        return {**mark, **provenance(), "report": self.instance.key, "parameters": data, "inputs": inputs}

    @property
    def checkpoints(self) -> Path:
        """Where training may keep what it needs to go on after a kill; dropped when the stage finishes."""
        return self._work / store.CHECKPOINTS

    def path(self, name: str) -> Path:
        """A path in the output folder to write to."""
        path = self._work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def save_table(self, name: str, table: Any) -> None:
        """Save a DataFrame as ``<name>.parquet``. A table named ``curves`` (step, metric, value) becomes MLflow curves."""
        table.to_parquet(self.path(f"{name}.parquet"), index=False)

    def save_model(self, name: str, model: Any, tokenizer: Any) -> None:
        """Save a model and its tokenizer as a folder in Hugging Face's format (safetensors)."""
        from underseer.models import loading

        loading.save(model, tokenizer, self.path(name))

    def save_json(self, name: str, value: Any) -> None:
        self.path(f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def metrics(self, **values: float) -> None:
        """Final numbers of this stage, for its manifest and MLflow."""
        self._metrics.update({k: float(v) for k, v in values.items()})

    def used(self, engine: Any) -> None:
        """Name an engine that was opened, for the manifest: of a server only now is known what it runs."""
        self._engines[f"{engine.name}: {engine.version}"] = None

    def mark_unsafe(self) -> None:
        """Fence the outputs: they hold, or can produce, unsafe material."""
        self._marks["unsafe"] = True

    def check(self, holds: Any, told: str) -> None:
        """Stop the stage unless ``holds``; ``told`` says what must hold. In a rehearsal, whose models are random, what does
        not hold is noted.

        Raises:
            StageError: the check failed; nothing is stored.
        """
        if not bool(holds):
            if self.instance.rehearsal:
                print(f"rehearsal: does not hold: {told}")  # noqa: T201
                self._unmet.append(told)
                return
            raise StageError(f"{self.instance.stage}: check failed: {told}")
        self._checked.append(told)

    def finish(self) -> None:
        """Close the stage. Under the workflow the executed notebook is added before the folder is moved to its place."""
        record = self._record()
        if os.environ.get("UNDERSEER_WORK"):
            (self._work / PENDING).write_text(json.dumps(record), encoding="utf-8")
            print(f"checked: {len(self._checked)}; {record['cost']['seconds']} s")  # noqa: T201
            return
        _check_executed(self.instance.stage)
        record["provenance"] = provenance()
        output = store.seal(self._work, self.instance.place, record)
        self._stack.close()
        print(f"stored in {paths.shown(output.path)}; `underseer sync` logs it to MLflow")  # noqa: T201

    def _record(self) -> dict[str, Any]:
        facts = asdict(self.instance)
        inputs = {role: [f"{o.manifest['stage']}/{o.key}" for o in found] for role, found in self._inputs.items()}
        times = {
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        told = {"metrics": self._metrics, "checks": self._checked, "marks": self._marks, "cost": self.cost.total()}
        told |= {"unmet": self._unmet} if self._unmet else {}
        told |= {"engines": list(self._engines)} if self._engines else {}
        return {"schema": 1, **facts, "inputs": inputs, **times, **told}


def _check_executed(stage: str) -> None:
    """Refuse to store what other cells than those of the saved notebook computed: the key is the notebook's on disk."""
    executed = _executed()
    if not executed:
        return
    cells = json.loads(read_notebook(stage).path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "parameters" not in c["metadata"].get("tags", ())]
    edited = [c for c in code if "".join(c["source"]).strip() not in executed]
    if edited:
        first = "".join(edited[0]["source"]).strip().splitlines()[0]
        raise StageError(
            f"{stage}: the cell beginning {first!r} ran with other code than the saved notebook's; save, then Run All"
        )


def provenance() -> dict[str, Any]:
    """Versions, commit, host: recorded with every result, part of no key."""
    commit = _git("rev-parse", "HEAD")
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "commit": commit,
        "uncommitted_changes": dirty,
        "versions": {"python": platform.python_version(), **versions},
        "host": platform.node(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(paths.ROOT), *args], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
