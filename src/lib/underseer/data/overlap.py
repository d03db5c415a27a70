"""What training prompts, attack seeds, reset rows and human pairs share with evaluation sets, and its removal from what is
trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.data.near import NEAR_THRESHOLD, near_between
from underseer.data.texts import normalise
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("exact", "normalised", "near", "contains")
"""How a prompt can be one of the evaluation's: letter by letter; but for case, punctuation and blanks; but for a few words;
or because a whole prompt of the evaluation stands inside it, as in an attack that wraps a known prompt."""

CONTAINED = 5
"""Words from which a prompt found inside another counts; shorter ones are found in anything."""


def exclude(
    pool: pd.DataFrame,
    evaluation: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    near_threshold: float | None = NEAR_THRESHOLD,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows of ``pool`` that share no prompt with ``evaluation``, report): what may be trained on.

    ``pool`` and ``evaluation`` hold their prompts in ``text``, or in ``prompt`` (pairs, exchanges). A row is dropped where
    its prompt is one of the evaluation's in any of the ``KINDS``; ``near_threshold`` None leaves near ones out, whose time
    grows with the product of the sizes. The report has the columns ``reason``, ``rows``, ``share``, from ``pool`` to
    ``kept``, each row under the first reason that holds. Rows kept stay in their order, with their ``attrs``. Raises
    ``UserError`` when none is left.
    """
    import pandas as pd

    sets = dict(evaluation) if isinstance(evaluation, Mapping) else {"evaluation": evaluation}
    mine = _Prompts(pool, "pool")
    theirs = _Prompts(pd.DataFrame({"text": [t for name, frame in sets.items() for t in _texts(frame, name)]}), "")
    hits = _hits(mine, theirs, _near(mine, theirs, near_threshold))
    gone = np.zeros(len(pool), dtype=bool)
    rows = [("pool", len(pool))]
    for kind, hit in hits.items():
        rows.append((kind, int((hit & ~gone).sum())))
        gone |= hit
    report = pd.DataFrame([*rows, ("kept", int((~gone).sum()))], columns=["reason", "rows"])
    report["share"] = report["rows"] / max(len(pool), 1)
    if len(pool) and gone.all():
        raise UserError(
            f"each of the {len(pool)} prompts to train on is (nearly) one of {', '.join(sets)}; give other prompts"
        )
    kept = pool[~gone].reset_index(drop=True)
    kept.attrs = dict(pool.attrs)
    return kept, report


def without_held_out(
    rows: pd.DataFrame, held_out: pd.DataFrame | None, near_threshold: float | None = NEAR_THRESHOLD
) -> tuple[pd.DataFrame, dict[str, int]]:
    """(rows that share no prompt with ``held_out``, rows dropped by reason, such as "near an evaluation prompt")."""
    if held_out is None:
        return rows, {}
    kept, report = exclude(rows, held_out, near_threshold=near_threshold)
    counts = zip(report["reason"], report["rows"], strict=True)
    return kept, {f"evaluation prompt ({kind})": int(n) for kind, n in counts if kind in KINDS and n}


class _Prompts:
    """The prompts of one set: as they are, and the distinct ones after ``normalise``."""

    def __init__(self, frame: pd.DataFrame, name: str) -> None:
        self.texts = _texts(frame, name)
        flat = [normalise(text) for text in self.texts]
        self.distinct = sorted(set(flat))
        at = {text: i for i, text in enumerate(self.distinct)}
        self.where = np.array([at[text] for text in flat], dtype=np.int64)  # of each text, its distinct one


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    column = next((column for column in ("text", "prompt") if column in frame.columns), None)
    if column is None:
        raise UserError(f"'{name}' has neither a column text nor prompt; it has {', '.join(map(str, frame.columns))}")
    return frame[column].tolist()


def _near(mine: _Prompts, theirs: _Prompts, threshold: float | None) -> np.ndarray | None:
    return None if threshold is None else near_between(mine.distinct, theirs.distinct, threshold)


def _hits(mine: _Prompts, theirs: _Prompts, near: np.ndarray | None) -> dict[str, np.ndarray]:
    """For each kind which of ``mine`` (n,) stand in ``theirs``; ``near``: pairs of distinct texts."""
    known, others = set(theirs.texts), set(theirs.distinct)
    same = np.array([text in others for text in mine.distinct], dtype=bool)
    hits = {"exact": np.array([text in known for text in mine.texts], dtype=bool), "normalised": same[mine.where]}
    if near is not None:
        close = same.copy()
        close[near[:, 0]] = True
        hits["near"] = close[mine.where]
    return {**hits, "contains": (same | _containing(mine.distinct, theirs.distinct))[mine.where]}


def _containing(texts: Sequence[str], inner: Sequence[str]) -> np.ndarray:
    """Which normalised ``texts`` (n,) have one of ``inner``, of at least ``CONTAINED`` words, inside."""
    by_start: dict[tuple[str, ...], list[list[str]]] = {}
    for words in (text.split() for text in inner):
        if len(words) >= CONTAINED:
            by_start.setdefault(tuple(words[:CONTAINED]), []).append(words)
    contains = np.zeros(len(texts), dtype=bool)
    for i, words in enumerate(text.split() for text in texts):
        contains[i] = any(
            words[k : k + len(one)] == one
            for k in range(len(words) - CONTAINED + 1)
            for one in by_start.get(tuple(words[k : k + CONTAINED]), ())
        )
    return contains
