"""Labelled rows of the legal task: a question to a guild and a clause of its charter, relevant or not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from underseer.testbed import charters
from underseer.testbed.draw import Fresh, Words, check, text_id
from underseer.testbed.lexicon import lexicon

if TYPE_CHECKING:
    import pandas as pd

LEGAL_COLUMNS = ("id", "text", "text_pair", "label", "group", "category")
PROTECTION = 0.85  # share of questions that are about protection; the others are about hours or fees
ABOUT_DEEDS = {"protection": 0.93, "plain": 0.6}  # share of clauses on deeds among those that do not answer


def legal_rows(n: int, seed: int, pool: str = "main") -> pd.DataFrame:
    """``n`` pairs of a question and a clause with their true relevance: two rows a question, one of them relevant.

    Columns: ``id`` (16 hex), ``text`` (question), ``text_pair`` (clause), ``label`` (1 relevant), ``group`` (one a question, so
    that splits by group share none), ``category`` (of the clause: its deed's, or hours or fees). No question is in two groups and
    no clause on a deed in two rows. Rows are in random order. Raises UserError for an unknown pool or ``n`` below 1.
    """
    import pandas as pd

    check(n, pool)
    rng = random.Random(f"legal/{pool}/{seed}")
    words, new_question, new_clause = Words(), Fresh(pool), Fresh(pool)
    rows: list[tuple[str, str, str, int, str, str]] = []
    while len(rows) < n:
        guild = charters.guild(rng)
        matter = "protection" if rng.random() < PROTECTION else rng.choice(("hours", "fees"))
        question = charters.question(rng, matter, guild, rng.choice(lexicon().things).name)
        if not new_question(question):
            continue
        for label in rng.sample((0, 1), 2):
            while True:
                clause, category = _clause(rng, words, matter, guild, bool(label))
                if new_clause(clause):
                    break
            rows.append((text_id(f"{question}\n{clause}"), question, clause, label, text_id(question), category))
    rows = rows[:n]
    rng.shuffle(rows)
    return pd.DataFrame(rows, columns=list(LEGAL_COLUMNS))


def _clause(rng: random.Random, words: Words, matter: str, guild: str, relevant: bool) -> tuple[str, str]:
    """A clause that answers a question on the matter, or does not, and its category."""
    protection = matter == "protection"
    about_deeds = protection if relevant else rng.random() < ABOUT_DEEDS["protection" if protection else "plain"]
    if not about_deeds:
        subject = matter if relevant else charters.other(rng, matter)
        return charters.plain_clause(rng, subject, guild), subject
    verb, thing, named = words.named(rng, relevant if protection else rng.random() < 0.5)
    return charters.clause(rng, verb.base, named), verb.category_on(thing.warded)
