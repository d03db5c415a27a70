"""Named sets of seeds (``params/seeds.yaml``): choices are made on one set and reported on another."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from underseer.errors import UserError, nearest, short
from underseer.paths import ROOT
from underseer.runs import notation
from underseer.runs.files import Raw, Source, with_seeds

FILE = ROOT / "params" / "seeds.yaml"
TUNING = "tuning"
"""The set on which settings are chosen."""
CHOICES = "docs/tuning.md"
"""The record of what was chosen, and on which seeds."""


@cache
def sets() -> dict[str, list[int]]:
    """The seeds of each named set; raises UserError where two sets share a seed."""
    return checked(notation.parse(FILE.read_text(encoding="utf-8")))


def checked(named: dict[str, list[int]]) -> dict[str, list[int]]:
    """The sets as they are; raises UserError where a seed stands twice, in two sets or in one."""
    owner: dict[int, str] = {}
    for name, seeds in named.items():
        for seed in seeds:
            if seed in owner:
                raise UserError(f"params/seeds.yaml: seed {seed} stands in {owner[seed]} and in {name}; keep one")
            owner[seed] = name
    return named


def axis(raw: Raw) -> Source | None:
    """The variants of an experiment, with the seeds that it names as an axis; of a grid with ``n_seeds`` the first of them.

    What is wrong with ``seeds`` or ``n_seeds`` is added to ``raw.problems``.
    """
    name, count = raw.keys.get("seeds"), raw.keys.get("n_seeds")
    variants = raw.keys.get("variants")
    if name is None:
        if count is not None:
            raw.problems.append(f"{count.where}: n_seeds = {short(count.value)}: of which set? Add 'seeds: reporting'")
        return variants
    if not isinstance(name.value, str) or name.value not in sets():
        hint = nearest(str(name.value), sets()) or f"; allowed: {', '.join(sets())}"
        raw.problems.append(f"{name.where}: seeds = {short(name.value)}: no such set in params/seeds.yaml{hint}")
        return variants
    there = sets()[name.value]
    n = count.value if count else len(there)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(there):
        raw.problems.append(
            f"{count.where}: n_seeds = {short(n)}: expected a whole number from 1 to {len(there)}, the seeds of {name.value!r}; "
            "seeds of your own: --set seed=[30, 31, 32]"
        )
        return variants
    where = variants.where if variants else name.where
    for grid in raw.grids:
        own = grid.get("n_seeds", 1) if isinstance(grid, dict) else 1
        if isinstance(own, bool) or not isinstance(own, int) or own < 1:
            raw.problems.append(f"{where}: variants: n_seeds = {own!r}: expected a whole number above 0")
            return None
    return Source(where, with_seeds(raw.grids, there[:n]))


def described(values: Iterable[int]) -> dict[str, Any]:
    """What a result says of its seeds.

    Returns:
        ``set``: the named set that holds all of them, None where there is none; ``values``: the seeds in order;
        ``tuned_on``: the seeds on which settings were chosen; ``choices``: the file that records these choices.
    """
    seeds = sorted(set(values))
    names = [name for name, there in sets().items() if seeds and set(seeds) <= set(there)]
    return {"set": names[0] if names else None, "values": seeds, "tuned_on": sets()[TUNING], "choices": CHOICES}
