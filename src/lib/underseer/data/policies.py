"""Which questions are about the same policy, where the data do not say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from underseer.data.texts import normalise


def policies(questions: Sequence[str], clauses: Sequence[str]) -> list[str]:
    """For each pair of a question and a clause a name of its policy, the same for pairs of one policy.

    A policy is a connected component: questions that share a clause belong together, and clauses that share a
    question; texts are compared after ``normalise``. Different policies with a clause in common count as one,
    which can only keep more rows together. A name depends on the texts alone, not on the order of the rows.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    names = [[f"q {normalise(text)}" for text in questions], [f"c {normalise(text)}" for text in clauses]]
    number = {name: i for i, name in enumerate(sorted({*names[0], *names[1]}))}
    first, second = ([number[name] for name in column] for column in names)
    edges = sparse.coo_matrix(([1] * len(first), (first, second)), shape=(len(number), len(number)))
    component = connected_components(edges, directed=False)[1]
    smallest: dict[int, str] = {}  # of each component its first clause
    for i, clause in zip(component[second], names[1], strict=True):
        smallest[i] = min(smallest.get(i, clause), clause)
    digests = {
        i: hashlib.sha256(clause.encode("utf-8", "surrogatepass")).hexdigest()[:8] for i, clause in smallest.items()
    }
    return [f"policy-{digests[i]}" for i in component[first]]
