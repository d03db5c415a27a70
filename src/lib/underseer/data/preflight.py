"""Everything that can be wrong with one variant's data, found before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from underseer.data import sources
from underseer.data.groups import allot
from underseer.data.loading import GENERATED_ROWS, load
from underseer.data.registry import CLASSES, TRAIN_LABELS, DatasetInfo, Part, parse
from underseer.data.sizes import JUDGE, SPLITS, quotas_of, raise_all, size_mistakes
from underseer.errors import UserError

Counts = tuple[Counter[int], list[Counter[int]] | None, int | None]
"""Rows of each label; rows of each label of each group, where rows have groups; distinct questions of pairs."""


def preflight(parameters: Mapping[str, Any]) -> None:
    """Checks ``task``, ``dataset``, ``dataset_path``, ``dataset_revision``, ``clean``, ``n_supervise``,
    ``n_transfer``, ``n_validation``, ``n_test`` and ``n_judge``; parameters that are not given are not checked.

    Reads local and cached files whole, downloads nothing; where a download is needed it asks whether the host
    answers. Not seen here: rows that ``split`` leaves out to keep near duplicates together. Raises
    ``UserError`` with every mistake, one per line.
    """
    sizes = {name: int(parameters[f"n_{name}"]) for name in SPLITS if parameters.get(f"n_{name}") is not None}
    complete = len(sizes) == len(SPLITS)
    sizes |= {JUDGE: int(parameters["n_judge"])} if parameters.get("n_judge") else {}
    mistakes = [f"n_{name} = {size}: at least 1 row is needed" for name, size in sizes.items() if size < 1]
    counts: Counts | None = None
    try:
        counts = _count(
            str(parameters["dataset"]),
            parameters.get("dataset_path") or None,
            parameters.get("dataset_revision") or None,
            bool(parameters.get("clean", True)),
        )
        mistakes += _other_task(parameters)
    except UserError as error:
        mistakes += str(error).split("\n")
    if counts is not None and complete and not mistakes:
        too_small = _too_small(counts, sizes, str(parameters["dataset"]), int(parameters.get("seed") or 0))
        mistakes += [f"dataset = '{parameters['dataset']}': {line}" for line in too_small]
    raise_all(mistakes)


def _other_task(parameters: Mapping[str, Any]) -> list[str]:
    dataset, task = parameters["dataset"], parameters.get("task")
    of = parse(dataset)[0].info.task
    if task is None or task == of:
        return []
    return [f"dataset = '{dataset}': its labels are of the {of} task, and task = {task}; change one of them"]


def _too_small(counts: Counts, sizes: dict[str, int], dataset: str, seed: int) -> list[str]:
    task = parse(dataset)[0].info.task
    labels, groups, questions = counts
    mistakes = size_mistakes(labels, sizes, TRAIN_LABELS.get(task), CLASSES[task])
    if groups is None or mistakes:
        return mistakes
    try:
        allot(groups, quotas_of(labels, sizes, TRAIN_LABELS.get(task)), seed, questions)
    except UserError as error:
        return [str(error)]
    return []


def check_files(
    dataset: str, path: str | None = None, revision: str | None = None, holds: str | None = "rows"
) -> list[Path | None]:
    """The file of each part of a data set, read whole to find its mistakes; None where it is generated, or must be
    downloaded from a host that answers. ``holds``: ``pairs`` for preferences, ``exchanges``, None for whatever it is.

    Raises ``UserError`` with every mistake, one per line.
    """
    parts = parse(dataset, holds)
    mistakes: list[str] = []
    files: list[Path | None] = [None] * len(parts)
    commits: list[str | None] = [None] * len(parts)
    try:
        files = sources.resolve(parts, path)
    except UserError as error:
        mistakes += str(error).split("\n")
    try:
        commits = sources.revisions(parts, revision, path)
    except UserError as error:
        mistakes += str(error).split("\n")
    raise_all(mistakes)
    readable: list[Path | None] = []
    for part, file, commit in zip(parts, files, commits, strict=True):
        try:
            readable.append(file or _cached_or_reachable(part.info, commit))
            if readable[-1] is not None:
                sources.read(part.info, readable[-1])
        except UserError as error:
            mistakes += str(error).split("\n")
    raise_all(mistakes)
    return readable


def _count(dataset: str, path: str | None, revision: str | None, clean: bool) -> Counts | None:
    """What a data set holds after cleaning; None where it cannot be known yet."""
    parts, readable = parse(dataset), check_files(dataset, path, revision)
    if len(parts) == 1 and parts[0].info.reader is None:
        return _generated(parts[0]), None, None
    if None in readable:
        return None
    return _counted(dataset, path, revision, clean, tuple((f, f.stat().st_mtime_ns) for f in readable if f))


def _generated(part: Part) -> Counter[int]:
    """The generators draw both labels; how many of their rows repeat is not known without generating them."""
    half = GENERATED_ROWS // 2
    return Counter({0: half, 1: half}) if part.keep is None else Counter({part.keep: half})


def _cached_or_reachable(info: DatasetInfo, commit: str | None) -> Path | None:
    if info.reader is None:
        return None
    revision = str(commit)
    file = sources.cached(info, revision)
    if file is None and sources.forced_offline():
        raise sources.offline_error(info, revision, "HF_HUB_OFFLINE is set")
    if file is None and not sources.reachable(sources.host_of(info)):
        raise sources.offline_error(info, revision, "no network")
    return file


@lru_cache(maxsize=16)
def _counted(dataset: str, path: str | None, revision: str | None, clean: bool, files: tuple) -> Counts:
    """Counts of what ``load``, ``clean_rows`` and ``split`` will see; ``files``: path and time, for the cache."""
    from underseer.data.clean import clean_rows, scored
    from underseer.data.split import questions_of

    df = load(dataset, path, revision)
    df = clean_rows(df)[0] if clean else df[scored(df)]
    labels, groups = df["label"].tolist(), None
    if "group" in df.columns:
        held: dict[str, Counter[int]] = {}
        for group, label in zip(df["group"].fillna(df["id"]).tolist(), labels, strict=True):
            held.setdefault(group, Counter())[label] += 1
        groups = [held[group] for group in sorted(held)]
    return Counter(labels), groups, questions_of(df)
