"""Experiment files as they are written: YAML, ``extends``, and the variants of a grid. What the values mean stands in ``params``."""

from __future__ import annotations

import itertools
import math
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from underseer.errors import UserError, nearest, short
from underseer.judges import spec as judge_specs
from underseer.paths import ROOT, shown
from underseer.runs import limits, notation

PATHS = frozenset({"dataset_path"})
MODELS = frozenset({"weak_model", "strong_model", "target_model", "red_team_model"})
JUDGES = frozenset(
    {
        "training_judge",
        "reporting_judge",
        "fluency_model",
        "helpfulness_judge",
        "refusal_judge",
        "reporting_helpfulness_judge",
    }
)
"""Parameters that may name a model after a prefix: ``trained:MODEL``, ``classifier:MODEL``."""

Problem = Callable[[str, Any], str | None]
"""A parameter's name and value -> what is wrong with it, in one line, or None."""

STEERING = ("pipeline", "description", "extends", "variants", "seeds", "n_seeds")


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment file: ``variants`` holds, for each variant, the keys of the grid and their values; ``options`` what
    follows ``underseer run`` to make the same once more."""

    name: str
    file: Path
    pipeline: str
    description: str
    parameters: dict[str, Any]
    variants: tuple[dict[str, Any], ...]
    rehearsal: bool = False
    options: str = ""

    def resolved(self) -> Iterator[dict[str, Any]]:
        """All parameters of each variant, in the order of the grid."""
        for variant in self.variants:
            yield {**self.parameters, **variant}


@dataclass
class Source:
    """One key as it was written: where, and what."""

    where: str
    value: Any


@dataclass
class Raw:
    """The keys of a file and of those it extends, before any check of their values."""

    keys: dict[str, Source] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def grids(self) -> list[Any]:
        """The grids of ``variants``, as they are written; without any, one that is empty."""
        return _listed(self.keys["variants"].value if "variants" in self.keys else None)

    def put_grids(self, where: str, grids: list[Any]) -> None:
        self.keys["variants"] = Source(where, grids)

    def said(self, key: str) -> list[Any]:
        """What is written of a key: its plain value, and its axis in each grid."""
        plain = self.keys[key].value if key in self.keys else None
        return [plain, *(grid.get(key) for grid in self.grids if isinstance(grid, dict))]


def _listed(grids: Any) -> list[Any]:
    return grids if isinstance(grids, list) else [{} if grids is None else grids]


def absolute(key: str, value: str, base: Path) -> str:
    """A path parameter made absolute; a model is a path when it begins with '.', '/' or '~', or is a folder there."""
    if key in JUDGES:
        return judge_specs.mapped(value, lambda kind, model, options: absolute("weak_model", model, base))
    if key not in PATHS | MODELS:
        return value
    if key in MODELS and (
        ":" in value or not (value[:1] in "./~" or value.endswith(".gguf") or (base / value).is_dir())
    ):
        return value
    if key in PATHS and "+" in value and not (base / value).exists():
        return "+".join(absolute(key, part, base) for part in value.split("+"))
    return str((base / Path(value).expanduser()).resolve())


def _located(raw: Raw, where: str, key: str, value: Any, base: Path) -> Any:
    """What is written of a key with the paths in it made absolute: in a value, on an axis, in a grid."""
    if isinstance(value, list):
        return [_located(raw, where, key, one, base) if isinstance(one, str | dict) else one for one in value]
    if isinstance(value, dict) and key == "variants":
        return {name: _located(raw, where, name, a, base) if name != key else a for name, a in value.items()}
    try:
        return absolute(key, value, base) if isinstance(value, str) and not limits.unfit(key, value) else value
    except (OSError, RuntimeError) as error:  # too long a name, an unknown user
        reason = "no such user" if value[:1] == "~" else error
        raw.problems.append(f"{where}: {key} = {short(value)}: cannot be a path ({reason}); give one from / or from ./")
        return value


def read(path: Path, seen: tuple[Path, ...] = ()) -> Raw:
    """The keys of ``path`` over those of the file that it extends, with the line that each stands on."""
    if path.resolve() in seen:
        chain = " -> ".join(shown(p) for p in (*seen, path))
        raise UserError(f"{shown(path)}: extends itself ({chain}); remove one 'extends'")
    try:
        _check_regular(path)
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, notation.Loader)
        values = yaml.load(text, notation.Loader)
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: no such file{_known_files(path)}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        kind = "" if isinstance(error, yaml.constructor.ConstructorError) else "not YAML: "
        raise UserError(f"{shown(path)}{line}: {kind}{getattr(error, 'problem', None) or 'syntax error'}") from None
    except RecursionError:
        raise UserError(f"{shown(path)}: nested too deep; an experiment file is flat but for 'variants'") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{shown(path)}: cannot be read as text ({getattr(error, 'strerror', None) or type(error).__name__})"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{shown(path)}: expected 'key: value' lines, found {_kind(values)}")
    raw = Raw()
    base = values.get("extends")
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{shown(path)}: extends = {short(base)}: expected the path of another params file")
        if why := limits.unfit("extends", base):
            raise UserError(f"{shown(path)}: extends = {short(base)}: {why}; give the path of another params file")
        raw = read(path.parent / base, (*seen, path.resolve()))
    _drop_inherited_seeds(raw, values)
    for key_node, _ in node.value:
        key, where = str(key_node.value), f"{shown(path)}:{key_node.start_mark.line + 1}"
        raw.keys[key] = Source(where, _located(raw, where, key, values.get(key_node.value), ROOT))
    return raw


def _check_regular(path: Path) -> None:
    """Raises UserError for a device, a pipe or a folder, which may never end, and for what is too large for an experiment file."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"{shown(path)}: no regular file; give an experiment file (*.yaml)")
    if facts.st_size > limits.MOST_BYTES:
        size = f"{facts.st_size:,} bytes, and an experiment file has at most {limits.MOST_BYTES:,}"
        raise UserError(f"{shown(path)}: {size}; give an experiment file (*.yaml)")


def _drop_inherited_seeds(raw: Raw, values: dict[str, Any]) -> None:
    """Seeds that a file names itself, as a set or one by one, take the place of those of the file that it extends."""
    if "seeds" in values:
        _drop_seed(raw)
    if "seed" in values or _have(_listed(values.get("variants")), "seed"):
        raw.keys.pop("seeds", None)
        raw.keys.pop("n_seeds", None)
        if "seeds" in values:
            raw.problems.append(f"seeds = {values['seeds']!r}: there is a 'seed' beside it; keep one of the two")


def _drop_seed(raw: Raw) -> None:
    raw.keys.pop("seed", None)
    if _have(raw.grids, "seed"):
        raw.put_grids(raw.keys["variants"].where, [_without(grid, "seed") for grid in raw.grids])


def _known_files(path: Path) -> str:
    files = [shown(p) for p in sorted((ROOT / "params").glob("*/*.yaml"))]
    return nearest(str(path), files) or "; `ls params/*` shows the experiments that come with underseer"


def override(raw: Raw, key: str, text: str) -> None:
    """Put a value from the command line over what the files say; a list makes an axis of the grid."""
    try:
        value = notation.parse(text)
    except notation.ERRORS:
        raw.problems.append(
            f"--set {key}={short(text)[1:-1]}: the value is not YAML; quote it, for example --set '{key}=\"...\"'"
        )
        return
    if key == "extends":
        raw.problems.append(f"--set extends={text}: stands in experiment files alone; name another file to run")
        return
    where = f"--set {key}"
    source = Source(where, _located(raw, where, key, value, Path.cwd()))
    value = source.value
    axis = value if isinstance(value, list) else [value]
    if key in STEERING:
        if key == "seeds":
            _drop_seed(raw)
        raw.keys[key] = source
    elif key == "seed" and raw.keys.pop("seeds", None):
        raw.keys.pop("n_seeds", None)
        raw.put_grids(where, with_seeds(raw.grids, axis))
    elif _have(raw.grids, key) or isinstance(value, list):
        raw.keys.pop(key, None)
        raw.put_grids(where, [{**g, key: axis} if isinstance(g, dict) else g for g in raw.grids])
    else:
        raw.keys[key] = source


def _have(grids: list[Any], key: str) -> bool:
    return any(isinstance(grid, dict) and key in grid for grid in grids)


def _without(grid: Any, key: str) -> Any:
    return {k: v for k, v in grid.items() if k != key} if isinstance(grid, dict) else grid


def with_seeds(grids: list[Any], seeds: list[Any]) -> list[Any]:
    """Grids with the axis ``seed`` before their own axes; a grid's own ``n_seeds`` keeps the first of them."""
    return [
        {"seed": seeds[: grid.get("n_seeds")], **_without(grid, "n_seeds")} if isinstance(grid, dict) else grid
        for grid in grids
    ]


def expand(source: Source | None, problems: list[str], problem: Problem) -> tuple[dict[str, Any], ...]:
    """The variants of a grid, or of a list of grids, without repetitions."""
    if source is None or source.value is None:
        return ({},)
    grids = _listed(source.value)
    if not grids:
        problems.append(f"{source.where}: variants = []: empty; give at least one value, or leave variants out")
    variants: list[dict[str, Any]] = []
    for grid in grids:
        if not isinstance(grid, dict):
            problems.append(f"{source.where}: variants = {short(grid)}: expected 'key: [values]' lines")
            continue
        sound = True
        for key, axis in grid.items():
            bad = _axis_problem(key, axis, problem)
            problems += [f"{source.where}: variants: {b}" for b in bad]
            sound = sound and not bad
        if sound and (n := math.prod(map(len, grid.values()))) > limits.MOST_VARIANTS:
            problems.append(
                f"{source.where}: variants: {n:,} of them; at most {limits.MOST_VARIANTS:,} are planned at once"
            )
        elif sound:
            combos = itertools.product(*grid.values())
            variants += [dict(zip(grid, combo, strict=True)) for combo in combos]
    return unique(variants)


def unique(variants: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The variants, each once."""
    return tuple({repr(sorted(v.items())): v for v in variants}.values())


def _axis_problem(key: str, axis: Any, problem: Problem) -> list[str]:
    if not isinstance(axis, list):
        return [f"{key} = {short(axis)}: expected a list, for example {key}: [{short(axis)}]"]
    if not axis:
        return [f"{key} = []: empty grid; give at least one value, or leave {key} out"]
    return [p for p in (problem(key, value) for value in axis) if p]


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def name_of(path: Path) -> str:
    """``params/demo/w2s_safety.yaml`` is ``demo/w2s_safety``, wherever the params folder stands. Raises UserError where reports
    cannot have such a name."""
    stem = path.resolve().with_suffix("")
    if not stem.name.strip(".") or limits.unfit("", stem.name + stem.parent.name):
        raise UserError(f"{shown(path)}: reports cannot have this name; give the file another, such as mine.yaml")
    return f"{stem.parent.name or 'root'}/{stem.name}"
