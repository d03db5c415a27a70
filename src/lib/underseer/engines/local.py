"""Transformers in this process: continuations and log-probabilities in batches of like length.

A batch that does not fit into memory is tried again in halves, and so are those after it. Answers are drawn with
random numbers of their own (``choice``), so that the same seed gives the same answers whatever the order of prompts and
the size of batches: exactly so in fp32, up to rounding (a likelihood may differ in its last digits, and with it, rarely,
a token); bf16 rounds more.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer.engines import rows as token_rows
from underseer.engines.base import USUAL, Answer, Inference, Prompt, Sampling
from underseer.errors import UserError
from underseer.models.loading import max_positions, resolve_device
from underseer.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger
    from underseer.engines.decoding import Decoder

LOGITS = 2**26  # most logits held at once when scoring: 256 MB in fp32


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    inference: Inference = USUAL,
    *,
    log_probs: bool = False,
    progress: bool = True,
    cost: Ledger | None = None,
) -> list[list[Answer]]:
    """Continue each prompt, a string or a chat: for each, in the order given, its ``sampling.n`` answers.

    An answer ends at the tokenizer's or the model's end token or after ``max_new_tokens``. Its text is the continuation
    alone, without special tokens: prompt + text reads on. A prompt that would not fit the model's positions and
    ``inference.max_length`` together with ``max_new_tokens`` is cut on the left: its end is kept. An empty prompt
    starts from the begin or end token. ``inference.batch_size`` counts answers. ``cost`` counts the new tokens, end
    tokens included.
    Raises UserError where ``max_new_tokens`` leaves no room for a prompt, a single answer does not fit into memory, or
    a chat is given to a model without a chat template.
    """
    from underseer.engines.decoding import Decoder

    if not len(prompts):
        return []
    longest, name = positions(model, inference.max_length), _name(model)
    texts, rows = token_rows.prepared(tokenizer, prompts, longest, sampling.max_new_tokens, name)
    stops = token_rows.stops(tokenizer, getattr(model, "generation_config", None))
    model.to(resolve_device(inference.device)).eval()
    decoder = Decoder(model, sampling, stops, tokenizer.pad_token_id or 0, log_probs=log_probs)
    drawn, given = _drawn(decoder, texts, rows, inference, progress)
    repeated = [row for row in rows for _ in range(sampling.n)]
    answers = token_rows.answers(tokenizer, repeated, drawn, stops, given if log_probs else None)
    return token_rows.by_prompt(answers, sampling.n, cost)


def _drawn(
    decoder: Decoder, texts: Sequence[str], rows: Sequence[np.ndarray], inference: Inference, progress: bool
) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens of each answer as drawn, and their log-probabilities; the answers to one prompt follow one another."""
    n = decoder.sampling.n
    keys = np.array([decoder.sampling.noise_key(text, draw) for text in texts for draw in range(n)], dtype=np.uint64)
    drawn: list[list[int]] = [[] for _ in keys]
    given: list[list[float]] = [[] for _ in keys]

    def work(batch: np.ndarray) -> None:
        chosen = {prompt: k for k, prompt in enumerate(dict.fromkeys((batch // n).tolist()))}
        which = np.array([chosen[prompt] for prompt in (batch // n).tolist()])
        tokens, own = decoder.run([rows[i] for i in chosen], which, keys[batch])
        for place, answer in enumerate(batch):
            drawn[answer] = tokens[place].tolist()
            if own is not None:
                given[answer] = own[place].tolist()

    lengths = np.repeat([len(row) for row in rows], n)
    with _inference(decoder.model, inference):
        _in_batches(lengths, lambda _: inference.batch_size, work, bar(len(keys), "generate", "answer", shown=progress))
    return drawn, given


def log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    inference: Inference = USUAL,
    *,
    contexts: Sequence[Prompt] | None = None,
    progress: bool = True,
    cost: Ledger | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability of each text's tokens in nats (n,) float64, and the number of tokens counted (n,) int64.

    With ``contexts`` (strings or chats), given each text's own context, whose tokens are read and not counted. Both are tokenised apart
    and cut to ``inference.max_length`` as in ``finetune.fit_continuations``; the end token is not counted. A text without context
    starts after the begin or end token; where the tokenizer has neither, its first token is not counted. An empty text
    gives 0 and 0. ``cost`` counts all tokens read.
    """
    from underseer.models.batches import TokenRows

    ids, begins = token_rows.scored_rows(
        tokenizer, list(texts), contexts, positions(model, inference.max_length), _name(model)
    )
    rows = TokenRows(ids, tokenizer.pad_token_id or 0, language_model=True, begins=begins)
    place = resolve_device(inference.device)
    sums, counts = np.zeros(len(ids)), np.maximum(rows.lengths - begins, 0)
    width = model.get_output_embeddings().weight.shape[0]
    model.to(place).eval()

    def work(batch: np.ndarray) -> None:
        batch = batch[counts[batch] > 0]
        if len(batch):
            inputs = {key: value.to(place) for key, value in rows.__getitems__(batch).items()}
            sums[batch] = -_token_losses(model, inputs, first=int(begins[batch].min())).cpu().numpy()

    with _inference(model, inference):
        size = partial(_fitting, inference.batch_size, width)
        _in_batches(rows.lengths, size, work, bar(len(ids), "score", "text", shown=progress))
    if cost is not None:
        cost.add(tokens_scored=int(rows.lengths.sum()))
    return sums, counts


def _fitting(most: int, width: int, length: int) -> int:
    """Rows of a length whose logits over ``width`` tokens may be held at once, ``most`` of them."""
    return min(most, max(1, LOGITS // (width * max(length, 1))))


@contextlib.contextmanager
def _inference(model: PreTrainedModel, inference: Inference) -> Iterator[None]:
    """Without gradients, in the precision asked for."""
    import torch

    from underseer.training.precision import autocast

    with torch.inference_mode(), autocast(model, resolve_device(inference.device), inference.precision):
        yield


def positions(model: PreTrainedModel, max_length: int | None) -> int | None:
    """Longest row that the model's positions and ``max_length`` allow; None where neither says."""
    return min((n for n in (max_positions(model), max_length) if n is not None), default=None)


def _name(model: PreTrainedModel) -> str:
    """The model's name or folder, for messages."""
    return getattr(model.config, "_name_or_path", "") or model.config.model_type


def _token_losses(model: PreTrainedModel, inputs: dict[str, Any], first: int) -> Any:
    """Summed next-token cross-entropy of each row (n,), float64; no token before ``first`` (>= 1) is counted."""
    import torch

    from underseer.engines.decoding import taken

    labels = inputs.pop("labels")[:, first:]
    width = labels.shape[1] + 1  # the last position predicts a token that is not there
    keep = {"logits_to_keep": width} if "logits_to_keep" in taken(model) else {}
    logits = model(**inputs, **keep).logits[:, -width:-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
    )
    return losses.view(len(labels), -1).double().sum(dim=1)


# ---------------------------------------------------------------------------------------------------- batches


def _in_batches(
    lengths: np.ndarray, size: Callable[[int], int], work: Callable[[np.ndarray], None], progress: Any
) -> None:
    """Do ``work`` on all rows, the longest first, ``size(length)`` at a time; halve it where memory does not suffice."""
    order, done, most = np.argsort(-np.asarray(lengths), kind="stable"), 0, len(lengths)
    with progress as shown:
        while done < len(order):
            batch = order[done : done + min(most, max(1, size(int(lengths[order[done]]))))]
            if _fits(lambda rows=batch: work(rows), len(batch), int(lengths[batch[0]])):
                done += len(batch)
                shown.update(len(batch))
            else:
                most = (len(batch) + 1) // 2
                free_memory()


def _fits(work: Callable[[], None], rows: int, length: int) -> bool:
    """Do the work; False where memory did not suffice. Raises UserError if it was for one row."""
    try:
        work()
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
            raise
        if rows == 1:
            raise UserError(
                f"out of memory with a single row of {length} tokens; take a smaller model, shorter texts, "
                "precision bf16 or another device"
            ) from error
        return False
    return True


_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
