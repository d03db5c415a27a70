"""What a notebook calls first: ``begin`` opens its stage.

The same notebook runs in two ways. Under the executor its instance was planned beforehand and stands in the work folder that
``UNDERSEER_WORK`` names; its result gets a key. By "Run All" in JupyterLab and by plain papermill it is exploratory: it reads
what the experiment file that its ``experiment`` names plans for it, and writes into a folder of its own below ``scratch/``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from underseer import paths, store
from underseer.errors import StageError, UserError
from underseer.runs.keys import read_notebook
from underseer.runs.plan import Instance
from underseer.runs.run import Run
from underseer.store import Output


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
    work = Path(os.environ.get("UNDERSEER_WORK") or "/")
    if (work / "instance.json").is_file() and store.is_working(work):  # else a variable that was left behind
        return _planned(stage, own, work, values.get("scratch"))
    from underseer.runs import by_hand, scratch

    by_hand.check_injected(stage, own)
    choice = by_hand.choose(stage, own, values.get("experiment", ""), values.get("scratch"))
    return scratch.ScratchRun(choice, scratch.fresh(stage))


def _planned(stage: str, own: dict[str, Any], work: Path, scratch: str | None) -> Run:
    raw = json.loads((work / "instance.json").read_text(encoding="utf-8"))
    instance = Instance(**raw["instance"])
    planned = {**instance.parameters, **instance.runtime}
    wrong = [n for n in own if own[n] != planned[n]]
    if stage != instance.stage or wrong:
        raise StageError(
            f"{stage}: planned as {instance.stage} with {[f'{n}={planned[n]!r}' for n in wrong]}; the notebook differs"
        )
    if scratch is not None:
        raise StageError(f"{stage}: scratch = {scratch!r}: exploratory results feed no keyed result; set it to None")
    inputs = {role: [Output(Path(p)) for p in places] for role, places in raw["inputs"].items()}
    outside = [o for outputs in inputs.values() for o in outputs if not o.path.is_relative_to(paths.runs())]
    if outside:
        raise StageError(f"{stage}: {paths.shown(outside[0].path)} is no place of the run store")
    return Run(instance, inputs, work)


def _quiet() -> None:
    """Progress bars of downloads and advice for other programs do not belong into a notebook."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
