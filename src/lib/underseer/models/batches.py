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
    the tokenizer's template where it has a separator, else by ``separator_token``; the longer of both is cut until
    the pair fits. An empty text becomes one end token, so that no row is fully masked.
    """
    texts = list(texts)
    if not texts:
        return [], None
    if pairs is not None and not _has_pair_template(tokenizer):
        return _joined(tokenizer, texts, list(pairs), max_length), None
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


def bare_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = False) -> list[np.ndarray]:
    """Token ids of each text, uncut; an empty text has none. With ``special``, the tokenizer's opening tokens too."""
    if not len(texts):
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=special,
        truncation=False,
        padding=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    rows = [np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]]
    closing = (tokenizer.eos_token_id, tokenizer.sep_token_id)  # texts cannot hold them: the template put them there
    return [row[:-1] if special and len(row) and int(row[-1]) in closing else row for row in rows]


def _has_pair_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.sep_token_id is not None and (
        tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
    )


def separator_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that parts the texts of a pair where the tokenizer has no template for pairs: separator, else end, else pad.

    It may be the pad id: attention masks go by length, and a classifier reads the last token that is not padding, so
    one in the middle of a row is a token like others.
    """
    return _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that closes a text: the end token, else the separator, else the pad token."""
    return _first_of(tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id after which a text without context starts: the begin token, else the end token; None where there is neither."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def _first_of(*tokens: int | None) -> int:
    return next(token for token in tokens if token is not None)


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths to which two rows are cut so that they fit ``room`` together: the longer one is cut, then both alike."""
    first = min(first, max(room - second, room - room // 2))
    return first, min(second, room - first)


def cut_left(row: np.ndarray, length: int, start: int | None) -> np.ndarray:
    """The last ``length`` tokens of a row; a ``start`` token that opens it stays in front."""
    if len(row) <= length:
        return row
    if start is not None and row[0] == start and length > 1:
        return np.append(row[:1], row[len(row) - length + 1 :])
    return row[len(row) - length :]


def _joined(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str], max_length: int
) -> list[np.ndarray]:
    separator = separator_token(tokenizer)
    rows = []
    firsts, seconds = bare_ids(tokenizer, texts, special=True), bare_ids(tokenizer, pairs)
    for first, second in zip(firsts, seconds, strict=True):
        n, m = shares(len(first), len(second), max_length - 1)
        rows.append(np.concatenate([first[:n], [separator], second[:m]]))
    return rows


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of texts that are to be continued, uncut: with the tokenizer's opening tokens, without closing ones.

    An empty prompt is the start token alone (the end token's stand-in where the tokenizer has none).
    """
    start = start_token(tokenizer)
    empty = np.asarray([end_token(tokenizer) if start is None else start], dtype=np.int64)
    return [row if len(row) else empty for row in bare_ids(tokenizer, prompts, special=True)]


def continued(
    prompts: Sequence[np.ndarray], continuations: Sequence[np.ndarray], max_length: int, start: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows prompt + continuation of at most ``max_length`` (>= 2) tokens, and where each continuation begins.

    The prompt is cut on the left and the continuation on the right, the longer of both first. A continuation keeps at
    least one token, if it has any.
    """
    rows, begins = [], []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        n, m = shares(len(prompt), len(continuation), max_length)
        rows.append(np.concatenate([cut_left(prompt, n, start), continuation[:m]]))
        begins.append(n)
    return rows, np.asarray(begins, dtype=np.int64)


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

    ``targets`` is an array (n,) of targets, or None; with ``language_model`` the labels are the ids, -100 where padded
    and, with ``begins`` (n,), before each row's own beginning. ``weights`` (n,) are the rows' shares in the loss.
    """

    def __init__(
        self,
        ids: list[np.ndarray],
        pad_id: int,
        *,
        types: list[np.ndarray] | None = None,
        targets: np.ndarray | None = None,
        language_model: bool = False,
        begins: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        multiple: int = 1,
    ) -> None:
        self.ids, self.types, self.targets, self.begins, self.weights = ids, types, targets, begins, weights
        self.pad_id, self.language_model, self.multiple = pad_id, language_model, multiple
        self.lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        import torch

        chosen = np.asarray(indices)
        ids, mask = pad([self.ids[i] for i in indices], self.pad_id, self.multiple)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(pad([self.types[i] for i in indices], 0, self.multiple)[0])
        if self.language_model:
            if self.begins is not None:
                mask = mask * (np.arange(mask.shape[1]) >= self.begins[chosen][:, None])
            batch["labels"] = torch.from_numpy(np.where(mask, ids, -100))
        elif self.targets is not None:
            batch["labels"] = torch.from_numpy(self.targets[chosen])
        if self.weights is not None:
            batch["weight"] = torch.from_numpy(self.weights[chosen])
        return batch


class LengthGroupedBatches:
    """Batch sampler: rows of like length together, in an order that depends on ``seed`` and the epoch alone.

    Each epoch shuffles all rows, sorts pools of ``pool`` batches by length, cuts them into batches and shuffles the
    batches. The batch with the longest row comes first, so that running out of memory shows at once.

    Where length tells the class, such batches hold one class each. So ``classes`` (n,), if given, are sorted apart: a batch
    takes from each class the rows at the same place of its order, and has the class shares of its pool
    (docs/benchmarks.md, "Batches of like length").
    """

    drop_last = False

    def __init__(
        self, lengths: np.ndarray, batch_size: int, seed: int, pool: int = 64, classes: np.ndarray | None = None
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.pool = np.asarray(lengths), batch_size, seed, pool
        self.classes = np.zeros(len(self.lengths), dtype=int) if classes is None else np.asarray(classes)
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
            chunk = chunk[np.argsort(self._places(chunk), kind="stable")]
            batches += [chunk[i : i + size].tolist() for i in range(0, len(chunk), size)]
        batches = [batches[i] for i in rng.permutation(len(batches))]
        longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i]].max())
        batches[0], batches[longest] = batches[longest], batches[0]
        return batches

    def _places(self, chunk: np.ndarray) -> np.ndarray:
        """Where each row stands among those of its class when the longest comes first, in (0, 1)."""
        places = np.empty(len(chunk))
        for member in (self.classes[chunk] == c for c in np.unique(self.classes[chunk])):
            order = np.argsort(-self.lengths[chunk[member]], kind="stable")
            places[np.flatnonzero(member)[order]] = (np.arange(len(order)) + 0.5) / len(order)
        return places

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
