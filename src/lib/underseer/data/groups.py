"""Which group of rows goes to which split, where rows of one group (questions about one policy) must stay together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from underseer.data.sizes import SPLITS, sum_text
from underseer.errors import UserError

ORDER = ("test", "validation", "judge", "supervise", "transfer")
"""The order in which splits are served: the test split first, so that it stays the same whatever the others are."""

ALL = 400_000  # ways of allotting groups to splits up to which every one is looked at
_TRIES = 64  # ways looked at where there are more

Need = Mapping[str, Mapping[int, int]]


def allot(counts: Sequence[Counter[int]], need: Need, seed: int, questions: int | None = None) -> tuple[dict, bool]:
    """({split: its groups, by index}, whether they were served in turn).

    ``counts`` holds the rows of each label of each group, in an order that depends on the seed; ``need`` the rows
    of each label of each split. As long as there are groups enough the splits are served in turn: each takes
    groups in order until it has its rows, ``supervise`` from the end. So a split does not depend on the sizes of
    those after it, and a larger one holds a smaller one. Where that does not work out (few groups, or large
    ones) all ways of allotting the groups are compared (a sample of them where they are more than ``ALL``):
    those that give every split its rows of each label, or else those nearest to it that give each split its
    number of rows and a row of each label; among these the ones that spread the groups most evenly; of them one
    by the seed.

    Raises ``UserError``: fewer groups than splits (``questions``: distinct ones, for the message), or groups
    that cannot cover the sizes.
    """
    if len(counts) < len(need):
        raise UserError(_too_few(len(counts), len(need), questions))
    served = _in_turn(counts, need)
    if served is not None:
        return served, True
    names = [name for name in ORDER if name in need]
    held, wanted = _arrays(counts, [need[name] for name in names])
    chosen = _matched(held, wanted, seed, _TRIES)
    if chosen is None:
        raise UserError(_too_large(held, wanted, need, seed))
    return {name: [g for g, s in enumerate(chosen) if s == at] for at, name in enumerate(names)}, False


def _in_turn(counts: Sequence[Counter[int]], need: Need) -> dict[str, list[int]] | None:
    free = list(range(len(counts)))
    taken: dict[str, list[int]] = {}
    for name in (name for name in ORDER if name in need):
        missing = Counter(need[name])
        taken[name] = []
        for g in free[::-1] if name == "supervise" else free:
            if not +missing:
                break
            if any(counts[g][label] for label in +missing):
                taken[name].append(g)
                missing -= counts[g]
        if +missing:
            return None
        used = set(taken[name])
        free = [g for g in free if g not in used]
    return taken


def _arrays(counts: Sequence[Counter[int]], need: Sequence[Mapping[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(rows held by the groups (groups, labels), rows wanted by the splits (splits, labels))."""
    labels = sorted({label for quota in need for label in quota})
    return (
        np.array([[count[label] for label in labels] for count in counts], dtype=np.int64),
        np.array([[quota.get(label, 0) for label in labels] for quota in need], dtype=np.int64),
    )


def _matched(held: np.ndarray, wanted: np.ndarray, seed: int, tries: int) -> np.ndarray | None:
    """The split of each group (groups,), -1 for none; None where no way was found."""
    splits, groups = len(wanted), len(held)
    if splits**groups <= ALL:
        ways = np.indices((splits,) * groups, dtype=np.int8).reshape(groups, -1).T
    else:
        dice = random.Random(seed)
        ways = np.array([_greedy(held, wanted, dice) for _ in range(max(4, min(tries, 20_000 // groups)))])
    mine = np.stack([ways == s for s in range(splits)], axis=1)  # (ways, splits, groups)
    have = mine @ held  # (ways, splits, labels)
    short = np.maximum(wanted - have, 0).sum(axis=(1, 2))
    usable = np.where(wanted > 0, have, 0)
    enough = (usable.sum(axis=2) >= wanted.sum(axis=1)) & (usable >= np.minimum(wanted, 1)).all(axis=2)
    fits = enough.all(axis=1)
    if not fits.any():
        return None
    best = fits & (short == short[fits].min())
    spread = np.prod(mine.sum(axis=2, dtype=float), axis=1)
    best_ways = np.flatnonzero(best & (spread == spread[best].max()))
    return ways[best_ways[random.Random(seed).randrange(len(best_ways))]]


def _greedy(held: np.ndarray, wanted: np.ndarray, dice: random.Random) -> list[int]:
    """The split of each group, -1 for none: groups from large to small (with some chance), each to the split that can still
    use most of its rows."""
    missing = wanted.copy()
    way = [-1] * len(held)
    jitter = [dice.uniform(0.5, 1.5) for _ in held]
    for g in sorted(range(len(held)), key=lambda g: -held[g].sum() * jitter[g]):
        useful = np.minimum(missing, held[g]).sum(axis=1)
        if useful.max() == 0:
            continue
        way[g] = int(np.lexsort((missing.sum(axis=1), useful))[-1])
        missing[way[g]] = np.maximum(missing[way[g]] - held[g], 0)
    return way


def _too_few(groups: int, splits: int, questions: int | None) -> str:
    if questions is None:
        return (
            f"fewer groups than splits: the rows form {groups} groups that stay together, and {splits} splits need "
            "one each; give more data"
        )
    shortage = "questions" if questions < splits else "groups of questions"
    return (
        f"fewer {shortage} than splits: {questions} questions form {groups} groups (questions about one policy stay "
        f"together), and {splits} splits need one each; give a file with more questions"
    )


def _too_large(held: np.ndarray, wanted: np.ndarray, need: Need, seed: int) -> str:
    sizes = {name: sum(need[name].values()) for name in (*SPLITS, "judge") if name in need}
    rows = sorted((int(n) for n in held.sum(axis=1)), reverse=True)
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    fits = (share for share in range(90, 0, -10) if _matched(held, -(-wanted * share // 100), seed, 8) is not None)
    share = next(fits, None)
    return (
        f"the splits ask for {sum_text(sizes)}, but rows of one group (questions about one policy) stay in one split, "
        f"and no way was found to cover these sizes with groups of {shown} rows; lower "
        f"n_{max(sizes, key=sizes.__getitem__)}" + (f" (all sizes at {share} % of these fit)" if share else "")
    )
