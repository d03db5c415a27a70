"""How many rows of each class a split needs, and whether the data hold them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from underseer.data.registry import LABELS
from underseer.errors import UserError

SPLITS = ("supervise", "transfer", "validation", "test")
JUDGE = "judge"
"""A fifth split, where asked for: rows from which scorers are trained."""

LEARNT = ("supervise", "transfer", "validation")
"""Splits of rows that are learnt from, in which ``train_labels`` alone may stand."""


@dataclass(frozen=True)
class Sizes:
    """Rows of each split; with ``n_judge`` = 0 there is no split ``judge``."""

    n_supervise: int
    n_transfer: int
    n_validation: int
    n_test: int
    n_judge: int = 0

    def by_split(self) -> dict[str, int]:
        sizes = {name: getattr(self, f"n_{name}") for name in SPLITS}
        return sizes | ({JUDGE: self.n_judge} if self.n_judge else {})


def size_mistakes(
    counts: Counter[int],
    sizes: Mapping[str, int],
    train_labels: Collection[int] | None = None,
    classes: Sequence[str] = LABELS,
) -> list[str]:
    """What is wrong with the sizes of the splits, given the rows of each label: one line per mistake."""
    mistakes = [f"n_{name} = {size}: at least 1 row is needed" for name, size in sizes.items() if size < 1]
    total, asked = sum(counts.values()), sum(sizes.values())
    if not total:
        return [*mistakes, "the data set is empty; nothing can be split"]
    missing = [name for label, name in enumerate(classes) if not counts[label]]
    if missing and set(counts) <= {0, 1}:
        remedy = "add a data set with '+'" if tuple(classes) == LABELS else "give the whole data set"
        return [*mistakes, f"the data hold no {missing[0]} rows, and both classes are needed; {remedy}"]
    if asked > total:
        largest = max(sizes, key=sizes.__getitem__)
        mistakes.append(f"the splits ask for {sum_text(sizes)}, the data hold {total}; lower n_{largest}")
    need = quotas_of(counts, sizes, train_labels)
    for name, size in sizes.items():
        short = [label for label in _wanted(counts, name, train_labels) if need[name][label] == 0] if size > 0 else []
        if short:
            share = counts[short[0]] / total
            mistakes.append(
                f"n_{name} = {size}: too few for a row of class {class_name(short[0], classes)}, {share:.1%} of the "
                f"data; at least {math.ceil(1 / share)} are needed"
            )
    return mistakes or _shortage(counts, sizes, need, train_labels, classes)


def _shortage(
    counts: Counter[int],
    sizes: Mapping[str, int],
    need: Mapping[str, Mapping[int, int]],
    train_labels: Collection[int] | None,
    classes: Sequence[str],
) -> list[str]:
    """Splits that are learnt from and ask for more rows of the classes that may be learnt than there are."""
    if train_labels is None:
        return []
    learnt = {name: size for name, size in sizes.items() if name in LEARNT}
    names = " or ".join(class_name(label, classes) for label in sorted(train_labels))
    held = sum(counts[label] for label in train_labels)
    others = sum(need[name][label] for name in sizes if name not in learnt for label in train_labels)
    if sum(learnt.values()) <= held - others:
        return []
    lower = [max(learnt, key=learnt.__getitem__), *sorted(set(sizes) - set(learnt), key=sizes.__getitem__)[-1:]]
    return [
        f"the splits that are learnt from ask for {sum_text(learnt)}, all of class {names}; the data hold {held}, of "
        f"which the other splits take {others}; lower {' or '.join(f'n_{name}' for name in lower)}"
    ]


def quotas_of(
    counts: Counter[int], sizes: Mapping[str, int], train_labels: Collection[int] | None = None
) -> dict[str, dict[int, int]]:
    """For each split its rows of each label: the data's proportions, in splits that are learnt from those of
    ``train_labels`` alone."""
    by_split = {}
    for name, size in sizes.items():
        wanted = _wanted(counts, name, train_labels)
        quota = quotas(Counter({label: counts[label] for label in wanted}), size) if wanted else {}
        by_split[name] = {label: quota.get(label, 0) for label in sorted(counts)}
    return by_split


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


def class_name(label: int, classes: Sequence[str] = LABELS) -> str:
    return classes[label] if label in (0, 1) else str(label)


def raise_all(mistakes: list[str]) -> None:
    if mistakes:
        raise UserError("\n".join(mistakes))


def _wanted(counts: Counter[int], name: str, train_labels: Collection[int] | None) -> list[int]:
    """The labels that stand in a split."""
    limited = train_labels is not None and name in LEARNT
    return [label for label in sorted(counts) if counts[label] and (not limited or label in train_labels)]


def sum_text(sizes: Mapping[str, int]) -> str:
    parts = " + ".join(f"{size} {name}" for name, size in sizes.items())
    return f"{sum(sizes.values())} rows ({parts})"
