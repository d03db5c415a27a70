"""Adapter folders (PEFT, LoRA): checks before an engine reads them. Needs no torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError
from underseer.models import specs

if TYPE_CHECKING:
    from torch import nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapter(folder: Path | str, source: str | None) -> dict[str, Any]:
    """The configuration of a LoRA folder that fits the model at ``source`` (a folder, a hub id, None: not known).

    Raises UserError: the folder is missing or incomplete, holds pickled weights or another kind of adapter, or was
    made for other weights, as far as its record of them can be followed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"adapter folder {str(folder)!r} does not exist; give the folder that training saved")
    if not (folder / CONFIG).is_file():
        whole = " (it holds a whole model: give it as the model)" if (folder / "config.json").is_file() else ""
        raise UserError(f"adapter folder {str(folder)!r} has no {CONFIG}{whole}; save it with model.save_pretrained")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"adapter folder {str(folder)!r} has no {WEIGHTS}; only safetensors are read")
    try:
        config = json.loads((folder / CONFIG).read_text())
        kind, made_for = config["peft_type"], config.get("base_model_name_or_path")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"adapter file {str(folder / CONFIG)!r} is not an adapter's configuration") from error
    if kind != "LORA":
        raise UserError(f"adapter folder {str(folder)!r} is of kind {kind}; allowed is LORA")
    if made_for and source and _different(str(made_for), source):
        raise misfit(folder, source, made_for)
    return config


def misfit(folder: Path | str, source: str | None, made_for: str | None) -> UserError:
    """The error for an adapter of another base."""
    origin = f"was made for {made_for!r}" if made_for else "was made for another model"
    return UserError(
        f"adapter folder {str(folder)!r} {origin} and does not fit {source!r}; give an adapter of that model"
    )


def shapes(folder: Path | str) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each module that a LoRA folder changes, by its name in the base model."""
    from safetensors import safe_open

    sizes: dict[str, list[int]] = {}
    with safe_open(Path(folder) / WEIGHTS, framework="numpy") as file:
        for key in file.keys():
            path, _, part = key.removeprefix("base_model.model.").partition(".lora_")
            if part in ("A.weight", "B.weight"):
                sizes.setdefault(path, [0, 0])[part[0] == "B"] = file.get_slice(key).get_shape()[part[0] == "A"]
    return {path: (inputs, outputs) for path, (inputs, outputs) in sizes.items()}


def fits(folder: Path | str, model: nn.Module) -> bool:
    """Whether the model has every module that a LoRA folder changes, in its size, and in no more layers.

    A folder whose configuration names its layers may leave some out.
    """
    modules, changed = dict(model.named_modules()), shapes(folder)
    for path, sizes in changed.items():
        if path not in modules or sorted(modules[path].weight.shape) != sorted(sizes):
            return False
    config = json.loads((Path(folder) / CONFIG).read_text())
    if config.get("layers_to_transform") is not None or re.search(r"\.\d", str(config.get("target_modules"))):
        return True
    kinds = Counter(_kind(path) for path in modules)
    return all(kinds[kind] == n for kind, n in Counter(_kind(path) for path in changed).items())


def _kind(path: str) -> str:
    """A module's name without the number of its layer."""
    return re.sub(r"\d+", "*", path)


def adapter_digest(folder: Path | str | None) -> str | None:
    """What identifies an adapter by its weights; a served name, which is no folder here, stands for itself."""
    if folder is None:
        return None
    return specs.weights_digest(Path(folder)) if Path(folder).is_dir() else str(folder)


def identity(folder: Path | str) -> tuple[str, int, int]:
    """What tells an adapter from one saved later in the same place, without reading it."""
    stat = (Path(folder) / WEIGHTS).stat()
    return str(Path(folder).resolve()), stat.st_size, stat.st_mtime_ns


def _different(made_for: str, source: str) -> bool:
    """Whether two names are certainly of different weights: two folders that are there, or two hub ids."""
    if Path(made_for).is_dir() and Path(source).is_dir():
        return specs.weights_digest(Path(made_for)) != specs.weights_digest(Path(source))
    hub_ids = not any(Path(name).is_absolute() or Path(name).exists() for name in (made_for, source))
    return hub_ids and made_for != source
