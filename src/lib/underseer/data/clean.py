"""Cleaning: which rows have no text, repeat one another, or contradict one another."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from underseer.data.loading import FIELD_SEPARATOR, text_fields
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

REASONS = ("empty text", "label conflict", "exact duplicate", "normalised duplicate")

_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """A text without case, punctuation and surplus whitespace; Unicode forms folded (NFKC).

    Two texts with the same result count as the same text. A text of nothing but punctuation stays as it is.
    The fields of a text pair are normalised each on its own.
    """
    fields = []
    for field in text.split(FIELD_SEPARATOR):
        words = _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", field).casefold()).strip()
        fields.append(words or field.strip())
    return FIELD_SEPARATOR.join(fields)


def is_empty(text: str) -> bool:
    """Whether a row has nothing to read: whitespace only, in all its text fields."""
    return not text.replace(FIELD_SEPARATOR, " ").strip()


def clean_rows(df: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows kept, report). Drops, in this order and each row for one reason:

    - ``empty text``: nothing but whitespace;
    - ``label conflict``: every row of a normalised text that stands under more than one label, as none can be
      trusted;
    - ``exact duplicate``: the text stands in another row, of which the one with the smallest id is kept;
    - ``normalised duplicate``: the same after ``normalise``.

    Rows kept stay in their order; which they are does not depend on that order. The report has the columns
    ``reason``, ``rows`` and ``share`` (of the rows loaded), from ``loaded`` to ``kept``. Raises ``UserError``
    when no row is left.
    """
    import pandas as pd

    reasons = decide(df["id"].tolist(), text_fields(df), df["label"].tolist())
    keep = [reason is None for reason in reasons]
    counts = Counter(reasons)
    rows = [len(df), *(counts[reason] for reason in REASONS), sum(keep)]
    report = pd.DataFrame({"reason": ["loaded", *REASONS, "kept"], "rows": rows})
    report["share"] = report["rows"] / max(len(df), 1)
    if not any(keep):
        raise UserError(
            f"cleaning leaves none of the {len(df)} rows: every one is empty or contradicts another; "
            "look at the file, or set clean: false"
        )
    return df[keep].reset_index(drop=True), report


def decide(ids: Sequence[str], texts: Sequence[str], labels: Sequence[int]) -> list[str | None]:
    """For each row the reason to drop it, or None (see ``clean_rows``)."""
    same = [normalise(text) for text in texts]
    seen_labels: dict[str, set[int]] = {}
    for text, label in zip(same, labels, strict=True):
        seen_labels.setdefault(text, set()).add(label)
    reasons: list[str | None] = [None] * len(ids)
    exact: set[str] = set()
    normalised: set[str] = set()
    for i in sorted(range(len(ids)), key=lambda i: ids[i]):
        if is_empty(texts[i]):
            reasons[i] = "empty text"
        elif len(seen_labels[same[i]]) > 1:
            reasons[i] = "label conflict"
        elif texts[i] in exact:
            reasons[i] = "exact duplicate"
        elif same[i] in normalised:
            reasons[i] = "normalised duplicate"
        exact.add(texts[i])
        normalised.add(same[i])
    return reasons
