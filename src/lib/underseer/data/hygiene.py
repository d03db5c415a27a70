"""Hygiene: how much a data set repeats and contradicts itself, and how much its splits share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from underseer.data.clean import is_empty
from underseer.data.loading import text_fields
from underseer.data.near import NEAR_THRESHOLD, near_graph
from underseer.data.split import SPLITS
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

PAIRS = tuple((later, earlier) for k, later in enumerate(SPLITS) for earlier in SPLITS[:k])
"""(split whose rows are counted, split they are looked for in)."""


def hygiene(df: pd.DataFrame, *, near_threshold: float = NEAR_THRESHOLD) -> pd.DataFrame:
    """What is wrong with the rows, as a table with the columns ``check``, ``scope``, ``rows``, ``share``.

    For scope ``all``, and for each split where ``df`` has the column ``split``:

    - ``rows``; ``empty texts`` (left out of every other check);
    - ``exact duplicates``, ``normalised duplicates``, ``near duplicates``: rows beyond the first of each
      text, of each normalised text, of each component of near ones (so each of the three contains the one
      before);
    - ``label conflicts``: rows whose normalised text stands under more than one label; ``texts with both
      labels``: how many texts these are.

    For each pair of splits, scope ``test in supervise``: ``exact overlap``, ``normalised overlap``, ``near
    overlap``: rows of the first with the same text, the same normalised text, a near text in the second; and
    ``test in any other``. ``share`` is of the scope's rows, for an overlap of the first split's, for ``texts
    with both labels`` of its normalised texts. ``attrs["near_threshold"]`` holds the cosine from which texts
    are near.
    """
    import pandas as pd

    full = df[[not is_empty(text) for text in text_fields(df)]].reset_index(drop=True)
    node, adjacency = near_graph(full, near_threshold)
    present = [name for name in SPLITS if "split" in df.columns and (df["split"] == name).any()]
    rows: list[tuple[str, str, int, float]] = []
    for scope in ["all", *present]:
        inside = np.ones(len(full), dtype=bool) if scope == "all" else (full["split"] == scope).to_numpy()
        total = len(df) if scope == "all" else int((df["split"] == scope).sum())
        rows += _defects(scope, total, full[inside], node[inside], adjacency)
    if present:
        rows += _overlaps(df["split"].value_counts().to_dict(), full, node, adjacency, present)
    table = pd.DataFrame(rows, columns=["check", "scope", "rows", "share"])
    table.attrs["near_threshold"] = near_threshold
    return table


def check_disjoint(df: pd.DataFrame, *, near_threshold: float | None = NEAR_THRESHOLD) -> None:
    """Raises ``UserError`` if a text, its normalised form or a near duplicate stands in two splits.

    ``near_threshold`` None leaves near duplicates out.
    """
    full = df[[not is_empty(text) for text in text_fields(df)]].reset_index(drop=True)
    node, adjacency = near_graph(full, near_threshold)
    found = []
    for later, earlier in PAIRS:
        for kind, hit in _hits(full, node, adjacency, later, [earlier]).items():
            if hit and kind != "exact overlap":  # an exact overlap is a normalised one too
                found.append(f"{kind}: {hit} rows of split '{later}' stand in split '{earlier}' as well")
                break
    if found:
        raise UserError("\n".join(f"{line}; split the rows with clean: true" for line in found))


def _defects(
    scope: str, total: int, part: pd.DataFrame, node: np.ndarray, adjacency: csr_matrix
) -> list[tuple[str, str, int, float]]:
    from scipy.sparse.csgraph import connected_components

    texts = np.unique(node)
    labels_of_text = part.groupby(node)["label"].nunique()
    conflicting = labels_of_text.index[labels_of_text > 1]
    near = connected_components(adjacency[texts][:, texts], directed=False)[0] if len(texts) else 0
    counts = {
        "rows": total,
        "empty texts": total - len(part),
        "exact duplicates": len(part) - len(set(text_fields(part))),
        "normalised duplicates": len(part) - len(texts),
        "near duplicates": len(part) - int(near),
        "label conflicts": int(np.isin(node, conflicting).sum()),
    }
    out = [(check, scope, n, n / max(total, 1)) for check, n in counts.items()]
    return [*out, ("texts with both labels", scope, len(conflicting), len(conflicting) / max(len(texts), 1))]


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
    return {
        "exact overlap": sum(text in known for text in texts[mine]),
        "normalised overlap": int(there[node[mine]].sum()),
        "near overlap": int(near[node[mine]].sum()),
    }
