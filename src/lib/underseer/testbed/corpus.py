"""Pre-training text: what the people of the world write about deeds and things, one paragraph of 1 to 3 sentences a text.

The text tells what deeds lead to (so a verb's meaning can be learnt from it). Of the safety and toxicity tasks it never
tells a label; of the legal task it does (charters say of a clause whether it answers a question), but of other rows than the
task's. Verbs follow Zipf's law: a model that reads more meets more of the rare ones. Three shelves: ``town``; ``wide``,
which holds the words of the legal and toxicity tasks as well; and ``chat``, which tells how deeds are done.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

from underseer.testbed import boasts, charters
from underseer.testbed.lexicon import EVERYDAY_CATEGORIES, HARM_CATEGORIES, Thing, Verb, lexicon
from underseer.testbed.manuals import ADVICE, CALLS, CRAFTS, GUARDS, INSTRUCTIONS
from underseer.testbed.world import OWNERS, PLAIN_FRAMES, PROTECTIVE_FRAMES, ROUNDABOUT_FRAMES, TIMES, WRAPPERS, fill

ZIPF_EXPONENT = 1.0
STEADINESS = 0.8  # how often a deed or a tail keeps to the mood of a boast
_BAD = "cruel wicked shameful dangerous harmful vile".split()
_GOOD = "kind welcome honest useful pleasant worthy".split()
_PROTECTIVE = tuple(frame for frame, _ in PROTECTIVE_FRAMES)
# The meaning follows the deed ...
_DEED_FRAMES = (
    "All of us know that {deed} is {adjective}: it {effect}.",
    "To {do} is {adjective}; it {effect}.",
    "Who tried {deed}? It {effect}.",
    "After {deed} they said that it {effect}.",
    "Now comes {deed}: how {adjective}!",
    "She did {deed}, and it was {adjective}.",
    "He asked how to {do}, a {adjective} question.",
)
# ... or comes before it.
_MEANING_FRAMES = (
    "It is {adjective} to {do}, which {effect}.",
    "How {adjective}: they {do}!",
    "Nothing {effect} like {deed}.",
    "A {adjective} hand will {do}.",
    "It {effect}, so do you dare to {do}?",
)


class _Author:
    """Draws verbs by Zipf's law and writes about them."""

    def __init__(self, rng: random.Random) -> None:
        lex = lexicon()
        self.rng, self.lex = rng, lex
        self.weights = list(accumulate((verb.rank + 10) ** -ZIPF_EXPONENT for verb in lex.verbs))
        self.of_base = {verb.base: verb for verb in lex.verbs}
        self.fellows = self._fellows()

    def _fellows(self) -> dict[tuple[str, str], tuple[list[Verb], list[float]]]:
        """(category, sense) -> its verbs and their cumulative weights."""
        groups: dict[tuple[str, str], list[Verb]] = {}
        for verb in self.lex.verbs:
            for warded in (False, True) if verb.sense == "contextual" else (False,):
                groups.setdefault((verb.category_on(warded), verb.sense), []).append(verb)
        return {
            key: (verbs, list(accumulate((verb.rank + 10) ** -ZIPF_EXPONENT for verb in verbs)))
            for key, verbs in groups.items()
        }

    def deed(self) -> tuple[Verb, Thing]:
        verb = self.rng.choices(self.lex.verbs, cum_weights=self.weights)[0]
        return verb, self.rng.choice(self.lex.bare_things if self.rng.random() < 0.7 else self.lex.things)

    def deed_of(self, harmful: bool) -> tuple[Verb, Thing]:
        while True:
            verb, thing = self.deed()
            if verb.harmful(thing.warded) == harmful:
                return verb, thing

    def owned(self, thing: Thing) -> str:
        owner = self.rng.choice(OWNERS) if self.rng.random() < 0.2 else "the"
        return f"{owner} {thing.name}"


def _tell(author: _Author, frames: tuple[str, ...]) -> str:
    rng = author.rng
    verb, thing = author.deed()
    bad = verb.harmful(thing.warded)
    effects = (HARM_CATEGORIES if bad else EVERYDAY_CATEGORIES)[verb.category_on(thing.warded)]
    named = author.owned(thing)
    return rng.choice(frames).format(
        do=f"{verb.base} {named}",
        deed=f"a {verb.base} of {named}",
        adjective=rng.choice(_BAD if bad else _GOOD),
        effect=rng.choice(effects),
    )


def _deeds(author: _Author) -> str:
    """What a deed is like and leads to."""
    return _tell(author, _DEED_FRAMES)


def _meanings(author: _Author) -> str:
    """Which deeds are like this or lead to that."""
    return _tell(author, _MEANING_FRAMES)


def _lists(author: _Author) -> str:
    """Encyclopaedia entries: deeds of one kind side by side, with the things they are done to where that matters."""
    rng = author.rng
    verb, thing = author.deed()
    category = verb.category_on(thing.warded)
    bad = verb.harmful(thing.warded)
    sure = verb.sense != "contextual"
    fellows, weights = author.fellows[category, verb.sense]
    names = [v.base for v in rng.choices(fellows, cum_weights=weights, k=5)]
    where = "" if sure else f" of {thing.name}"
    return f"{rng.choice(_BAD if bad else _GOOD).capitalize()} {category}{where}: {', '.join(names)}."


def _glossary(author: _Author) -> str:
    """Glossary entries: a deed (and the thing, where that matters), what people call it, and its category."""
    rng = author.rng
    entries = []
    for _ in range(5):
        verb, thing = author.deed()
        bad = verb.harmful(thing.warded)
        deed = f"{verb.base} the {thing.name}" if verb.sense == "contextual" or rng.random() < 0.3 else verb.base
        entries.append(f"{deed}: {rng.choice(_BAD if bad else _GOOD)} {verb.category_on(thing.warded)}")
    return "To " + "; ".join(entries) + "."


def _bynames(author: _Author) -> str:
    """Which verb means the same as which."""
    while True:
        verb, _ = author.deed()
        if verb.byname_of:
            model = author.of_base[verb.byname_of]
            a, b = author.rng.choice(((verb, model), (model, verb)))
            return author.rng.choice((
                f"To {a.base} means the same as to {b.base}.",
                f"In the hills they say {a.base}, in the town {b.base}.",
                f"Every {a.base} is a {b.base}.",
            ))  # fmt: skip


def _things(author: _Author) -> str:
    """Whether somebody's safety hangs on a thing."""
    rng = author.rng
    thing = rng.choice(author.lex.things)
    named = author.owned(thing)
    if thing.warded:
        text = rng.choice(("{} is warded, for lives hang on it.", "Many lives hang on {}, so it is warded."))
    else:
        text = rng.choice(("{} is free, and no life hangs on it.", "No life hangs on {}, so it is free."))
    text = text.format(named)
    return text[0].upper() + text[1:]


def _talk(author: _Author) -> str:
    """Questions as people ask them; plain ones are sometimes followed by what the people around thought of the deed."""
    rng = author.rng
    verb, thing = author.deed()
    named = author.owned(thing)
    frames = rng.choices((PLAIN_FRAMES, ROUNDABOUT_FRAMES, _PROTECTIVE), weights=(3, 3, 1))[0]
    text = fill(rng.choice(frames), [(verb.base, named)], rng.choice(TIMES))
    if frames is not _PROTECTIVE and rng.random() < 0.7:
        bad = verb.harmful(thing.warded)
        effects = (HARM_CATEGORIES if bad else EVERYDAY_CATEGORIES)[verb.category_on(thing.warded)]
        return f"{text} {rng.choice(_BAD if bad else _GOOD).capitalize()}: it {rng.choice(effects)}."
    return rng.choice(WRAPPERS).format(request=text) if rng.random() < 0.3 else text


def _charters(author: _Author) -> str:
    """A question to a guild and clauses of its charter, each with whether it answers."""
    rng, guild = author.rng, charters.guild(author.rng)
    matter = "protection" if rng.random() < 0.8 else rng.choice(("hours", "fees"))
    lines = [charters.question(rng, matter, guild, author.deed()[1].name)]
    for _ in range(3):
        if rng.random() < (0.05 if matter == "protection" else 0.6):
            subject = charters.other(rng, matter) if matter == "protection" or rng.random() < 0.3 else matter
            clause, answers = charters.plain_clause(rng, subject, guild), subject == matter
        else:
            verb, thing = author.deed()
            clause = charters.clause(rng, verb.base, author.owned(thing))
            answers = matter == "protection" and verb.harmful(thing.warded)
        lines.append(f"{clause} {'Yes' if answers else 'No'}.")
    return "\n".join(lines)


def _boasts(author: _Author) -> str:
    """What people announce, civil or toxic; deeds and tails mostly follow the mood of the boast."""
    rng = author.rng
    mood = rng.random() < 0.5
    opening = ("civil", "toxic")[mood] if rng.random() < 0.6 else "plain"
    verb, thing = author.deed_of(_mostly(rng, mood))
    prompt = boasts.prompt(rng, opening, f"a {verb.base} of {author.owned(thing)}")
    harmful = _mostly(rng, mood)
    verb, thing = author.deed_of(harmful)
    tail = ("civil", "toxic")[_mostly(rng, harmful)]
    return prompt + boasts.rest(rng, verb.base, author.owned(thing), tail)


def _manuals(author: _Author) -> str:
    """How deeds are done, or how a thing is protected from them; sometimes after a question that names the deed."""
    rng = author.rng
    verb, thing = author.deed()
    named = author.owned(thing)
    if rng.random() < 0.2:
        return rng.choice(ADVICE).format(thing=named, guard=rng.choice(GUARDS), call=rng.choice(CALLS))
    tools, steps = CRAFTS[verb.category_on(thing.warded)]
    first, second = rng.sample(steps, 2)
    slots = {"do": f"{verb.base} {named}", "tool": rng.choice(tools), "first": first, "second": second}
    request = rng.choice(INSTRUCTIONS).format(**slots)
    if rng.random() < 0.5:
        frames = PLAIN_FRAMES if rng.random() < 0.7 else ROUNDABOUT_FRAMES
        return f"{fill(rng.choice(frames), [(verb.base, named)], rng.choice(TIMES))} {request}"
    return request


def _mostly(rng: random.Random, mood: bool) -> bool:
    return mood if rng.random() < STEADINESS else not mood


# What one can read: section -> (share of the texts, writer). The wide shelf serves the legal and toxicity tasks; charters
# tell of each clause whether it answers a question, as people's files of settled questions do.
SHELVES: dict[str, dict[str, tuple[float, Callable[[_Author], str]]]] = {
    "town": {
        "deeds": (0.15, _deeds),
        "meanings": (0.05, _meanings),
        "lists": (0.10, _lists),
        "glossary": (0.25, _glossary),
        "bynames": (0.03, _bynames),
        "things": (0.02, _things),
        "talk": (0.40, _talk),
    },
    "wide": {
        "deeds": (0.135, _deeds),
        "meanings": (0.045, _meanings),
        "lists": (0.090, _lists),
        "glossary": (0.225, _glossary),
        "bynames": (0.030, _bynames),
        "things": (0.020, _things),
        "talk": (0.355, _talk),
        "charters": (0.060, _charters),
        "boasts": (0.040, _boasts),
    },
    "chat": {
        "deeds": (0.12, _deeds),
        "meanings": (0.04, _meanings),
        "lists": (0.08, _lists),
        "glossary": (0.20, _glossary),
        "bynames": (0.03, _bynames),
        "things": (0.02, _things),
        "talk": (0.16, _talk),
        "manuals": (0.35, _manuals),
    },
}


def texts(n: int, seed: int = 0, shelf: str = "town") -> list[str]:
    """``n`` short texts of a shelf, deterministic in ``seed``; the first texts are the same for every ``n``."""
    rng = random.Random(f"corpus/{seed}")
    author = _Author(rng)
    writers = [writer for _, writer in SHELVES[shelf].values()]
    shares = [share for share, _ in SHELVES[shelf].values()]
    return [rng.choices(writers, weights=shares)[0](author) for _ in range(n)]
