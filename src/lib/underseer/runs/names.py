"""Names of reruns: an experiment that differs from its file has a report, and an MLflow experiment, of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from underseer.errors import UserError
from underseer.paths import ROOT
from underseer.runs.files import Experiment, Raw
from underseer.runs.warm import CPU

LENGTH = 60  # characters after the '@', without the hash
UNTOLD = ("description",)
"""Keys that change no result and are no runtime parameters either."""


def options(file: Path, typed: Mapping[str, str], name: str | None) -> str:
    """What follows ``underseer run`` in the repository to make an experiment: its file, the parameters as they were typed, and its name."""
    whole = file.resolve()
    place = whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else whole
    return shlex.join([str(place), *sets(typed), *(["--name", name] if name else [])])


def sets(typed: Mapping[str, str]) -> list[str]:
    """The words of a command that set parameters to values as one types them."""
    return [word for key, value in typed.items() for word in ("--set", f"{key}={value}")]


def command(options: str) -> str:
    """The command of a run, with the instruction set that was asked for; ``options`` follow ``underseer run``."""
    cpu = f" --cpu {os.environ[CPU]}" if CPU in os.environ else ""
    return f".venv/bin/underseer{cpu} run {options}"


def read(name: str) -> str:
    """The same, as far as it can be read from an experiment's name: ``demo/w2s_safety@n_seeds=8`` holds what was set."""
    file, _, changes = name.partition("@")
    told = [c.replace("+", ",") for c in changes.split(",") if re.fullmatch(r"\w+=[^,]+", c)]
    typed = {k: f"[{v}]" if "," in v else v for k, _, v in (t.partition("=") for t in told)}
    return options(ROOT / f"params/{file}.yaml", typed, None if typed else changes)


def chosen(experiment: Experiment, name: str) -> Experiment:
    """The experiment under the name that ``--name`` gives it; raises UserError where no folder can have that name."""
    if not re.fullmatch(r"\w[\w.+=-]*", name) or len(name) > LENGTH:
        raise UserError(
            f"--name {name}: expected up to {LENGTH} letters, digits and any of _ . + = -, for example --name wide"
        )
    return replace(experiment, name=f"{experiment.name}@{name}")


def rerun(
    experiment: Experiment,
    raw: Raw,
    typed: Mapping[str, str],
    written: tuple[Raw, Callable[[], Experiment]],
    runtime: Collection[str],
) -> Experiment:
    """The experiment under a name that tells it from its file's: ``demo/w2s_safety@n_seeds=8``, also the name of a folder.

    It keeps its name where its results are the file's. A value that is long, is a path, or holds characters that a folder's
    name does not take is cut, and a hash of all changes follows.

    Args:
        experiment: with the overrides; ``raw`` is what it was made of.
        typed: parameter -> its value as it was typed.
        written: what the file alone holds, and what is made of it; a UserError where that is no experiment.
        runtime: the parameters that decide no result.
    """
    file_raw, file_experiment = written
    with suppress(UserError):
        if _results(file_experiment(), runtime) == _results(experiment, runtime):
            return experiment
    other = (k for k in typed if k not in runtime and k not in UNTOLD and raw.said(k) != file_raw.said(k))
    changes = {key: typed[key] for key in sorted(other)}
    if not changes:
        return experiment
    paths = {k: v for k in changes for v in raw.said(k) if isinstance(v, str) and v != changes[k]}
    shown = {k: Path(v).name if k in paths else re.sub(r", *", "+", v.strip("[] ")) for k, v in changes.items()}
    values = [f"{key}={value}" for key, value in shown.items()]
    text = ",".join(re.sub(r"[^\w.+=-]+", "-", value) for value in values)
    if paths or text != ",".join(values) or len(text) > LENGTH:
        digest = hashlib.sha256(repr([changes, paths]).encode()).hexdigest()[:8]
        text = f"{text[:LENGTH]}-{digest}"
    return replace(experiment, name=f"{experiment.name}@{text}")


def _results(experiment: Experiment, runtime: Collection[str]) -> list[dict[str, Any]]:
    """What decides the results of each variant."""
    return [{k: v for k, v in values.items() if k not in runtime} for values in experiment.resolved()]
