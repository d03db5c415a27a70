"""Rehearsals: an experiment run as it is written, with tiny random models of the same architectures on a few rows.

What a configuration can get wrong (a parameter, a model's class or chat template, a column of a data set, two stages that
do not fit together) shows in a minute on a CPU. The numbers mean nothing: everything made in a rehearsal is marked, has
keys of its own, and reports as ``rehearsal/PROFILE_NAME``.

``rehearse`` turns an experiment into its rehearsal and touches nothing; ``prepare`` also makes the models and rows that it
names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from underseer import paths
from underseer.judges import spec as judge_specs
from underseer.runs.files import JUDGES, MODELS, Experiment, unique
from underseer.runs.params import DATASETS
from underseer.runs.rehearsal import rows, shapes
from underseer.runs.rehearsal.shapes import Shape

PROFILE = "rehearsal"

RULES: tuple[tuple[str, float], ...] = (
    (r"^n_(transfer|judge)$", 60),
    (r"^n_(supervise|test)$", 40),
    (r"^n_prompts$|^attack_budget$", 16),
    (r"^n_evaluation$", 8),
    (r"^n_", 24),
    (r"epochs$|^kv_cache_gb$", 1),
    (r"(^|_)(iterations|rounds)$|^(bootstraps|judge_members|samples|eval_steps|gradient_accumulation)$", 2),
    (r"_per_(prompt|round|strategy|category)$", 3),
    (r"_new_tokens$", 8),
    (r"_length$", 128),
    (r"_steps$", 20),
)
"""Pattern of a parameter's name, the first that fits counts -> the most that it may be in a rehearsal."""

SET: dict[str, Any] = {"device": "cpu", "threads": 1}


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of an experiment, and what has to be made for it: tiny models by their folders, rows of data sets."""

    experiment: Experiment
    models: dict[Path, Shape] = field(default_factory=dict)
    samples: dict[Path, str | None] = field(default_factory=dict)  # folder of sample rows -> folder given, if one is


def prepare(experiment: Experiment) -> Experiment:
    """The rehearsal of an experiment, ready to be planned: its models and rows stand in the store.

    Raises:
        UserError: a model whose architecture is not known here, or a data set without sample rows.
    """
    rehearsal = rehearse(experiment)
    missing = {folder: shape for folder, shape in rehearsal.models.items() if not (folder / "config.json").is_file()}
    if missing:
        from underseer.runs.rehearsal import build

        for folder, shape in missing.items():
            build.build(shape, folder)
    for folder, given in rehearsal.samples.items():
        rows.write(folder, given)
    return rehearsal.experiment


def rehearse(experiment: Experiment) -> Rehearsal:
    """An experiment with every parameter as a rehearsal has it; raises UserError as ``prepare`` does."""
    made: dict[Path, Shape] = {}

    def small(values: dict[str, Any]) -> dict[str, Any]:
        return {key: _value(key, value, made) for key, value in values.items()}

    parameters = small(experiment.parameters)
    variants = unique(small(variant) for variant in _one_seed(experiment.variants))
    samples: dict[Path, str | None] = {}
    for values in (parameters, *variants):
        _give_rows(values, parameters, samples)
    name = f"{PROFILE}/{experiment.name.replace('/', '_')}"
    description = f"Rehearsal of {experiment.name}: tiny random models, a few rows; its numbers mean nothing"
    changed = {"name": name, "description": description, "parameters": parameters, "variants": variants}
    changed["options"] = f"{experiment.options} --rehearse"
    return Rehearsal(replace(experiment, **changed, rehearsal=True), made, samples)


def _value(key: str, value: Any, made: dict[Path, Shape]) -> Any:
    if key in SET:
        return SET[key]
    if key == "engine" and value == "openai":
        return "transformers"  # the models of a rehearsal stand on this machine, on no server
    if isinstance(value, str) and key in MODELS | JUDGES:
        return _model(value, lambda shape: _folder(shape, made))
    if isinstance(value, int | float) and not isinstance(value, bool):
        most = next((most for pattern, most in RULES if re.search(pattern, key)), value)
        return min(value, type(value)(most))
    return value


def _model(value: str, folder: Callable[[Shape], str]) -> str:
    """A parameter that names a model, by itself or after the kind of a judge, with a tiny model's folder instead."""
    if value == "templates":
        return value

    def tiny(kind: str, model: str, options: str) -> str:
        label = next((o.partition("=")[2] for o in options[1:].split("&") if o.startswith("label=")), None)
        return folder(shapes.shape_of(model, kind, label, options))

    return judge_specs.mapped(value, tiny)


def _folder(shape: Shape, made: dict[Path, Shape]) -> str:
    place = paths.home() / PROFILE / "models" / shape.digest / f"tiny-{shape.name}"
    made[place] = shape
    return str(place)


def _one_seed(variants: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The variants of the first seed."""
    first = next((v["seed"] for v in variants if "seed" in v), None)
    return [v for v in variants if v.get("seed", first) == first]


def _give_rows(values: dict[str, Any], shared: dict[str, Any], samples: dict[Path, str | None]) -> None:
    """Let data sets that have no file be read from sample rows, beside the files of a folder that is given."""
    named = [values[key] for key in values if key in DATASETS and values[key]]
    given = values.get("dataset_path", shared.get("dataset_path"))
    if not any([rows.needed(name) for name in named]) or (given and not Path(given).is_dir()):
        return
    beside = f"-{hashlib.sha256(given.encode()).hexdigest()[:8]}" if given else ""
    place = paths.home() / PROFILE / "data" / f"{rows.VERSION}{beside}"
    samples[place] = given
    values |= {"dataset_path": str(place)} | ({"dataset_revision": None} if "dataset_revision" in shared else {})
