"""The split: which rows the supervisors learn from, which are transferred, which choose, and which report.

Three uses, never mixed: fit (``supervise``, ``transfer``), choose (``validation``), report (``test``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from underseer.data.loading import rank
from underseer.data.near import NEAR_THRESHOLD, near_graph
from underseer.data.registry import LABELS
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("supervise", "transfer", "validation", "test")


def split(
    df: pd.DataFrame,
    *,
    n_supervise: int,
    n_transfer: int,
    n_validation: int,
    n_test: int,
    seed: int,
    clean: bool = True,
    near_threshold: float | None = NEAR_THRESHOLD,
) -> pd.DataFrame:
    """The rows dealt out: exactly the numbers asked for, in a new column ``split``; rows not needed are left
    out.

    With ``clean``, rows of the same normalised text, or near one another (cosine >= ``near_threshold``, see
    ``near_pairs``; chains count), stay together: they go into one split, or what does not fit is left out. So
    no text and no near duplicate stands in two splits. ``near_threshold`` None keeps only rows of the same
    normalised text together, for texts so alike that near ones chain into a group of most rows. Without
    ``clean`` each row is dealt out on its own, as in the released code, and ``hygiene`` shows the overlap.

    Every split has the label proportions of ``df`` to within rounding (and one or two rows more where the
    groups do not add up). The result depends on the rows' ids, labels and texts and on ``seed``, not on the
    order of ``df``. ``test`` does not depend on the sizes of the others, nor ``validation`` on
    ``n_supervise`` and ``n_transfer``; as long as rows are left over, neither do ``supervise`` and
    ``transfer`` on one another. A smaller split is part of a larger one but for groups at its edge.

    Rows come back sorted by split, then shuffled by ``seed``. Raises ``UserError``: a size below 1, more rows
    asked for than there are, a class missing in a split, or groups too large for the sizes.
    """
    sizes = {"supervise": n_supervise, "transfer": n_transfer, "validation": n_validation, "test": n_test}
    ids, labels = df["id"].tolist(), df["label"].tolist()
    assert len(set(ids)) == len(ids), "ids are unique"
    raise_all(size_mistakes(Counter(labels), sizes))
    groups = _groups(df, ids, labels, seed, near_threshold) if clean else [[i] for i in _shuffled(ids, seed)]
    dealt: dict[str, list[int]] = {}
    free = set(range(len(groups)))
    # The test split first, so that it stays the same whatever the other sizes are; supervise from the end.
    for name in ("test", "validation", "supervise", "transfer"):
        order = sorted(free, reverse=name == "supervise")
        dealt[name] = _deal(groups, order, labels, quotas(Counter(labels), sizes[name]), free)
        if len(dealt[name]) < sizes[name]:
            raise UserError(
                f"n_{name} = {sizes[name]}: only {len(dealt[name])} rows are left for it, because near "
                "duplicates stay in one split; lower the sizes, or give split(near_threshold=None)"
            )
    raise_all(_missing_classes(dealt, labels))
    keys = rank(ids, seed)
    order = [i for name in SPLITS for i in sorted(dealt[name], key=keys.__getitem__)]
    out = df.iloc[order].reset_index(drop=True)
    out["split"] = [name for name in SPLITS for _ in dealt[name]]
    return out


def size_mistakes(counts: Counter[int], sizes: dict[str, int]) -> list[str]:
    """What is wrong with the sizes of the splits, given the rows of each label: one line per mistake."""
    mistakes = [f"n_{name} = {size}: at least 1 row is needed" for name, size in sizes.items() if size < 1]
    total, asked = sum(counts.values()), sum(sizes.values())
    if not total:
        return [*mistakes, "the data set is empty; nothing can be split"]
    missing = [name for label, name in enumerate(LABELS) if not counts[label]]
    if missing and set(counts) <= {0, 1}:
        return [
            *mistakes,
            f"the data hold no {missing[0]} rows, and both classes are needed; add a data set with '+'",
        ]
    if asked > total:
        parts = " + ".join(f"{size} {name}" for name, size in sizes.items())
        largest = max(sizes, key=sizes.__getitem__)
        mistakes.append(f"the splits ask for {asked} rows ({parts}), the data hold {total}; lower n_{largest}")
    for name, size in sizes.items():
        short = [label for label, quota in quotas(counts, size).items() if quota == 0] if size > 0 else []
        if short:
            share = counts[short[0]] / total
            mistakes.append(
                f"n_{name} = {size}: too few for a row of class {class_name(short[0])}, {share:.1%} of the "
                f"data; at least {math.ceil(1 / share)} are needed"
            )
    return mistakes


def quotas(counts: Counter[int], size: int) -> dict[int, int]:
    """Rows of each label in a split of ``size`` rows: the data's proportions, rounded by largest
    remainder."""
    total = sum(counts.values())
    exact = {label: size * n / total for label, n in sorted(counts.items())}
    quota = {label: int(value) for label, value in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quota[label] - exact[label], label))
    for label in by_remainder[: size - sum(quota.values())]:
        quota[label] += 1
    return quota


def class_name(label: int) -> str:
    return LABELS[label] if label in (0, 1) else str(label)


def raise_all(mistakes: list[str]) -> None:
    if mistakes:
        raise UserError("\n".join(mistakes))


def _missing_classes(dealt: dict[str, list[int]], labels: list[int]) -> list[str]:
    classes = set(labels)
    return [
        f"n_{name} = {len(rows)}: no row of class {class_name(label)} could be placed; ask for more rows"
        for name, rows in dealt.items()
        for label in sorted(classes - {labels[i] for i in rows})
    ]


def _shuffled(ids: list[str], seed: int) -> list[int]:
    keys = rank(ids, seed)
    return sorted(range(len(ids)), key=keys.__getitem__)


def _groups(df: pd.DataFrame, ids: list[str], labels: list[int], seed: int, threshold: float | None) -> list[list[int]]:
    """Rows that must stay together, in an order that depends only on ids and seed."""
    from scipy.sparse.csgraph import connected_components

    node, adjacency = near_graph(df, threshold)
    component = connected_components(adjacency, directed=False)[1][node]
    members: dict[int, list[int]] = {}
    for i in _shuffled(ids, seed):
        members.setdefault(int(component[i]), []).append(i)
    # A group stands where its smallest id falls: the place of its first row would favour large groups.
    groups = list(members.values())
    return [groups[g] for g in _shuffled([min(ids[i] for i in group) for group in groups], seed)]


def _deal(
    groups: list[list[int]], order: list[int], labels: list[int], need: dict[int, int], free: set[int]
) -> list[int]:
    """Rows for one split. Whole groups that fit, in order; then, for what is missing, parts of the smallest
    groups (the rest of such a group is lost to the other splits); last, rows of another class where one has
    run out."""
    rows: list[int] = []

    def take(candidates: Iterable[int], whole: bool) -> None:
        for g in candidates:
            if not any(need.values()):
                return
            counts = Counter(labels[i] for i in groups[g])
            if whole and any(n > need[label] for label, n in counts.items()):
                continue
            for i in groups[g]:
                if need[labels[i]] > 0:
                    need[labels[i]] -= 1
                    rows.append(i)
                    free.discard(g)

    take(order, whole=True)
    if any(need.values()):
        take(sorted((g for g in order if g in free), key=lambda g: len(groups[g])), whole=False)
    if any(need.values()):
        missing = sum(need.values())
        need.update(dict.fromkeys(need, 0))
        spare = [i for g in order if g in free for i in groups[g]]
        for label, n in Counter(labels[i] for i in spare[:missing]).items():
            need[label] = n
        take([g for g in order if g in free], whole=False)
    return rows
