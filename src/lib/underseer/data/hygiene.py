"""Hygiene: how much a data set repeats and contradicts itself, and how much its splits share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from underseer.data.clean import SCORES, scored
from underseer.data.near import NEAR_THRESHOLD, near_graph
from underseer.data.texts import is_empty, judged_fields, normalise, text_fields
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

SCOPES = ("supervise", "transfer", "validation", "judge", "test")

PAIRS = tuple((later, earlier) for k, later in enumerate(SCOPES) for earlier in SCOPES[:k])
"""(split whose rows are counted, split they are looked for in)."""


def hygiene(df: pd.DataFrame, *, near_threshold: float | None = NEAR_THRESHOLD) -> pd.DataFrame:
    """What is wrong with the rows, as a table with the columns ``check``, ``scope``, ``rows``, ``share``.

    For scope ``all``, and for each split where ``df`` has the column ``split``:

    - ``rows``; ``empty texts`` (left out of every other check); ``no score``, of data with scores;
    - ``exact duplicates``, ``normalised duplicates``, ``near duplicates``: rows beyond the first of each
      text, of each normalised text, of each component of near ones (so each of the three contains the one
      before);
    - ``label conflicts``: rows whose normalised text (with its continuation, where there is one) stands under
      more than one label; ``texts with both labels``: how many texts these are.

    For each pair of splits, scope ``test in supervise``: ``exact overlap``, ``normalised overlap``, ``near
    overlap``: rows of the first with the same text, the same normalised text, a near text in the second; of text
    pairs also ``shared questions``: rows of the first whose normalised question stands in the second; and
    ``test in any other``. ``share`` is of the scope's rows, for an overlap of the first split's, for ``texts
    with both labels`` of its normalised texts. ``attrs["near_threshold"]`` holds the cosine from which texts
    are near; None leaves the two checks of near texts out, whose time grows with the square of the texts.
    """
    import pandas as pd

    full = df[[not is_empty(text) for text in text_fields(df)]].reset_index(drop=True)
    node, adjacency = near_graph(full, near_threshold)
    present = [name for name in SCOPES if "split" in df.columns and (df["split"] == name).any()]
    rows: list[tuple[str, str, int, float]] = []
    for scope in ["all", *present]:
        inside = np.ones(len(full), dtype=bool) if scope == "all" else (full["split"] == scope).to_numpy()
        total = len(df) if scope == "all" else int((df["split"] == scope).sum())
        rows += _defects(scope, total, full[inside], node[inside], adjacency)
    if present:
        rows += _overlaps(df["split"].value_counts().to_dict(), full, node, adjacency, present)
    table = pd.DataFrame(rows, columns=["check", "scope", "rows", "share"])
    if near_threshold is None:
        table = table[~table["check"].isin(["near duplicates", "near overlap"])].reset_index(drop=True)
    table.attrs["near_threshold"] = near_threshold
    return table


def check_disjoint(df: pd.DataFrame, *, near_threshold: float | None = NEAR_THRESHOLD) -> None:
    """Raises ``UserError`` if a text, its normalised form or a near duplicate stands in two splits, or a question
    or a group, where the rows have them.

    ``near_threshold`` None leaves near duplicates out.
    """
    full = df[[not is_empty(text) for text in text_fields(df)]].reset_index(drop=True)
    node, adjacency = near_graph(full, near_threshold)
    problems = []
    for later, earlier in PAIRS:
        hits = _hits(full, node, adjacency, later, [earlier])
        kinds = [kind for kind, hit in hits.items() if hit and kind != "exact overlap"]  # which is a normalised one too
        if kinds:
            line = f"{kinds[0]}: {hits[kinds[0]]} rows of split '{later}' stand in split '{earlier}' as well"
            problems.append(f"{line}; split the rows with clean: true")
        elif shared := _shared_groups(full, later, earlier):
            problems.append(f"shared groups: {shared} rows of split '{later}' have a group of split '{earlier}'")
    if problems:
        raise UserError("\n".join(problems))


def _shared_groups(df: pd.DataFrame, later: str, earlier: str) -> int:
    if "group" not in df.columns:
        return 0
    known = set(df.loc[df["split"] == earlier, "group"].dropna())
    return int(df.loc[df["split"] == later, "group"].isin(known).sum())


def _defects(
    scope: str, total: int, part: pd.DataFrame, node: np.ndarray, adjacency: csr_matrix
) -> list[tuple[str, str, int, float]]:
    from scipy.sparse.csgraph import connected_components

    texts = np.unique(node)
    about = np.array([normalise(text) for text in judged_fields(part)], dtype=object)
    labels_of_text = part.groupby(about)["label"].nunique()
    conflicting = labels_of_text.index[labels_of_text > 1]
    near = connected_components(adjacency[texts][:, texts], directed=False)[0] if len(texts) else 0
    counts = {
        "rows": total,
        "empty texts": total - len(part),
        **({"no score": int((~scored(part)).sum())} if set(SCORES) & set(part.columns) else {}),
        "exact duplicates": len(part) - len(set(text_fields(part))),
        "normalised duplicates": len(part) - len(texts),
        "near duplicates": len(part) - int(near),
        "label conflicts": int(np.isin(about, list(conflicting)).sum()),
    }
    out = [(check, scope, n, n / max(total, 1)) for check, n in counts.items()]
    return [*out, ("texts with both labels", scope, len(conflicting), len(conflicting) / max(len(labels_of_text), 1))]


def _overlaps(
    sizes: dict[str, int], full: pd.DataFrame, node: np.ndarray, adjacency: csr_matrix, present: list[str]
) -> list[tuple[str, str, int, float]]:
    scopes = [(a, [b], f"{a} in {b}") for a, b in PAIRS if a in present and b in present]
    if "test" in present:
        scopes.append(("test", [name for name in present if name != "test"], "test in any other"))
    return [
        (check, scope, n, n / sizes[counted])
        for counted, others, scope in scopes
        for check, n in _hits(full, node, adjacency, counted, others).items()
    ]


def _hits(
    full: pd.DataFrame, node: np.ndarray, adjacency: csr_matrix, counted: str, others: list[str]
) -> dict[str, int]:
    """Rows of split ``counted`` found in the splits ``others``, for each kind of sameness."""
    mine, theirs = (full["split"] == counted).to_numpy(), full["split"].isin(others).to_numpy()
    texts = np.array(text_fields(full), dtype=object)
    known = set(texts[theirs])
    there = np.zeros(adjacency.shape[0], dtype=bool)
    there[node[theirs]] = True
    near = there | (adjacency @ there.astype(float) > 0)
    hits = {
        "exact overlap": sum(text in known for text in texts[mine]),
        "normalised overlap": int(there[node[mine]].sum()),
        "near overlap": int(near[node[mine]].sum()),
    }
    if "text_pair" in full.columns:
        questions = np.array([normalise(text) for text in full["text"]], dtype=object)
        asked = set(questions[theirs])
        hits["shared questions"] = sum(question in asked for question in questions[mine])
    return hits
