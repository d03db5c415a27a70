"""Preference pairs as token rows: one prompt, two answers, and what had to be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from underseer.errors import UserError
from underseer.models.chats import answer_rows, ask, check_template, prompt_rows

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

SIDES = ("chosen", "rejected")
TEXTS = ("prompt", *SIDES)


@dataclass(frozen=True)
class PairRows:
    """Token ids of the pairs that can be learnt from. ``index`` (n,) is the place of each pair in the frame."""

    ids: list[str]
    prompts: list[np.ndarray]
    chosen: list[np.ndarray]
    rejected: list[np.ndarray]
    index: np.ndarray
    counted: np.ndarray  # (n,) bool, whether an NLL term may learn from the chosen answer
    shift: np.ndarray  # (n,) float64, nats added to the reference log-probability of the chosen answer
    dropped: dict[str, int]  # long_prompt: no room for an answer; same_answer: nothing to prefer
    cut: int  # answers that lost their end to max_length

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> np.ndarray:
        """Tokens of each pair's longer sequence (n,)."""
        rows = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return np.asarray([len(p) + max(len(c), len(r)) for p, c, r in rows], dtype=np.int64)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of both sequences of each pair (n,): what one pass reads."""
        rows = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return np.asarray([2 * len(p) + len(c) + len(r) for p, c, r in rows], dtype=np.int64)


def pair_rows(
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    name: str,
    *,
    length: int,
) -> PairRows:
    """Tokenise pairs through the model's chat template; ``length`` is the most tokens of prompt and answer together.

    As TRL does, the prompt is kept whole and the answers are cut on the right; a pair whose prompt alone takes
    ``length`` tokens is left out. So is a pair whose answers are the same tokens, of which nothing can be learnt. An empty answer is
    the token that ends the turn.

    ``pairs``: columns ``id, prompt, chosen, rejected``; optionally ``shift`` (nats; else 0), ``counted`` (else true), and
    ``chosen_cut, rejected_cut``: an answer that ran out of tokens gets no end-of-turn token. ``name`` of the pairs is for messages.
    Raises UserError for missing columns, missing texts, ids that repeat, no pairs, or none left.
    """
    _check(pairs, name)
    check_template(tokenizer, tokenizer.name_or_path)
    prompts = prompt_rows(tokenizer, [ask(text) for text in pairs["prompt"]])
    answers = [answer_rows(tokenizer, pairs[side].tolist(), cut=pairs.get(f"{side}_cut")) for side in SIDES]
    kept, dropped, cut = _fitting(prompts, *answers, length)
    if not kept:
        raise UserError(
            f"none of the {len(pairs)} {name} pairs can be learnt from: {dropped['long_prompt']} have prompts of "
            f"{length} tokens or more (raise max_length), {dropped['same_answer']} have two equal answers"
        )
    index, *parts = (list(column) for column in zip(*kept, strict=True))
    ids = pairs["id"].astype(str).iloc[index].tolist()
    counted = _column(pairs, "counted", True)[index].astype(bool)
    shift = _column(pairs, "shift", 0.0)[index].astype(np.float64)
    return PairRows(ids, *parts, np.asarray(index), counted, shift, dropped, cut)


def _fitting(
    prompts: list[np.ndarray], chosen: list[np.ndarray], rejected: list[np.ndarray], length: int
) -> tuple[list[tuple[int, np.ndarray, np.ndarray, np.ndarray]], dict[str, int], int]:
    """(place, prompt, chosen, rejected) of the pairs that can be learnt from, why others are left out, and how many answers were
    shortened."""
    dropped, cut, kept = {"long_prompt": 0, "same_answer": 0}, 0, []
    for i, (prompt, better, worse) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        room = length - len(prompt)
        if room <= 0:
            dropped["long_prompt"] += 1
        elif np.array_equal(better[:room], worse[:room]):
            dropped["same_answer"] += 1
        else:
            cut += (len(better) > room) + (len(worse) > room)
            kept.append((i, prompt, better[:room], worse[:room]))
    return kept, dropped, cut


def _column(pairs: pd.DataFrame, name: str, otherwise: float) -> np.ndarray:
    return pairs[name].to_numpy() if name in pairs.columns else np.full(len(pairs), otherwise)


def _check(pairs: pd.DataFrame, name: str) -> None:
    for column in ("id", *TEXTS):
        if column not in pairs.columns:
            raise UserError(
                f"the {name} pairs have no column {column!r}; they have {', '.join(map(str, pairs.columns))}"
            )
    if pairs.empty:
        raise UserError(f"there are no {name} pairs; give at least one")
    missing = pairs[list(TEXTS)].isna().any(axis=1)
    if missing.any():
        raise UserError(f"{int(missing.sum())} of the {len(pairs)} {name} pairs lack a prompt or an answer; drop them")
    repeated = pairs["id"].astype(str).duplicated()
    if repeated.any():
        raise UserError(
            f"{int(repeated.sum())} of the {len(pairs)} {name} pairs repeat the id of another, so that scores cannot be "
            "joined to them; give each pair an id of its own"
        )
