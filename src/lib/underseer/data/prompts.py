"""Prompt sets for a chat model: to attack it, to start a red team from, to see what it refuses without need."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from underseer.data.clean import reasons
from underseer.data.loading import drawn, load, no_rows
from underseer.data.registry import DATASETS, is_synthetic, parse, task_of
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("attack", "safe", "borderline")
"""What a prompt is for: asks for harm; asks for none; asks for none and looks as if it did."""

COLUMNS = ("id", "text", "category", "kind", "role", "source")
"""Columns of a prompt set: ``id`` (as ``load`` gives it), ``text``, ``category`` and ``kind`` (None where the data say none),
``role`` (one of ``ROLES``: XSTest's safe prompts are borderline, other safe prompts safe, unsafe ones attacks), ``source``
(the data set's public name), and further ones of a data set such as ``category_2``."""


def load_prompts(
    name: str,
    path: str | None = None,
    revision: str | None = None,
    n: int | None = None,
    seed: int = 0,
    *,
    clean: bool = True,
) -> pd.DataFrame:
    """The prompts of one data set, or of several joined by ``+``; ``/safe`` or ``/unsafe`` keeps one class of a part.

    ``path``, ``revision`` and ``n`` (of each part) are as in ``load``; a smaller draw is part of a larger one. With
    ``clean``, rows without text, with both labels, or with a text that stands in another row (after ``normalise``) are
    left out first, and ``attrs["dropped"]`` counts them by reason; without it rows are as published. ``attrs["files"]``
    lists what was read. Raises ``UserError`` as ``load`` does, and for data that are not of the safety task.
    """
    import pandas as pd

    _check_task(name)
    generated, parts = is_synthetic(name), parse(name)
    # Cleaned as a whole: that a prompt stands under both labels shows only beside the other class.
    whole = "+".join(dict.fromkeys(part.info.name for part in parts))
    both = len(whole.split("+")) < len(parts)  # the two classes of one data set, named apart
    df = load(name if both else whole, path, revision, n=n if generated else None, seed=seed)
    files, dropped = df.attrs["files"], Counter[str]()
    if clean:
        defects = reasons(df)
        dropped.update(reason for reason in defects if reason)
        df = df[[reason is None for reason in defects]]
    chosen = []
    for part in parts:
        rows = df[df["source"] == part.info.name]
        rows = rows if part.keep is None else rows[rows["label"] == part.keep]
        if rows.empty:
            raise no_rows(name, part)
        chosen.append(rows if generated else drawn(rows, rows["id"].tolist(), n, seed, part.info.name))
    df = _with_columns(pd.concat(chosen))
    df.attrs = {"files": files, "dropped": dict(dropped)}
    return df


def _check_task(name: str) -> None:
    if task_of(name) != "safety":
        raise UserError(
            f"dataset = '{name}': its rows are of the {task_of(name)} task, and prompts for a chat model are needed; "
            f"allowed: {', '.join(n for n, i in DATASETS.items() if i.task == 'safety' and 'rows' in i.holds)}"
        )


def _with_columns(df: pd.DataFrame) -> pd.DataFrame:
    """Labelled rows with all of ``COLUMNS``, and what else they have."""
    df = df.assign(role=_roles(df))
    for column in ("category", "kind"):
        if column not in df.columns:
            df[column] = None
        df[column] = df[column].astype(object).where(df[column].notna(), None)
    further = [c for c in df.columns if c not in (*COLUMNS, "label")]
    return df[[*COLUMNS, *further]].reset_index(drop=True)


def _roles(df: pd.DataFrame) -> list[str]:
    """The role of each row by its data set and label; a generated safe prompt may be borderline by its kind."""
    kinds = df["kind"] if "kind" in df.columns else [None] * len(df)
    return [
        "borderline" if label == 0 and kind == "borderline" else DATASETS[source].roles[int(label)]
        for source, label, kind in zip(df["source"], df["label"], kinds, strict=True)
    ]
