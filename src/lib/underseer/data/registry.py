"""How a data set's name, such as ``advbench+wts-safety/safe``, is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from underseer.data.catalogue import DATASETS
from underseer.data.info import CLASSES, HOLDINGS, LABELS, TRAIN_LABELS, DatasetInfo, remote_url
from underseer.errors import UserError, nearest

__all__ = [
    "CLASSES", "DATASETS", "HOLDINGS", "LABELS", "TRAIN_LABELS", "DatasetInfo", "Part", "classes_of", "is_synthetic", "measures_of",
    "parse", "remote_url", "task_of",
]  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One data set of a composition, and the one class kept of it (None: both)."""

    info: DatasetInfo
    keep: int | None


def parse(dataset: str, holds: str | None = "rows") -> tuple[Part, ...]:
    """The parts of ``name[/class]`` joined by ``+``, ``class`` being one of the data set's own.

    ``holds`` is what the data sets are to be loaded as (a key of ``HOLDINGS``); None: whatever they hold. Raises
    ``UserError`` on an unknown name or class, for a data set that holds something else, and for data sets of
    different tasks.
    """
    parts: list[Part] = []
    for piece in str(dataset).split("+"):
        part = _part(dataset, piece, holds)
        name = part.info.name
        if any(p.info is part.info and (None in (p.keep, part.keep) or p.keep == part.keep) for p in parts):
            raise UserError(f"dataset = '{dataset}': the rows of '{name}' are named twice; name each data set once")
        if parts and parts[0].info.task != part.info.task:
            first = parts[0].info
            raise UserError(
                f"dataset = '{dataset}': '{first.name}' is of the {first.task} task and '{name}' of the "
                f"{part.info.task} task; join data sets of one task"
            )
        parts.append(part)
    return tuple(parts)


def _part(dataset: str, piece: str, holds: str | None) -> Part:
    name, _, keep = piece.strip().partition("/")
    known = [n for n, info in DATASETS.items() if holds is None or holds in info.holds]
    if name in DATASETS and name not in known:
        holdings = " or ".join(HOLDINGS[kind] for kind in DATASETS[name].holds)
        raise UserError(
            f"dataset = '{dataset}': '{name}' holds {holdings}, and {HOLDINGS[str(holds)]} are needed here; allowed: "
            f"{', '.join(known)}"
        )
    if name not in known:
        raise UserError(
            f"dataset = '{dataset}': '{name}' is not a known data set{nearest(name, known)}; allowed: "
            f"{', '.join(known)}, each with a class as in wts-safety/safe if wanted, joined by '+'"
        )
    classes = DATASETS[name].classes
    if "/" in piece and keep not in classes:
        allowed = ", ".join(f"/{c}" for c in classes)
        hint = nearest(keep, classes)
        raise UserError(f"dataset = '{dataset}': '/{keep}' is not a class{hint}; allowed for '{name}': {allowed}")
    return Part(DATASETS[name], classes.index(keep) if keep else None)


def measures_of(dataset: str) -> frozenset[str]:
    """Of what the exchanges of a data set may hold labels: of ``unsafe``, and some of ``helpful`` and ``refusal``."""
    return frozenset(measure for part in parse(dataset, "exchanges") for measure in part.info.measures)


def task_of(dataset: str) -> str:
    """The task that a data set's labels are about: ``safety``, ``legal`` or ``toxicity``."""
    return parse(dataset, None)[0].info.task


def classes_of(sources: Iterable[str]) -> tuple[str, str]:
    """The class names of rows with these values in their column ``source``; the safety data's where none is known."""
    return next((DATASETS[name].classes for name in sources if name in DATASETS), LABELS)


def is_synthetic(dataset: str) -> bool:
    """Whether any part of a data set is generated: then everything made from it is marked synthetic."""
    return any(part.info.synthetic for part in parse(dataset, None))
