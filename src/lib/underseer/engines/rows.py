"""From prompts to token rows and from drawn tokens to answers: the same for every engine that reads tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines.base import Answer, Prompt
from underseer.errors import UserError
from underseer.models import chats
from underseer.models.batches import bare_ids, continued, cut_left, end_token, prompt_ids, start_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from underseer.cost import Ledger


def load_tokenizer(place: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id. Raises UserError."""
    import transformers

    from underseer.models.loading import quiet

    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"the tokenizer of {place!r} cannot be loaded: {first}; give another folder") from error


def rendered(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], name: str) -> list[str]:
    """The text that the model reads for each prompt: a string as it is, a chat through the template of model ``name``."""
    if any(not isinstance(prompt, str) for prompt in prompts):
        chats.check_template(tokenizer, name)
    return [p if isinstance(p, str) else chats.render(tokenizer, p) for p in prompts]


def prompt_rows(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], texts: Sequence[str], room: int | None
) -> list[np.ndarray]:
    """Token ids of prompts, whose ``rendered`` texts are given, cut on the left to ``room`` tokens (None: uncut)."""
    plain = np.array([isinstance(prompt, str) for prompt in prompts], dtype=bool)
    rows: list[Any] = [None] * len(plain)
    for chosen, tokenised in ((plain, prompt_ids), (~plain, chats.text_rows)):
        places = np.flatnonzero(chosen)
        for place, row in zip(places, tokenised(tokenizer, [texts[i] for i in places]), strict=True):
            rows[place] = row
    return rows if room is None else [cut_left(row, room, start_token(tokenizer)) for row in rows]


def prepared(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], positions: int | None, new: int, name: str
) -> tuple[list[str], list[np.ndarray]]:
    """Prompts as the model reads them, as texts and as token rows that leave room for ``new`` tokens."""
    prompts = list(prompts)
    texts = rendered(tokenizer, prompts, name)
    return texts, prompt_rows(tokenizer, prompts, texts, room_for_prompts(positions, new))


def by_prompt(answers: list[Answer], n: int, cost: Ledger | None = None) -> list[list[Answer]]:
    """Answers of all prompts, ``n`` of each, prompt by prompt; ``cost`` counts the tokens that were generated."""
    if cost is not None:
        cost.add(tokens_generated=sum(a.n_generated for a in answers))
    return [answers[i : i + n] for i in range(0, len(answers), n)]


def room_for_prompts(positions: int | None, new: int) -> int | None:
    """Most tokens of a prompt that ``new`` tokens can follow; None where positions are unbounded."""
    if positions is None:
        return None
    if positions <= new:
        raise UserError(
            f"max_new_tokens = {new} leaves no room for a prompt: the model has {positions} positions; "
            f"give at most {positions - 1}"
        )
    return positions - new


def scored_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    contexts: Sequence[Prompt] | None,
    length: int,
    name: str,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows context + text of at most ``length`` tokens, and where what is counted begins (at least 1).

    A text without context starts after the begin or end token; where the tokenizer has neither, its first token cannot
    be predicted from anything.
    """
    if length < 2:
        raise UserError(f"max_length = {length} leaves nothing to predict; give at least 2")
    contexts = [""] * len(texts) if contexts is None else list(contexts)
    if len(contexts) != len(texts):
        raise UserError(f"{len(texts)} texts and {len(contexts)} contexts; give one context a text, or none at all")
    start = start_token(tokenizer)
    heads = prompt_rows(tokenizer, contexts, rendered(tokenizer, contexts, name), None)
    if start is None:
        blank = [isinstance(context, str) and not context.strip() for context in contexts]
        heads = [row[:0] if empty else row for row, empty in zip(heads, blank, strict=True)]
    ids, begins = continued(heads, bare_ids(tokenizer, texts), length, start)
    return ids, np.maximum(begins, 1)


def stops(tokenizer: PreTrainedTokenizerBase, generation_config: Any) -> set[int]:
    """Tokens that end an answer: the one with which the chat template ends a turn, as training does, the one that training closes
    plain texts with, and those of the model's own settings."""
    own = getattr(generation_config, "eos_token_id", None)
    return {
        chats.turn_end(tokenizer),
        end_token(tokenizer),
        *(own if isinstance(own, list) else [] if own is None else [own]),
    }


def answers(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[np.ndarray],
    drawn: Sequence[Sequence[int]],
    stops: set[int],
    log_probs: Sequence[Sequence[float]] | None = None,
) -> list[Answer]:
    """Tokens as drawn, to the first stop token or to the end, into answers.

    They are decoded behind the prompt's last token, as some tokenizers drop or keep a space by what stands before.
    """
    ends = [next((i for i, token in enumerate(row) if token in stops), None) for row in drawn]
    ids = [list(row[:end]) for row, end in zip(drawn, ends, strict=True)]
    last = [row[-1:].tolist() for row in prompts]
    alone, heads, whole = (
        tokenizer.batch_decode(rows, skip_special_tokens=True)
        for rows in (ids, last, [head + row for head, row in zip(last, ids, strict=True)])
    )
    texts = [
        text[len(head) :] if head and text.startswith(head) else plain
        for plain, head, text in zip(alone, heads, whole, strict=True)
    ]
    given = [None] * len(ids) if log_probs is None else [list(p[:end]) for p, end in zip(log_probs, ends, strict=True)]
    return [
        Answer(text, row, "length" if end is None else "stop", given[i], len(prompts[i]))
        for i, (text, row, end) in enumerate(zip(texts, ids, ends, strict=True))
    ]
