"""The split: which rows the supervisors learn from, which are transferred, which choose, and which report.

Three uses, never mixed: fit (``supervise``, ``transfer``), choose (``validation``), report (``test``). A fifth split,
``judge``, holds the rows from which toxicity scorers are trained, and nothing else is.

Rows with the same value in the column ``group`` (questions about one policy), where there is one, stand in one split,
whatever ``clean`` says: each split takes what it needs from groups of its own (see ``groups.allot``). With ``clean``, rows of
the same normalised text, or near one another (cosine >= ``near_threshold``, see ``near_graph``; chains count), stay together
as well: they go into one split, or what does not fit is left out. So no text and no near duplicate stands in two splits.
``near_threshold`` None keeps only rows of the same normalised text together, for texts so alike that near ones chain into a
group of most rows. Without ``clean`` each row is dealt out on its own, as in the released code, and ``hygiene`` shows the
overlap. Rows that miss a score (NaN) are never dealt out: whether they may be learnt from is not known.

Every split has the label proportions of the data to within rounding (and one or two rows more where rows that stay together
do not add up; further off where ``group`` leaves no choice). With ``train_labels`` (the toxicity task: ``{0}``)
``supervise``, ``transfer`` and ``validation`` hold rows of these labels alone.

The result depends on the rows' ids, labels, texts and groups and on the seed, not on their order. ``test`` does not depend on
the sizes of the others, nor ``validation`` and ``judge`` on ``n_supervise`` and ``n_transfer``; as long as rows are left over,
neither do ``supervise`` and ``transfer`` on one another. A smaller split is part of a larger one but for groups at its edge.
With ``group`` that holds as long as there are groups enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from underseer.data.clean import scored
from underseer.data.groups import ORDER, allot
from underseer.data.loading import rank
from underseer.data.near import NEAR_THRESHOLD, near_graph
from underseer.data.registry import classes_of
from underseer.data.sizes import JUDGE, SPLITS, Sizes, class_name, quotas_of, raise_all, size_mistakes
from underseer.data.texts import normalise
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def split(
    df: pd.DataFrame,
    n: Sizes,
    *,
    seed: int,
    train_labels: Collection[int] | None = None,
    clean: bool = True,
    near_threshold: float | None = NEAR_THRESHOLD,
) -> pd.DataFrame:
    """The rows dealt out: exactly the numbers asked for, in a new column ``split`` (see the module); rows that are not
    needed are left out.

    Rows come back sorted by split, then shuffled by ``seed``. Raises ``UserError``: a size below 1, more rows asked for
    than there are, a class missing in a split, or groups too few or too large for the sizes.
    """
    sizes, df = n.by_split(), df[scored(df)]
    ids, labels, classes = df["id"].tolist(), df["label"].tolist(), classes_of(df["source"].unique())
    assert len(set(ids)) == len(ids), "ids are unique"
    raise_all(size_mistakes(Counter(labels), sizes, train_labels, classes))
    need = quotas_of(Counter(labels), sizes, train_labels)
    together = _together(df, ids, seed, clean, near_threshold)
    if "group" in df.columns:
        dealt = _deal_groups(together, labels, need, rank(ids, seed), seed, questions_of(df))
    else:
        dealt = _deal_all(together, labels, need, sizes)
    raise_all(_missing_classes(dealt, labels, need, classes))
    keys = rank(ids, seed)
    names = [name for name in (*SPLITS, JUDGE) if name in sizes]
    order = [i for name in names for i in sorted(dealt[name], key=keys.__getitem__)]
    out = df.iloc[order].reset_index(drop=True)
    out["split"] = [name for name in names for _ in dealt[name]]
    return out


def questions_of(df: pd.DataFrame) -> int | None:
    """Distinct questions of text pairs (normalised); None for rows of one text."""
    return len({normalise(text) for text in df["text"]}) if "text_pair" in df.columns else None


def _missing_classes(
    dealt: dict[str, list[int]], labels: list[int], need: dict[str, dict[int, int]], classes: tuple[str, str]
) -> list[str]:
    return [
        f"n_{name} = {len(rows)}: no row of class {class_name(label, classes)} could be placed; ask for more rows"
        for name, rows in dealt.items()
        for label in sorted({label for label, n in need[name].items() if n} - {labels[i] for i in rows})
    ]


def _shuffled(ids: list[str], seed: int) -> list[int]:
    keys = rank(ids, seed)
    return sorted(range(len(ids)), key=keys.__getitem__)


def _together(df: pd.DataFrame, ids: list[str], seed: int, clean: bool, threshold: float | None) -> list[list[int]]:
    """Rows that must stay together, in an order that depends only on ids and seed."""
    if not clean and "group" not in df.columns:
        return [[i] for i in _shuffled(ids, seed)]
    component = _components(df, clean, threshold)
    members: dict[int, list[int]] = {}
    for i in _shuffled(ids, seed):
        members.setdefault(int(component[i]), []).append(i)
    # A group stands where its smallest id falls: the place of its first row would favour large groups.
    groups = list(members.values())
    return [groups[g] for g in _shuffled([min(ids[i] for i in group) for group in groups], seed)]


def _components(df: pd.DataFrame, clean: bool, threshold: float | None) -> Iterable[int]:
    """For each row the number of the component it belongs to: by its text (``clean``) and by its group."""
    import numpy as np
    import pandas as pd
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    if not clean:
        return pd.factorize(df["group"].fillna(df["id"]))[0]
    node, adjacency = near_graph(df, threshold)
    if "group" in df.columns:
        group = pd.factorize(df["group"].fillna(df["id"]))[0]
        member = sparse.csr_matrix((np.ones(len(df)), (node, group)), shape=(adjacency.shape[0], group.max() + 1))
        adjacency = sparse.bmat([[adjacency, member], [member.T, None]], format="csr")
    return connected_components(adjacency, directed=False)[1][node]


def _deal_groups(
    groups: list[list[int]],
    labels: list[int],
    need: dict[str, dict[int, int]],
    keys: list[str],
    seed: int,
    questions: int | None,
) -> dict[str, list[int]]:
    """Rows for all splits, each from groups of its own."""
    owned, in_turn = allot([Counter(labels[i] for i in group) for group in groups], need, seed, questions)
    dealt = {}
    for name, mine in owned.items():
        held = [i for g in mine for i in groups[g]]
        held = held if in_turn else sorted(held, key=keys.__getitem__)  # from all of its groups, where they are few
        allowed = [i for i in held if need[name][labels[i]]]
        left = Counter(need[name])
        rows, others = [], []
        for i in allowed:
            (rows if left[labels[i]] > 0 else others).append(i)
            left[labels[i]] -= 1
        dealt[name] = rows + others[: sum(need[name].values()) - len(rows)]
    return dealt


def _deal_all(
    groups: list[list[int]], labels: list[int], need: dict[str, dict[int, int]], sizes: dict[str, int]
) -> dict[str, list[int]]:
    """Rows for all splits, one split after the other; supervise from the end of what is left."""
    dealt: dict[str, list[int]] = {}
    free = set(range(len(groups)))
    for name in (name for name in ORDER if name in sizes):
        order = sorted(free, reverse=name == "supervise")
        dealt[name] = _deal(groups, order, labels, dict(need[name]), free)
        if len(dealt[name]) < sizes[name]:
            raise UserError(
                f"n_{name} = {sizes[name]}: only {len(dealt[name])} rows are left for it, because near "
                "duplicates stay in one split; lower the sizes, or give split(near_threshold=None)"
            )
    return dealt


def _deal(
    groups: list[list[int]], order: list[int], labels: list[int], need: dict[int, int], free: set[int]
) -> list[int]:
    """Rows for one split. Whole groups that fit, in order; then, for what is missing, parts of the smallest
    groups (the rest of such a group is lost to the other splits); last, rows of another class that the split
    may hold where one has run out."""
    rows: list[int] = []
    allowed = {label for label, n in need.items() if n}

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
        spare = [i for g in order if g in free for i in groups[g] if labels[i] in allowed]
        for label, n in Counter(labels[i] for i in spare[:missing]).items():
            need[label] = n
        take([g for g in order if g in free], whole=False)
    return rows
