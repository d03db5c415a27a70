"""What the viewer shows, as tables, and their packing into the JSON of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from underseer import paths, store
from underseer.report.names import row_names

KEYS = ["seed", "id"]
DIGITS = 3
"""Decimals of scores in the page."""


@dataclass(frozen=True)
class Part:
    """One list of rows: prompts or test rows (``items``), each with the answers of all models (``cells``).

    The two tables meet on seed and id. ``values`` and ``filters`` are columns beside ``cells``, line by line.
    """

    name: str
    title: str
    items: pd.DataFrame
    """seed, id, prompt, and the columns of ``facts``."""
    cells: pd.DataFrame
    """seed, id, method, variant (JSON), text, key (of the stage), tag (what the answer is, beside its model)."""
    facts: Mapping[str, str]
    """Column of ``items`` -> label."""
    values: Mapping[str, pd.Series]
    """Label -> number of each answer."""
    filters: Mapping[str, pd.Series]
    """Name -> whether it holds of each answer."""
    labels: Mapping[str, str]
    """Name of a filter -> label."""
    colours: tuple[str, str]
    """The filters that call an answer bad, and good."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of models that are no methods of the report."""


def inputs(output: store.Output, role: str) -> list[store.Output]:
    """The stages that filled a role of a finished stage, as far as they are in the store."""
    given = [store.locate(name, paths.home()) for name in output.manifest["inputs"].get(role, [])]
    return [one for one in given if one.has(store.MANIFEST)]


def place(output: store.Output) -> str:
    """Where a stage's outputs lie, from the store's folder on: a page that is handed on names no folder of this machine."""
    return str(output.path.relative_to(paths.home()))


class Pool:
    """Texts, each once, by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, texts: Sequence[Any]) -> list[int]:
        """The number of each text; -1 for what is no text."""
        return [self._numbers.setdefault(t, len(self._numbers)) if isinstance(t, str) else -1 for t in texts]

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)


def packed(part: Part, pool: Pool, stages: Mapping[str, int]) -> dict[str, Any]:
    """A part as plain lists, its answers in the order of their rows. stages: key of a stage -> its place in the page's list."""
    items = part.items.drop_duplicates(KEYS).reset_index(drop=True)
    rows = pd.MultiIndex.from_frame(items[KEYS]).get_indexer(pd.MultiIndex.from_frame(part.cells[KEYS]))
    names = list(zip(part.cells["method"], part.cells["variant"], strict=True))
    models = {name: k for k, name in enumerate(dict.fromkeys(names))}
    model = np.array([models[name] for name in names], dtype=int)
    order = np.lexsort((model, rows))
    order = order[rows[order] >= 0]
    cells = part.cells.iloc[order]
    filters = {name: column.to_numpy(dtype=bool)[order] for name, column in part.filters.items()}
    filters = {name: column for name, column in filters.items() if column.any()}
    used = list(filters)
    return {
        "id": part.name,
        "title": part.title,
        "facts": [[c, label] for c, label in part.facts.items() if c in items.columns],
        "values": list(part.values),
        "filters": [{"id": name, "label": part.labels[name]} for name in used],
        "colours": [used.index(c) if c in used else -1 for c in part.colours],
        "models": _models(list(models), part.names),
        "rows": {"id": items["id"].tolist(), "prompt": pool.numbers(items["prompt"])}
        | {c: _coded(items[c]) for c in ("seed", *part.facts) if c in items.columns},
        "cells": {
            "start": np.searchsorted(rows[order], np.arange(len(items) + 1)).tolist(),
            "model": model[order].tolist(),
            "tag": _coded(cells["tag"]),
            "text": pool.numbers(cells["text"]),
            "stage": [stages.get(key, -1) for key in cells["key"]],
            "is": sum(
                (column.astype(int) << k for k, column in enumerate(filters.values())), np.zeros(len(cells), int)
            ).tolist(),
            "values": [_rounded(column.iloc[order]) for column in part.values.values()],
        },
    }


def _models(models: Sequence[tuple[str, str]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = [{"method": method, "variant": json.loads(variant)} for method, variant in models]
    names = row_names([{**row, "method": names.get(row["method"], row["method"])} for row in rows])
    return [{**row, "name": name} for row, name in zip(rows, names, strict=True)]


def _coded(column: pd.Series) -> dict[str, list]:
    """A column as its different values, and the number of each line's; -1 where there is none."""
    numbers, values = pd.factorize(column)
    return {"of": [f"{v:g}" if isinstance(v, float) else str(v) for v in values], "at": numbers.tolist()}


def _rounded(column: pd.Series) -> list[float | None]:
    return [None if v != v else v for v in column.astype(float).round(DIGITS).tolist()]
