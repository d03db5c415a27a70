"""Token rows and padded batches: tokenise once, group by length, pad each batch to its own longest row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Token ids of each text, cut on the right at ``max_length`` tokens; with token types where the tokenizer has them.

    Special tokens are those of the tokenizer's own template only: a text that spells one ("<|endoftext|>") is
    tokenised as ordinary characters, so that no input can look like padding. ``pairs`` are second texts: joined by
    the tokenizer's template where it has a separator, else by a line break. An empty text becomes one end token, so
    that no row is fully masked.
    """
    texts = list(texts)
    if pairs is not None:
        separated = tokenizer.sep_token_id is not None and (
            tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
        )
        if not separated:
            texts, pairs = [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)], None
    if not texts:
        return [], None
    encoded = tokenizer(
        texts,
        None if pairs is None else list(pairs),
        truncation=True,
        max_length=max_length,
        padding=False,
        split_special_tokens=True,
        return_attention_mask=False,
    )
    empty = next(
        token
        for token in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, 0)
        if token is not None
    )
    ids = [np.asarray(row or [empty], dtype=np.int64) for row in encoded["input_ids"]]
    types = encoded.get("token_type_ids")
    return ids, None if types is None else [np.asarray(row or [0], dtype=np.int64) for row in types]


def pad(rows: Sequence[np.ndarray], value: int, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows on the right to the longest one, rounded up to ``multiple``: ids (n, L) and mask (n, L), both int64.

    The mask is 1 where a token is real, by the row's length: never by comparing ids, so any id may occur in a text.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    width = -(-int(lengths.max()) // multiple) * multiple
    mask = np.arange(width) < lengths[:, None]
    ids = np.full((len(rows), width), value, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return ids, mask.astype(np.int64)


class TokenRows:
    """A data set of token rows (a torch map-style data set). ``rows[[i, j]]`` in a loader is one padded batch.

    ``targets`` is an array (n,) of targets, or None; with ``language_model`` the labels are the ids, -100 where padded.
    """

    def __init__(
        self,
        ids: list[np.ndarray],
        pad_id: int,
        *,
        types: list[np.ndarray] | None = None,
        targets: np.ndarray | None = None,
        language_model: bool = False,
        multiple: int = 1,
    ) -> None:
        self.ids, self.types, self.targets = ids, types, targets
        self.pad_id, self.language_model, self.multiple = pad_id, language_model, multiple
        self.lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        import torch

        ids, mask = pad([self.ids[i] for i in indices], self.pad_id, self.multiple)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(pad([self.types[i] for i in indices], 0, self.multiple)[0])
        if self.language_model:
            batch["labels"] = torch.from_numpy(np.where(mask, ids, -100))
        elif self.targets is not None:
            batch["labels"] = torch.from_numpy(self.targets[np.asarray(indices)])
        return batch


class LengthGroupedBatches:
    """Batch sampler: rows of like length together, in an order that depends on ``seed`` and the epoch alone.

    Each epoch shuffles all rows, sorts pools of ``pool`` batches by length, cuts them into batches and shuffles the
    batches. The batch with the longest row comes first, so that running out of memory shows at once.
    """

    drop_last = False

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, pool: int = 64) -> None:
        self.lengths, self.batch_size, self.seed, self.pool = np.asarray(lengths), batch_size, seed, pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch, as lists of row indices; each row is in exactly one."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        size = self.batch_size
        batches = []
        for start in range(0, len(order), size * self.pool):
            chunk = order[start : start + size * self.pool]
            chunk = chunk[np.argsort(-self.lengths[chunk], kind="stable")]
            batches += [chunk[i : i + size].tolist() for i in range(0, len(chunk), size)]
        batches = [batches[i] for i in rng.permutation(len(batches))]
        longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i]].max())
        batches[0], batches[longest] = batches[longest], batches[0]
        return batches

    def tokens(self, batches_seen: int) -> int:
        """Number of real tokens in the first ``batches_seen`` batches, over epochs."""
        total, epoch = 0, 0
        while batches_seen > 0:
            for batch in self.batches(epoch)[:batches_seen]:
                total += int(self.lengths[batch].sum())
            batches_seen, epoch = batches_seen - len(self), epoch + 1
        return total


def sorted_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices in batches of like length, the longest first: for passes without training."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def packed(ids: Sequence[np.ndarray], end: int, length: int) -> list[np.ndarray]:
    """Join token rows, each closed by the ``end`` token, and cut the stream into blocks of ``length``, a rest last."""
    if not ids:
        return []
    stream = np.concatenate([part for row in ids for part in (row, np.asarray([end]))])
    blocks = [stream[i : i + length] for i in range(0, len(stream), length)]
    return [block for block in blocks if len(block) > 1]
