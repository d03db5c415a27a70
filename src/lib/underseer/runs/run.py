"""A stage at work, as its notebook sees it: inputs, outputs, checks, and what they rest on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.cost import Ledger
from underseer.errors import StageError
from underseer.runs import seeds
from underseer.runs.plan import Instance
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
"""What a stage leaves in its work folder for the executor, which alone writes under a key."""


def rests_on(given: Iterable[Output], home: Path, *, whole: bool = True) -> dict[str, Output]:
    """The given outputs and every one in the store at ``home`` that they were made from, each once, by ``Output.name``.

    What has been removed from the store is a StageError where ``whole``, and else left out with what it alone was made from.
    """
    found: dict[str, Output] = {}
    queue = list(given)
    while queue:
        output = queue.pop()
        if output.name not in found and (whole or output.has(store.MANIFEST)):
            found[output.name] = output
            queue += [store.locate(name, home) for name in output.inputs.values()]
    return found


class Run:
    """One stage instance at work under the executor; ``scratch.ScratchRun`` is one by hand."""

    scratch = False
    """Whether the notebook was run by hand, and its results are exploratory."""

    def __init__(self, instance: Instance, inputs: dict[str, list[Output]], work: Path) -> None:
        self.instance = instance
        self.cost = Ledger()
        self._inputs = inputs
        self._work = work
        self._home = paths.home()
        self._metrics: dict[str, float] = {}
        self._checked: list[str] = []
        self._unmet: list[str] = []
        self._engines: dict[str, None] = {}
        self._started = datetime.now(UTC)
        self._marks = {"synthetic": self._is_synthetic(), "unsafe": False, "rehearsal": instance.rehearsal}
        self._check_apart()
        self._announce()

    def _announce(self) -> None:
        inputs = ", ".join(f"{r} x{len(o)}" if len(o) > 1 else f"{r} {o[0].key}" for r, o in self._inputs.items())
        print(f"{self.instance.stage}  key {self.instance.key}  inputs: {inputs or 'none'}")  # noqa: T201

    def _check_apart(self) -> None:
        """What a rehearsal made serves rehearsals alone, and what was made by hand serves what is made by hand."""
        for output in (o for outputs in self._inputs.values() for o in outputs):
            if output.manifest["marks"].get("rehearsal", False) != self.instance.rehearsal:
                raise StageError(
                    f"{self.instance.stage}: {paths.shown(output.path)} is of a rehearsal, or this stage is"
                )
            if output.is_scratch and not self.scratch:
                raise StageError(f"{self.instance.stage}: {output.name} is exploratory and feeds no keyed result")

    def _is_synthetic(self) -> bool:
        own = str(self.instance.parameters.get("dataset", "")).startswith("testbed") or self.instance.stage.startswith(
            "testbed/"
        )
        return own or any(o.manifest["marks"]["synthetic"] for outputs in self._inputs.values() for o in outputs)

    @property
    def synthetic(self) -> bool:
        """Whether anything that this stage reads comes from the testbed."""
        return self._marks["synthetic"]

    def input(self, role: str) -> Output | None:
        """The one stage instance that fills a role, or None where the pipeline leaves it out."""
        outputs = self._inputs.get(role, [])
        if len(outputs) > 1:
            raise StageError(
                f"{self.instance.stage}: {len(outputs)} inputs fill '{role}'; read them with inputs('{role}')"
            )
        return outputs[0] if outputs else None

    def inputs(self, role: str) -> list[Output]:
        """All stage instances that fill a role, in the plan's order."""
        return self._inputs.get(role, [])

    def variants(self) -> list[dict[str, Any]]:
        """For a report: each variant's ``values`` and, by role, its ``outputs``."""
        planned = [key for keys in self.instance.inputs.values() for key in keys]
        by_key = dict(zip(planned, (o for outputs in self._inputs.values() for o in outputs), strict=True))
        cells = self.instance.variants
        return [{"values": c["values"], "outputs": {r: by_key[k] for r, k in c["roles"].items()}} for c in cells]

    def costs(self) -> dict[str, dict[str, float]]:
        """The ledger of every stage instance that this one rests on, each once, by ``stage/key``."""
        return {name: output.manifest["cost"] for name, output in self._rests_on.items()}

    @cached_property
    def _rests_on(self) -> dict[str, store.Output]:
        """Every stage instance that this one rests on, by ``stage/key``."""
        return rests_on((o for filling in self._inputs.values() for o in filling), self._home)

    def provenance(self) -> dict[str, Any]:
        """Where the numbers of this stage come from: commit, versions, parameters, and the inputs with their hashes."""
        inputs = {r: {o.name: o.manifest["hashes"] for o in outputs} for r, outputs in self._inputs.items()}
        data = {k: v for o in self._inputs.get("data", []) for k, v in o.parameters.items()}
        mark = {"rehearsal": True} if self.instance.rehearsal else {}
        mark |= {"seeds": seeds.described(o.parameters["seed"] for o in self._inputs.get("data", []))}
        computed = {o.manifest.get("cpu_capability") for o in self._rests_on.values()} - {None}
        mark |= {"cpu_capability": sorted(computed)}
        return {**mark, **provenance(), "report": self.instance.key, "parameters": data, "inputs": inputs}

    @property
    def checkpoints(self) -> Path:
        """Where training may keep what it needs to go on after a kill; dropped when the stage finishes."""
        return self._work / store.CHECKPOINTS

    def path(self, name: str) -> Path:
        """A path in the output folder to write to.

        Raises:
            StageError: ``name`` leads out of the folder.
        """
        return _inside(self._work, name)

    def save_table(self, name: str, table: Any) -> None:
        """Save a DataFrame as ``<name>.parquet``. A table named ``curves`` (step, metric, value) becomes MLflow curves."""
        table.to_parquet(_inside(self._work, f"{name}.parquet"), index=False)

    def save_model(self, name: str, model: Any, tokenizer: Any) -> None:
        """Save a model and its tokenizer as a folder in Hugging Face's format (safetensors)."""
        from underseer.models import loading

        loading.save(model, tokenizer, _inside(self._work, name))

    def save_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        _inside(self._work, f"{name}.json").write_text(text, encoding="utf-8")

    def metrics(self, **values: float) -> None:
        """Final numbers of this stage, for its manifest and MLflow."""
        self._metrics.update({k: float(v) for k, v in values.items()})

    def used(self, engine: Any) -> None:
        """Name an engine that was opened, for the manifest: of a server only now is known what it runs."""
        self._engines[f"{engine.name}: {engine.version}"] = None

    def mark_unsafe(self) -> None:
        """Fence the outputs: they hold, or can produce, unsafe material."""
        self._marks["unsafe"] = True

    def check(self, holds: Any, rule: str) -> None:
        """Stop the stage unless ``holds``; ``rule`` says what must hold. In a rehearsal, whose models are random, what does
        not hold is noted.

        Raises:
            StageError: the check failed; nothing is stored.
        """
        if not bool(holds):
            if self.instance.rehearsal:
                print(f"rehearsal: does not hold: {rule}")  # noqa: T201
                self._unmet.append(rule)
                return
            raise StageError(f"{self.instance.stage}: check failed: {rule}")
        self._checked.append(rule)

    def finish(self) -> None:
        """Close the stage. The executor adds the executed notebook and moves the folder to its place."""
        record = self._record()
        (self._work / PENDING).write_text(json.dumps(record), encoding="utf-8")
        print(f"checked: {len(self._checked)}; {record['cost']['seconds']} s")  # noqa: T201

    def _record(self) -> dict[str, Any]:
        facts = asdict(self.instance)
        inputs = {role: [o.name for o in outputs] for role, outputs in self._inputs.items()}
        times = {
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        seen = {"metrics": self._metrics, "checks": self._checked, "marks": self._marks, "cost": self.cost.total()}
        seen |= {"unmet": self._unmet} if self._unmet else {}
        seen |= {"engines": list(self._engines)} if self._engines else {}
        if torch := sys.modules.get("torch"):
            seen |= {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
        return {"schema": 1, **facts, "inputs": inputs, **times, **seen}


def _inside(folder: Path, name: str) -> Path:
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(folder):
        raise StageError(f"{name}: leads out of the stage's output folder {paths.shown(folder)}; give a name below it")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
