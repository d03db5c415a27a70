"""Answers that ran out of tokens: how many, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MAX_CUT = 0.05
"""Share of answers that ran out of tokens above which a notebook warns."""


def cut_share(answers: pd.DataFrame) -> float:
    """The share of answers (column ``cut``) that ran out of tokens; 0 of none."""
    return float(answers.cut.mean()) if len(answers) else 0.0


def cut_words(answers: pd.DataFrame) -> str:
    """In words, for the notebook: how many answers ran out of tokens, with a warning where they are many."""
    share = cut_share(answers)
    text = f"{int(answers.cut.sum())} of {len(answers)} answers ran out of tokens ({share:.1%})"
    if share <= MAX_CUT:
        return f"{text}."
    return f"WARNING: {text}, above {MAX_CUT:.0%}: they are judged as they stand, and no end of turn is learnt after them; raise max_new_tokens."
