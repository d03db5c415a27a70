"""Cleaning: which rows have no text, no score, repeat one another, or contradict one another."""

from __future__ import annotations

from collections import Counter
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
    import numpy as np
    import pandas as pd

    texts, about = text_fields(df), [normalise(text) for text in judged_fields(df)]
    rows = pd.DataFrame({"id": df["id"].tolist(), "label": df["label"].tolist(), "text": texts, "about": about})
    rows["same"], rows["why"] = [normalise(text) for text in texts], pd.Series([None] * len(rows), dtype=object)
    alone = {"empty text": np.array([is_empty(text) for text in texts], dtype=bool)}
    if _applies(df, "empty continuation"):
        alone["empty continuation"] = np.array([not text.strip() for text in df["continuation"]], dtype=bool)
    alone["no score"] = ~scored(df)
    for reason, holds in alone.items():
        rows.loc[rows["why"].isna() & holds, "why"] = reason
    whole = rows[rows["why"].isna()]
    rows.loc[whole.index[whole.groupby("about")["label"].transform("nunique") > 1], "why"] = "label conflict"
    whole = rows[rows["why"].isna()].sort_values("id")  # of rows alike, the one with the smallest id is kept
    rows.loc[whole.index[whole["same"].duplicated()], "why"] = "normalised duplicate"
    rows.loc[whole.index[whole["text"].duplicated()], "why"] = "exact duplicate"
    return rows["why"].tolist()


def scored(df: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: whether every score of a row is there; true where the data have no scores."""
    return df[[column for column in SCORES if column in df.columns]].notna().all(axis=1).to_numpy(dtype=bool)


def _applies(df: pd.DataFrame, reason: str) -> bool:
    """Whether the data have what the reason is about."""
    needed = {"empty continuation": ("continuation",), "no score": SCORES}.get(reason, ("text",))
    return any(column in df.columns for column in needed)
