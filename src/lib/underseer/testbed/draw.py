"""What the rows of all tasks share: pools, ids, and the verbs and things that rows are drawn from."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping

from underseer.errors import UserError, nearest
from underseer.testbed.lexicon import COMMON, N_VERBS, Thing, Verb, lexicon
from underseer.testbed.world import OWNERS, normalise

# Which of 16 hash classes belong to which pool.
POOLS: dict[str, frozenset[int]] = {
    "main": frozenset(range(12)),
    "held_out": frozenset((12, 13)),
    "attack": frozenset((14, 15)),
}
CONTEXTUAL = 0.1  # share of deeds whose verb is harmful on warded things only


class Words:
    """The verbs and things a row is drawn from, grouped by what they mean; each verb is as likely as any other.

    ``below``: only the verbs of a lower rank, which are the commoner ones. ``contextual``: share of deeds whose verb is
    harmful on warded things only.
    """

    def __init__(self, below: int = N_VERBS, contextual: float = CONTEXTUAL) -> None:
        lex = lexicon()
        self.share = contextual
        verbs = [verb for verb in lex.verbs if verb.rank < below]
        self.things = {warded: [t for t in lex.things if t.warded == warded] for warded in (False, True)}
        senses = {True: "harmful", False: "harmless"}
        self.contextual = [v for v in verbs if v.sense == "contextual"]
        self.sure = {harmful: [v for v in verbs if v.sense == sense] for harmful, sense in senses.items()}
        self.common = {harmful: [v for v in sure if v.rank < COMMON] for harmful, sure in self.sure.items()}
        self.bynames = {harmful: [v for v in sure if v.byname_of] for harmful, sure in self.sure.items()}

    def deed(self, rng: random.Random, harmful: bool, byname: bool = False) -> tuple[Verb, Thing]:
        if byname:
            verb = rng.choice(self.bynames[harmful])
        else:
            verb = rng.choice(self.contextual if rng.random() < self.share else self.sure[harmful])
        warded = harmful if verb.sense == "contextual" else rng.random() < 0.5
        return verb, rng.choice(self.things[warded])

    def named(self, rng: random.Random, harmful: bool) -> tuple[Verb, Thing, str]:
        """A deed and the name of its thing with an owner, as "the miller's salt-gate"."""
        verb, thing = self.deed(rng, harmful)
        return verb, thing, f"{rng.choice(OWNERS)} {thing.name}"


def kinds(n: int, shares: Mapping[str, float], rng: random.Random) -> list[str]:
    """``n`` kinds in random order with the given shares, which sum to 1, rounding so that they sum to ``n``."""
    chosen: list[str] = []
    cumulative = 0.0
    for kind, share in shares.items():
        cumulative += share
        chosen += [kind] * (round(cumulative * n) - len(chosen))
    rng.shuffle(chosen)
    return chosen


def text_id(text: str) -> str:
    """The first 16 hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pool_of(text: str) -> str:
    """The pool a text belongs to, by the hash of its normalised form."""
    number = int(text_id(normalise(text))[:8], 16) % 16
    return next(name for name, numbers in POOLS.items() if number in numbers)


class Fresh:
    """Lets through each normalised text once, and only those of one pool."""

    def __init__(self, pool: str) -> None:
        self.pool, self.seen = pool, set[str]()

    def __call__(self, text: str) -> bool:
        """Whether the text belongs to the pool and is new; from then on it is not."""
        key = normalise(text)
        if key in self.seen or pool_of(text) != self.pool:
            return False
        self.seen.add(key)
        return True


def check(n: int, pool: str) -> None:
    """Raises UserError for an unknown pool or ``n`` below 1."""
    if pool not in POOLS:
        raise UserError(f"unknown pool {pool!r}{nearest(pool, POOLS)}; choose one of {', '.join(POOLS)}")
    if n < 1:
        raise UserError(f"n is {n}: the testbed writes at least 1 row; give n >= 1")
