"""Near duplicates: pairs of texts that say almost the same in almost the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.data.texts import FIELD_SEPARATOR, normalise, text_fields

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

NEAR_THRESHOLD = 0.85
"""Cosine from which two texts count as near duplicates. On the published safety prompts, pairs above it ask
the same thing with a word exchanged or added; from about 0.8 downwards they share a sentence frame and differ
in their topic."""

NGRAM = 5  # characters
_ROUNDING = 1e-9
_FLOAT32 = 1e-4  # rounding of the bucketed cosine
_BLOCK = 1024  # rows compared with all later ones at once
_DENSE = 2e7  # texts times n-grams up to which nothing is summed into buckets
_PAIRS = 200_000  # candidate pairs whose cosine is computed at once


def near_pairs(texts: Sequence[str], threshold: float = NEAR_THRESHOLD) -> np.ndarray:
    """All pairs ``i < j`` of texts with cosine >= ``threshold``, as an integer array of shape (pairs, 2).

    A text is the vector of its counts of character 5-grams (a blank added at either end), without weights, so
    that whether two texts are near does not depend on the others. Hand in normalised texts. The search is
    exact: counts are first summed into a few hundred buckets, which can only raise a cosine (no count is
    negative), and the pairs that still reach the threshold are compared n-gram by n-gram. Time grows with the
    square of the number of texts; memory with the pairs found, which for texts of few templates is the square
    too.
    """
    return _search(texts, len(texts), 0, threshold)


def near_between(left: Sequence[str], right: Sequence[str], threshold: float = NEAR_THRESHOLD) -> np.ndarray:
    """All pairs (i of ``left``, j of ``right``) of texts that are near, as ``near_pairs`` finds them; shape (pairs, 2).

    Only texts of different sets are compared: pairs within one set cost no time.
    """
    return _search([*left, *right], len(left), len(left), threshold) - [0, len(left)]


def _search(texts: Sequence[str], stop: int, first: int, threshold: float) -> np.ndarray:
    """Pairs ``i < j`` of near texts, shape (pairs, 2): ``i`` below ``stop``, ``j`` from ``first`` on."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold = {threshold}: a cosine above 0 and at most 1")
    blocks = [np.empty((0, 2), dtype=np.int64)]
    if not 0 < stop or not max(first, 1) < len(texts):
        return blocks[0]
    vectors = _unit_vectors(texts)
    whole = vectors.shape[0] * vectors.shape[1] <= _DENSE  # the columns are the n-grams themselves and not buckets
    buckets = vectors.toarray().astype(np.float32) if whole else _bucketed(vectors)
    for start in range(0, stop, _BLOCK):
        later = max(first, start)
        bound = buckets[start : min(start + _BLOCK, stop)] @ buckets[later:].T
        rows, columns = np.nonzero(bound >= threshold - _FLOAT32)
        pairs = np.stack([rows + start, columns + later], axis=1)
        ordered = pairs[:, 0] < pairs[:, 1]
        pairs, bound = pairs[ordered], bound[rows, columns][ordered]
        blocks.append(pairs[_are_near(vectors, *pairs.T, bound, whole, threshold)])
    return np.concatenate(blocks)


def _are_near(
    vectors: csr_matrix, i: np.ndarray, j: np.ndarray, bound: np.ndarray, whole: bool, threshold: float
) -> np.ndarray:
    """(pairs,) bool: which pairs have a cosine of at least ``threshold``. ``bound`` (pairs,): upper bounds of their cosines;
    ``whole``: the bounds are the cosines themselves, to rounding."""
    near = bound >= (threshold + _FLOAT32 if whole else np.inf)  # with whole vectors the bound is the cosine
    undecided = np.flatnonzero(~near)
    for start in range(0, len(undecided), _PAIRS):
        part = undecided[start : start + _PAIRS]
        cosine = np.asarray(vectors[i[part]].multiply(vectors[j[part]]).sum(axis=1)).ravel()
        near[part] = cosine >= threshold - _ROUNDING
    return near


def near_graph(df: pd.DataFrame, threshold: float | None = NEAR_THRESHOLD) -> tuple[np.ndarray, csr_matrix]:
    """(node of each row, symmetric adjacency of the nodes): a node is a normalised text, an edge joins two
    near ones. Two text pairs are near where their first texts are near or equal and their second ones too: by
    the texts joined, all clauses asked about in the same words would be near one another. ``threshold`` None: no
    edges.
    """
    from scipy import sparse

    same = [normalise(text) for text in text_fields(df)]
    nodes = {text: node for node, text in enumerate(sorted(set(same)))}
    node = np.array([nodes[text] for text in same], dtype=np.int64)
    pairs = np.empty((0, 2), dtype=np.int64)
    if threshold is not None:
        near = _near_in_both if "text_pair" in df.columns else near_pairs
        pairs = near(list(nodes), threshold)
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    adjacency = sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(len(nodes), len(nodes)))
    return node, adjacency


def _near_in_both(texts: Sequence[str], threshold: float) -> np.ndarray:
    """All pairs ``i < j`` of text pairs that are near or equal in the first text and in the second; shape
    (pairs, 2)."""
    fields = list(zip(*(text.split(FIELD_SEPARATOR, 1) for text in texts), strict=True))
    graphs = [_near_or_equal(field, threshold) for field in fields]
    blocks = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        first, second = [(member[block] @ graph) @ member.T for member, graph in graphs]
        i, j = first.multiply(second).nonzero()
        i = i.astype(np.int64) + start
        blocks.append(np.stack([i, j.astype(np.int64)], axis=1)[i < j])
    return np.concatenate(blocks)


def _near_or_equal(field: Sequence[str], threshold: float) -> tuple[csr_matrix, csr_matrix]:
    """(which distinct text each row holds (rows, texts), which distinct texts are near or equal (texts,
    texts))."""
    from scipy import sparse

    distinct = {text: at for at, text in enumerate(sorted(set(field)))}
    at = [distinct[text] for text in field]
    member = sparse.csr_matrix((np.ones(len(at)), (np.arange(len(at)), at)), shape=(len(at), len(distinct)))
    pairs = near_pairs(list(distinct), threshold)
    i, j = np.concatenate([pairs, pairs[:, ::-1], np.arange(len(distinct))[:, None].repeat(2, axis=1)]).T
    return member, sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(len(distinct), len(distinct)))


def _ngrams(text: str) -> list[str]:
    padded = f" {text} ".ljust(NGRAM, "\0")  # a text shorter than one n-gram is one n-gram
    return [padded[i : i + NGRAM] for i in range(len(padded) - NGRAM + 1)]


def _unit_vectors(texts: Sequence[str]) -> csr_matrix:
    """n-gram counts of each text, scaled to length 1; shape (texts, n-grams)."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(analyzer=_ngrams, dtype=np.float64).fit_transform(texts)
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    return (sparse.diags(1.0 / norms) @ counts).tocsr()


def _bucketed(vectors: csr_matrix) -> np.ndarray:
    """(texts, buckets) float32: each n-gram added to one random bucket, twice as many as a long text's
    n-grams."""
    from scipy import sparse

    rows, ngrams = vectors.shape
    typical = np.percentile(np.diff(vectors.indptr), 90)
    n = int(np.clip(2 ** np.ceil(np.log2(2 * typical)), 256, 4096))
    bucket = np.random.default_rng(0).integers(n, size=ngrams)  # the draw changes the time alone, not the pairs
    membership = sparse.csr_matrix((np.ones(ngrams), (np.arange(ngrams), bucket)), shape=(ngrams, n))
    return (vectors @ membership).toarray().astype(np.float32)
