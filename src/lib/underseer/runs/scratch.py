"""Exploratory runs: a notebook run by hand writes into a fresh folder below ``scratch/``, and no keyed result changes.

The folder has a manifest as keyed results have, and with it what ran: the notebook's file, the values that differ from the
experiment file, and every cell of the kernel. Nothing in the run store, no plan and no report of an experiment reads it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.runs.by_hand import Choice, cells
from underseer.runs.plan import varied
from underseer.runs.run import Run, provenance


def fresh(stage: str) -> Path:
    """A new folder for an exploratory run, named by the time: ``scratch/<pipeline>/<stage>/<YYYYMMDD-HHMMSS>[-n]``."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, n = paths.scratch(stage) / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            n += 1
            folder = folder.with_name(f"{name}-{n}")


class ScratchRun(Run):
    """A stage run by hand. ``choice`` says which instance of the experiment it stands beside, and what it reads."""

    scratch = True

    def __init__(self, choice: Choice, folder: Path) -> None:
        self._choice = choice
        self._begun = max(len(cells()) - 1, 0)
        self.name = str(folder.relative_to(paths.home()))
        names = {key: output.name for key, output in choice.stand_ins.items()}
        super().__init__(varied(choice.planned, choice.values, names), choice.inputs(), folder)
        self._marks["scratch"] = True

    def _announce(self) -> None:
        choice, planned = self._choice, self._choice.planned.parameters
        self._differs = {n: [v, planned[n]] for n, v in self.instance.parameters.items() if v != planned[n]}
        lines = [f"exploratory: {self.instance.stage} by hand; results go to {self.name}; no keyed result changes"]
        selected = "".join(f", {n} = {v!r}" for n, v in choice.sets.items())
        own = "; ".join(f"{n} = {v!r}, there {there!r}" for n, (v, there) in self._differs.items())
        lines.append(f"parameters: {choice.file}{selected}{'; but ' + own if own else ''}")
        inputs = ", ".join(f"{r} x{len(o)}" if len(o) > 1 else f"{r} {o[0].name}" for r, o in self._inputs.items())
        lines.append(f"inputs: {inputs or 'none'}")
        lines += [f"  {output.name} in place of {name}" for name, output in choice.replaced().items()]
        lines += [f"the first is taken: {choice.others}"] if choice.others else []
        print("\n".join(lines))  # noqa: T201

    def provenance(self) -> dict[str, Any]:
        """As for a keyed result, marked as exploratory."""
        return {"exploratory": True, "in_place_of": self._in_place_of(), **super().provenance(), "report": self.name}

    def _in_place_of(self) -> dict[str, str]:
        """By the name of each exploratory result that this one rests on, the planned input that it stands in for."""
        stands_for = {}
        for planned, output in self._choice.replaced().items():
            stands_for |= {output.name: planned, **output.manifest.get("in_place_of", {})}
        return stands_for

    def finish(self) -> None:
        """Write the manifest. May be called again, after more was saved."""
        choice = self._choice
        record = self._record() | {
            "key": self._work.name,
            "experiment": choice.file,
            "set": choice.sets,
            "differs": self._differs,
            "scratch": choice.scratch,
            "in_place_of": self._in_place_of(),
            "notebook": f"notebooks/{self.instance.stage}.ipynb",
            "cells": cells(),
            "begun": self._begun,
            "provenance": provenance(),
        }
        self._work.mkdir(parents=True, exist_ok=True)
        store.write_manifest(self._work, record)
        use = f'a later notebook reads it with scratch = "{self.name}"'
        if (self._work / "results.json").is_file():
            use = f"make its page with: .venv/bin/underseer report {self.name}"
        print(  # noqa: T201
            f"exploratory result in {self.name}\n  {use}\n  keep it with: .venv/bin/underseer promote {self.name}"
        )
