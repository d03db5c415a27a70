"""Everything that can be wrong with one variant's data, found before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from underseer.data import sources
from underseer.data.clean import decide
from underseer.data.loading import GENERATED_ROWS
from underseer.data.registry import LABELS, DatasetInfo, Part, parse
from underseer.data.split import SPLITS, raise_all, size_mistakes
from underseer.errors import UserError


def preflight(parameters: Mapping[str, Any]) -> None:
    """Checks ``dataset``, ``dataset_path``, ``dataset_revision``, ``clean``, ``n_supervise``, ``n_transfer``,
    ``n_validation`` and ``n_test``; parameters that are not given are not checked.

    Reads local and cached files whole, downloads nothing; where a download is needed it asks whether the host
    answers. Not seen here: rows that ``split`` leaves out to keep near duplicates together. Raises
    ``UserError`` with every mistake, one per line.
    """
    sizes = {name: int(parameters[f"n_{name}"]) for name in SPLITS if parameters.get(f"n_{name}") is not None}
    mistakes = [f"n_{name} = {size}: at least 1 row is needed" for name, size in sizes.items() if size < 1]
    counts: Counter[int] | None = None
    try:
        counts = _count(
            str(parameters["dataset"]),
            parameters.get("dataset_path") or None,
            parameters.get("dataset_revision") or None,
            bool(parameters.get("clean", True)),
        )
    except UserError as error:
        mistakes += str(error).split("\n")
    if counts is not None and len(sizes) == len(SPLITS) and not mistakes:
        mistakes += [f"dataset = '{parameters['dataset']}': {line}" for line in size_mistakes(counts, sizes)]
    raise_all(mistakes)


def _count(dataset: str, path: str | None, revision: str | None, clean: bool) -> Counter[int] | None:
    """Rows of each label after cleaning, by the same rules as ``clean_rows``; None where they cannot be known
    yet."""
    parts = parse(dataset)
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
    known = len(parts) == 1 or all(part.info.reader for part in parts)
    readable: list[tuple[Part, Path]] = []
    for part, file, commit in zip(parts, files, commits, strict=True):
        try:
            file = file or _cached_or_reachable(part.info, commit)
            if file is None:
                known = False
            else:
                sources.read(part.info, file)
                readable.append((part, file))
        except UserError as error:
            mistakes += str(error).split("\n")
    raise_all(mistakes)
    if len(parts) == 1 and parts[0].info.reader is None:
        # The generator draws both labels; how many of its rows repeat is not known without generating them.
        half = GENERATED_ROWS // 2
        return Counter({0: half, 1: half}) if parts[0].keep is None else Counter({parts[0].keep: half})
    if not known:
        return None
    return _count_files(tuple((p, f, f.stat().st_mtime_ns) for p, f in readable), clean)


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
def _count_files(files: tuple[tuple[Part, Path, int], ...], clean: bool) -> Counter[int]:
    ids, texts, labels = [], [], []
    for part, file, _ in files:
        kept = [row for row in sources.read(part.info, file)[0] if part.keep in (None, row["label"])]
        if not kept:
            raise UserError(f"'{part.info.name}' ({file}) holds no {LABELS[part.keep or 0]} rows")
        texts += [row["text"] for row in kept]
        labels += [row["label"] for row in kept]
    ids = [f"{i:09d}" for i in range(len(texts))]  # which of two equal rows is kept does not change a count
    reasons = decide(ids, texts, labels) if clean else [None] * len(ids)
    return Counter(label for label, reason in zip(labels, reasons, strict=True) if reason is None)
