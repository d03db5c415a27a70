"""Logits of a reward model for exchanges: through the tokenizer's chat template where it has one, else as a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.errors import UserError
from underseer.judges.base import Exchange
from underseer.models import chats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger


def logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exchanges: Sequence[Exchange],
    *,
    max_length: int,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    cost: Ledger | None = None,
) -> np.ndarray:
    """The single logit (n,) float64 of each exchange, in their order. ``cost`` is told the number of tokens."""
    import torch

    from underseer.models.batches import TokenRows, sorted_batches, tokenise
    from underseer.models.loading import max_positions, resolve_device
    from underseer.training.precision import autocast

    place, longest = resolve_device(device), min(max_length, max_positions(model) or max_length)
    if getattr(tokenizer, "chat_template", None):
        ids, types = chat_rows(tokenizer, exchanges, longest), None
    else:
        ids, types = tokenise(tokenizer, *map(list, zip(*exchanges, strict=True)), max_length=longest)
    rows = TokenRows(ids, _padding(model, tokenizer, ids), types=types)
    if cost is not None:
        cost.add(tokens_scored=int(sum(rows.lengths)))
    out = np.empty(len(rows))
    model.to(place).eval()
    with torch.inference_mode(), autocast(model, place, precision):
        for batch in sorted_batches(rows.lengths, batch_size):
            inputs = {key: value.to(place) for key, value in rows.__getitems__(batch).items()}
            out[batch] = model(**inputs).logits[:, 0].double().cpu().numpy()
    return out


def _padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[np.ndarray]) -> int:
    """The id to pad with. The model reads the last token that is not it.

    A model stored without a pad id (``reads_last_token``) was trained to read the last token, whatever it is; then the
    pad id must close no row, as the end token that stands in for it would.
    """
    if not getattr(model, "reads_last_token", False):
        return tokenizer.pad_token_id
    last = {int(row[-1]) for row in ids}
    model.config.get_text_config().pad_token_id = next(i for i in range(len(last) + 1) if i not in last)
    return model.config.get_text_config().pad_token_id


def chat_rows(tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[Exchange], max_length: int) -> list[np.ndarray]:
    """Token ids (n of (L,)) of each exchange as a chat of two turns, at most ``max_length`` of them.

    Where a chat is too long its texts are cut at their ends, the longer one first; the template stays whole. Raises
    UserError where the template alone leaves no room.
    """
    rows = _ids(tokenizer, [_rendered(tokenizer, *exchange) for exchange in exchanges])
    for i, (row, exchange) in enumerate(zip(rows, exchanges, strict=True)):
        if len(row) > max_length:
            rows[i] = _cut(tokenizer, *exchange, max_length)
    return rows


def _cut(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, max_length: int) -> np.ndarray:
    from underseer.models.batches import bare_ids, shares

    first, second = bare_ids(tokenizer, [prompt, answer])
    (template,) = _ids(tokenizer, [_rendered(tokenizer, "", "")])
    room = max_length - len(template)
    while room > 0:
        n, m = shares(len(first), len(second), room)
        texts = (tokenizer.decode(part, skip_special_tokens=False) for part in (first[:n], second[:m]))
        (row,) = _ids(tokenizer, [_rendered(tokenizer, *texts)])
        if len(row) <= max_length:
            return row
        room -= len(row) - max_length  # tokens join differently where texts meet the template
    raise UserError(
        f"max_length = {max_length} leaves no room for an exchange beside the chat template's {len(template)} tokens; "
        "give more"
    )


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> str:
    chat = [*chats.ask(prompt), {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(chats._plain(tokenizer, chat), tokenize=False)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[np.ndarray]:
    encoded: Any = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, verbose=False)
    return [np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]]
