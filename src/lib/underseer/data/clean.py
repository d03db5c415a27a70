"""Cleaning: which rows have no text, no score, repeat one another, or contradict one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from underseer.data.texts import is_empty, judged_fields, normalise, text_fields
from underseer.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

REASONS = (
    "empty text",
    "empty continuation",
    "no score",
    "label conflict",
    "exact duplicate",
    "normalised duplicate",
)
"""Why rows are dropped, in the order in which it is asked."""

SCORES = ("prompt_toxicity", "toxicity")
"""Columns of scores from 0 to 1; NaN where there is none."""


def clean_rows(df: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows kept, report). Drops, in this order and each row for one reason:

    - ``empty text``: nothing but whitespace (in a text pair: in either text);
    - ``empty continuation`` and ``no score``, of data with continuations and scores: the continuation is nothing
      but whitespace; the prompt or the continuation was not scored;
    - ``label conflict``: every row of a normalised text (with its continuation, where there is one) that stands
      under more than one label, as none can be trusted;
    - ``exact duplicate``: the text stands in another row, of which the one with the smallest id is kept; a
      prompt with another continuation is a duplicate, a question with another clause is not;
    - ``normalised duplicate``: the same after ``normalise``.

    Rows kept stay in their order; which they are does not depend on that order. The report has the columns
    ``reason``, ``rows`` and ``share`` (of the rows loaded), from ``loaded`` to ``kept``. Raises ``UserError``
    when no row is left.
    """
    import pandas as pd

    why = reasons(df)
    keep = [reason is None for reason in why]
    counts = Counter(why)
    asked = [reason for reason in REASONS if _applies(df, reason)]
    rows = [len(df), *(counts[reason] for reason in asked), sum(keep)]
    report = pd.DataFrame({"reason": ["loaded", *asked, "kept"], "rows": rows})
    report["share"] = report["rows"] / max(len(df), 1)
    if not any(keep):
        raise UserError(
            f"cleaning leaves none of the {len(df)} rows: every one is empty or contradicts another; "
            "look at the file, or set clean: false"
        )
    return df[keep].reset_index(drop=True), report


def reasons(df: pd.DataFrame) -> list[str | None]:
    """For each row the reason to drop it, or None (see ``clean_rows``)."""
    texts = text_fields(df)
    alone: list[str | None] = ["empty text" if is_empty(text) else None for text in texts]
    if _applies(df, "empty continuation"):
        alone = [
            a or (None if c.strip() else "empty continuation") for a, c in zip(alone, df["continuation"], strict=True)
        ]
    if _applies(df, "no score"):
        alone = [a or (None if known else "no score") for a, known in zip(alone, scored(df), strict=True)]
    return _compare(df["id"].tolist(), texts, judged_fields(df), df["label"].tolist(), alone)


def scored(df: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: whether every score of a row is there; true where the data have no scores."""
    return df[[column for column in SCORES if column in df.columns]].notna().all(axis=1).to_numpy(dtype=bool)


def _applies(df: pd.DataFrame, reason: str) -> bool:
    """Whether the data have what the reason is about."""
    needed = {"empty continuation": ("continuation",), "no score": SCORES}.get(reason, ("text",))
    return any(column in df.columns for column in needed)


def _compare(
    ids: Sequence[str],
    texts: Sequence[str],
    judged: Sequence[str],
    labels: Sequence[int],
    alone: Sequence[str | None],
) -> list[str | None]:
    """The reasons found in each row ``alone``, completed by those that show beside the other rows."""
    same = [normalise(text) for text in texts]
    about = same if judged == texts else [normalise(text) for text in judged]
    seen_labels: dict[str, set[int]] = {}
    for text, label, reason in zip(about, labels, alone, strict=True):
        if reason is None:
            seen_labels.setdefault(text, set()).add(label)
    by_row = list(alone)
    exact: set[str] = set()
    normalised: set[str] = set()
    for i in sorted(range(len(ids)), key=lambda i: ids[i]):
        if by_row[i] is not None:
            continue
        if len(seen_labels[about[i]]) > 1:
            by_row[i] = "label conflict"
        elif texts[i] in exact:
            by_row[i] = "exact duplicate"
        elif same[i] in normalised:
            by_row[i] = "normalised duplicate"
        if by_row[i] != "label conflict":
            exact.add(texts[i])
            normalised.add(same[i])
    return by_row
