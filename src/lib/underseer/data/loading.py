"""From a data set's name to a data frame of rows with content-hash ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from underseer.data import sources
from underseer.data.registry import Part, parse
from underseer.data.texts import text_fields
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

GENERATED_ROWS = 12_000
"""Rows of a generated data set where ``n`` is not given: about as many as the W2S paper's 11,468."""


def load(
    dataset: str, path: str | None = None, revision: str | None = None, *, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """The rows of a data set as published, defects included.

    ``dataset`` is a name of ``DATASETS``, or several of one task joined by ``+``; ``/safe`` (or another of the
    data set's classes) keeps one class of a part. The W2S paper's safety set (arXiv 2410.12621) is
    ``advbench+s-eval+wts-safety/safe`` from its sources. ``path`` is a local file in the public format, a folder of such files, or files joined by
    ``+``; without it the pinned commit (or ``revision``) is downloaded. ``n`` is the number of rows to
    generate, or to draw without replacement from published ones, of each part (default: all, or
    ``GENERATED_ROWS``).

    Columns: ``id`` (16 hex digits of SHA-256 over the text as loaded: of a pair both, of a prompt with a
    continuation the prompt alone), ``text``, ``text_pair`` (the clause, of legal data), ``label`` (index of the
    class), ``source``, and where a part has them ``category`` or ``kind``, ``group`` (str; rows of one group stay
    in one split), ``continuation`` (str, with its own leading whitespace), ``prompt_toxicity`` and ``toxicity``
    (from 0 to 1; NaN: no score). A repeated text gets ``-1``, ``-2``, ... after its id, counted in order of
    label, source and what else the rows hold, so ids are unique and do not depend on the order of the file. ``attrs["files"]`` lists what was read: data set, file name, bytes,
    SHA-256.

    Raises ``UserError``: unknown name, missing file or column, a label that is neither true nor false, an
    empty file.
    """
    import pandas as pd

    frames, records = [], []
    for part, listed, record in read_parts(dataset, path, revision):
        rows = _generate(part, n, seed) if record is None else pd.DataFrame(listed).assign(source=part.info.name)
        rows = rows[rows["label"] == part.keep] if part.keep is not None else rows
        if rows.empty:
            raise no_rows(dataset, part)
        frames.append(rows if record is None else drawn(rows, content_ids(rows), n, seed, part.info.name))
        records += [record] if record else []
    df = pd.concat(frames, ignore_index=True)
    df["id"] = content_ids(df)
    first = ["id", "text", *(["text_pair"] if "text_pair" in df.columns else []), "label", "source"]
    df = df[first + [column for column in df.columns if column not in first]]
    df.attrs["files"] = records
    return df


def read_parts(
    dataset: str, path: str | None, revision: str | None, holds: str = "rows"
) -> Iterator[tuple[Part, list[dict[str, Any]], dict[str, Any] | None]]:
    """For each part of a data set its records as published, not to be changed, and what was read: data set, file name,
    bytes, SHA-256. Of a part that is generated: no records, None."""
    parts = parse(dataset, holds)
    files, commits = sources.resolve(parts, path), sources.revisions(parts, revision, path)
    for part, file, commit in zip(parts, files, commits, strict=True):
        if part.info.reader is None:
            yield part, [], None
        else:
            yield part, *sources.read(part.info, file or sources.fetch(part.info, str(commit)))


def no_rows(dataset: str, part: Part) -> UserError:
    """The error of a part of which nothing is left."""
    kept = f" {part.info.classes[part.keep]}" if part.keep is not None else ""
    return UserError(f"dataset = '{dataset}': '{part.info.name}' holds no{kept} rows")


def content_ids(df: pd.DataFrame) -> list[str]:
    """Unique ids from the rows' content alone (see ``load``)."""
    base = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] for text in text_fields(df)]
    further = ("label", "source", "category", "continuation", "prompt_toxicity", "toxicity")
    extra = [df[c].astype(object).where(df[c].notna(), "").astype(str).tolist() for c in further if c in df.columns]
    keys = list(zip(base, *extra, strict=True))
    ids, seen = [""] * len(base), {}
    for i in sorted(range(len(base)), key=keys.__getitem__):
        repeat = seen.get(base[i], 0)
        ids[i] = f"{base[i]}-{repeat}" if repeat else base[i]
        seen[base[i]] = repeat + 1
    return ids


def rank(ids: list[str], seed: int) -> list[str]:
    """A sort key per id that depends on nothing but the id and the seed: sorting by it shuffles, whatever the
    order."""
    return [hashlib.sha256(f"{seed}:{name}".encode()).hexdigest() for name in ids]


def _generate(part: Part, n: int | None, seed: int) -> pd.DataFrame:
    # By name: published rows do not rest on the testbed's code (``pipelines.DYNAMIC`` knows which rows do).
    generators = import_module("underseer.testbed.tasks").GENERATORS
    rows = generators[part.info.name](n=n or GENERATED_ROWS, seed=seed)
    return rows.drop(columns="id", errors="ignore").assign(source=part.info.name)


def drawn(rows: pd.DataFrame, ids: list[str], n: int | None, seed: int, name: str) -> pd.DataFrame:
    """``n`` of the rows, drawn by id and seed, in their order; a smaller draw is part of a larger one. None: all."""
    if n is None:
        return rows
    if not 0 < n <= len(rows):
        raise UserError(f"n = {n}: '{name}' holds {len(rows)} rows; give 1 to {len(rows)}")
    keys = rank(ids, seed)
    chosen = sorted(sorted(range(len(rows)), key=keys.__getitem__)[:n])
    return rows.iloc[chosen]
