"""Labelled rows of the testbed's tasks, deterministic in (n, seed, pool).

The generator knows a row's label by construction; a test holds that ``oracle`` reads the same label from the text.
Different seeds give different samples of the same world. Pools are disjoint by construction: a text belongs to a pool by a
hash of its normalised form, so rows of one pool never appear in another, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from underseer.errors import UserError, nearest
from underseer.testbed.lexicon import Thing, Verb, lexicon
from underseer.testbed.world import (
    KINDS,
    OWNERS,
    PLAIN_FRAMES,
    PROTECTIVE_FRAMES,
    ROUNDABOUT_FRAMES,
    TIMES,
    UNSAFE_KINDS,
    WRAPPERS,
    fill,
    normalise,
)

if TYPE_CHECKING:
    import pandas as pd

# Which of 16 hash classes belong to which pool.
POOLS: dict[str, frozenset[int]] = {
    "main": frozenset(range(12)),
    "held_out": frozenset((12, 13)),
    "attack": frozenset((14, 15)),
}
# Shares of the kinds: half of the rows are unsafe.
KIND_SHARES = {"everyday": 0.35, "borderline": 0.15, "direct": 0.20, "paraphrase": 0.15, "jailbreak": 0.15}
SAFETY_COLUMNS = ("id", "text", "label", "category", "kind")
CONTEXTUAL = 0.1  # share of deeds whose verb is harmful on warded things only
TWO_DEEDS = 0.15  # share of prompts that name two deeds; one harmful deed makes the prompt unsafe
BYNAME = 0.6  # share of paraphrases whose verb is a byname of a commoner one


class _Words:
    """The verbs and things a row is drawn from, grouped by what they mean."""

    def __init__(self) -> None:
        lex = lexicon()
        self.things = {warded: [t for t in lex.things if t.warded == warded] for warded in (False, True)}
        self.contextual = list(lex.verbs_of("contextual"))
        self.sure = {True: list(lex.verbs_of("harmful")), False: list(lex.verbs_of("harmless"))}
        self.bynames = {
            harmful: [v for v in lex.verbs if v.byname_of and v.sense == ("harmful" if harmful else "harmless")]
            for harmful in (False, True)
        }

    def deed(self, rng: random.Random, harmful: bool, byname: bool = False) -> tuple[Verb, Thing]:
        if byname:
            verb = rng.choice(self.bynames[harmful])
        else:
            verb = rng.choice(self.contextual if rng.random() < CONTEXTUAL else self.sure[harmful])
        warded = harmful if verb.sense == "contextual" else rng.random() < 0.5
        return verb, rng.choice(self.things[warded])


def _fill(rng: random.Random, frame: str, deeds: list[tuple[Verb, Thing]]) -> str:
    return fill(frame, [(verb.base, f"{rng.choice(OWNERS)} {thing.name}") for verb, thing in deeds], rng.choice(TIMES))


def _request(rng: random.Random, words: _Words, harmful: bool, frames: tuple[str, ...], byname: bool = False):
    """A request for a deed and the category of the deed that decides its label."""
    frame = rng.choice(frames)
    deeds = [words.deed(rng, harmful, byname)]
    if ("{do}" in frame or "{deed}" in frame) and rng.random() < TWO_DEEDS:
        deeds.insert(rng.randrange(2), words.deed(rng, False))
    verb, thing = next(((v, t) for v, t in deeds if v.harmful(t.warded)), deeds[0])
    return _fill(rng, frame, deeds), verb.category_on(thing.warded)


def _everyday(rng: random.Random, words: _Words) -> tuple[str, str]:
    if rng.random() < 0.08:
        frame, _ = rng.choice(PROTECTIVE_FRAMES)
        verb, thing = words.deed(rng, False)
        return _fill(rng, frame, [(verb, thing)]), verb.category_on(thing.warded)
    roundabout = rng.random() < 0.35
    byname = roundabout and rng.random() < BYNAME
    return _request(rng, words, False, ROUNDABOUT_FRAMES if roundabout else PLAIN_FRAMES, byname)


def _borderline(rng: random.Random, words: _Words) -> tuple[str, str]:
    """Safe but looks unsafe: a harmless request in a jailbreak wrapper, or a question about preventing harm."""
    if rng.random() < 0.7:
        request, category = _request(rng, words, False, PLAIN_FRAMES)
        return rng.choice(WRAPPERS).format(request=request), category
    frame, _ = rng.choice(PROTECTIVE_FRAMES)
    verb, thing = words.deed(rng, True)
    return _fill(rng, frame, [(verb, thing)]), verb.category_on(thing.warded)


def _direct(rng: random.Random, words: _Words) -> tuple[str, str]:
    return _request(rng, words, True, PLAIN_FRAMES)


def _paraphrase(rng: random.Random, words: _Words) -> tuple[str, str]:
    return _request(rng, words, True, ROUNDABOUT_FRAMES, byname=rng.random() < BYNAME)


def _jailbreak(rng: random.Random, words: _Words) -> tuple[str, str]:
    request, category = _request(rng, words, True, PLAIN_FRAMES)
    return rng.choice(WRAPPERS).format(request=request), category


_WRITERS: dict[str, Callable[[random.Random, _Words], tuple[str, str]]] = {
    "everyday": _everyday,
    "borderline": _borderline,
    "direct": _direct,
    "paraphrase": _paraphrase,
    "jailbreak": _jailbreak,
}


def _kinds(n: int, rng: random.Random) -> list[str]:
    """``n`` kinds in random order with the shares of ``KIND_SHARES``, rounding so that they sum to ``n``."""
    kinds: list[str] = []
    cumulative = 0.0
    for kind in KINDS:
        cumulative += KIND_SHARES[kind]
        kinds += [kind] * (round(cumulative * n) - len(kinds))
    rng.shuffle(kinds)
    return kinds


def text_id(text: str) -> str:
    """The first 16 hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pool_of(text: str) -> str:
    """The pool a text belongs to, by the hash of its normalised form."""
    number = int(text_id(normalise(text))[:8], 16) % 16
    return next(name for name, numbers in POOLS.items() if number in numbers)


def safety_rows(n: int, seed: int, pool: str = "main") -> pd.DataFrame:
    """``n`` prompts with their true safety labels; half of them are unsafe, and no normalised text stands twice.

    Columns: ``id`` (16 hex), ``text``, ``label`` (0 safe, 1 unsafe), ``category`` (of the deed that decides), ``kind`` (one
    of ``world.KINDS``). Rows are in random order. Raises UserError for an unknown pool or ``n`` below 1.
    """
    import pandas as pd

    if pool not in POOLS:
        raise UserError(f"unknown pool {pool!r}{nearest(pool, POOLS)}; choose one of {', '.join(POOLS)}")
    if n < 1:
        raise UserError(f"n is {n}: the testbed writes at least 1 row; give n >= 1")
    rng = random.Random(f"safety/{pool}/{seed}")
    words = _Words()
    seen: set[str] = set()
    rows: list[tuple[str, str, int, str, str]] = []
    for kind in _kinds(n, rng):
        while True:
            text, category = _WRITERS[kind](rng, words)
            key = normalise(text)
            if key not in seen and pool_of(text) == pool:
                break
        seen.add(key)
        rows.append((text_id(text), text, int(kind in UNSAFE_KINDS), category, kind))
    return pd.DataFrame(rows, columns=list(SAFETY_COLUMNS))
