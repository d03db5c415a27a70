"""Exchanges that are too long for a judge: their texts are cut at their ends, and never what the judge is asked with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from underseer.errors import UserError
from underseer.judges.base import Exchange
from underseer.models.batches import bare_ids, shares

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHARACTERS = 3  # of a word in English, about, for one token


def cut(
    tokenizer: PreTrainedTokenizerBase,
    exchange: Exchange,
    *,
    texts: int,
    whole: int | None = None,
    length: Callable[[Exchange], int] = lambda exchange: 0,
) -> Exchange:
    """The exchange with at most ``texts`` tokens of prompt and answer together, the longer one cut first; and so that
    ``length``, the tokens of all that the model reads for an exchange, is at most ``whole``.

    Raises UserError where what stands around the texts leaves no room for them.
    """
    rows = bare_ids(tokenizer, exchange)
    if sum(map(len, rows)) <= texts and (whole is None or length(exchange) <= whole):
        return exchange
    room = texts if whole is None else min(texts, whole - length(("", "")))
    while room > 0:
        kept = shares(len(rows[0]), len(rows[1]), room)
        parts = [
            text if n == len(row) else tokenizer.decode(row[:n], skip_special_tokens=False).rstrip("\ufffd")
            for text, row, n in zip(exchange, rows, kept, strict=True)
        ]
        over = 0 if whole is None else length((parts[0], parts[1])) - whole
        if over <= 0:
            return parts[0], parts[1]
        room -= over  # tokens join differently where texts meet what stands around them
    raise UserError(
        f"{texts if whole is None else whole} tokens leave no room for an exchange beside what the judge is asked with "
        f"({length(('', ''))} tokens); raise max_length, or give a judge that reads more"
    )


def cut_unread(exchange: Exchange, texts: int) -> Exchange:
    """The same where no tokenizer is at hand. A token is taken for three characters of ASCII, or for one byte of others."""
    sizes = [len(text) if text.isascii() else CHARACTERS * len(text.encode()) for text in exchange]
    kept = shares(sizes[0], sizes[1], CHARACTERS * texts)
    parts = [
        text[: int(len(text) * n / size)] if n < size else text
        for text, n, size in zip(exchange, kept, sizes, strict=True)
    ]
    return parts[0], parts[1]


def is_longer(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...], tokens: int) -> bool:
    """Whether texts together have more tokens than a classifier reads, its special tokens counted."""
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + len(texts) + 1 <= tokens:
        return False  # a token is a byte at least
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) > 1)
    return sum(map(len, bare_ids(tokenizer, list(texts)))) + special > tokens
