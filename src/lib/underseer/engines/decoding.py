"""Continuing a batch of prompts token by token, with a cache of keys and values.

Imports torch and transformers: reach it through ``local`` only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from underseer.engines.base import Sampling
from underseer.engines.choice import ban_repeats, choose, uniforms
from underseer.errors import StageError
from underseer.models.batches import pad

THINNED = 8  # rows that ended leave the batch once they are one in so many


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer in memory for ``capacity`` tokens: a new token is written, the rest not copied."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.rooms: list[torch.Tensor] = []

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        seen = self.get_seq_length()
        total = seen + key_states.shape[-2]
        held, new = [self.keys, self.values], [key_states, value_states]
        if not (self.rooms and total <= self.capacity and held[0].data_ptr() == self.rooms[0].data_ptr()):
            self.rooms = [x.new_empty((*x.shape[:-2], max(total, self.capacity), x.shape[-1])) for x in new]
            for room, tensor in zip(self.rooms, held, strict=True):
                if seen:
                    room[..., :seen, :] = tensor
        for room, tensor in zip(self.rooms, new, strict=True):
            room[..., seen:total, :] = tensor
        self.keys, self.values = (room[..., :total, :] for room in self.rooms)
        return self.keys, self.values


def roomy_cache(model: PreTrainedModel, capacity: int) -> DynamicCache:
    """The model's cache; its layers that keep all tokens have room for ``capacity`` from the start."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Decoder:
    """A causal language model that continues batches; knows what its forward pass takes.

    Models without a cache (GPT-1) read the whole row again at each step. Rows are padded on the left; positions count
    real tokens only and padding is masked, so a row's answer does not depend on its neighbours (but for rounding).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: Sampling,
        stops: Sequence[int],
        pad_id: int,
        *,
        log_probs: bool = False,
    ) -> None:
        self.model, self.sampling, self.pad_id, self.log_probs = model, sampling, pad_id, log_probs
        self.device = next(model.parameters()).device
        self.stops = torch.tensor(sorted(stops), device=self.device)
        self.takes = taken(model)

    def run(
        self, prompts: Sequence[np.ndarray], which: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Continue row ``prompts[which[i]]`` with the random numbers of ``keys[i]``, for each of n answers.

        Each prompt is read once, however many answers it gets. Gives tokens (n, max_new_tokens) as drawn, and with
        ``log_probs`` what the model itself gave each (nats; before bans, temperature, top-k and top-p), else None; what
        follows a row's first stop token is meaningless. Raises StageError for logits that are no numbers.
        """
        ids, mask = (torch.from_numpy(array).to(self.device) for array in _left(*pad(prompts, self.pad_id)))
        capacity = ids.shape[1] + self.sampling.max_new_tokens
        cache = roomy_cache(self.model, capacity) if "past_key_values" in self.takes else None
        logits = self._logits(ids, mask, cache)
        if not np.array_equal(which, np.arange(len(prompts))):
            logits, ids, mask = _take(torch.from_numpy(which).to(self.device), cache, logits, ids, mask)
        out = np.full((len(which), self.sampling.max_new_tokens), -1, dtype=np.int64)
        given = np.full(out.shape, np.nan) if self.log_probs else None
        alive = np.arange(len(which))  # which answer each row of the batch is
        ended = torch.zeros(len(which), dtype=torch.bool, device=self.device)
        for step in range(self.sampling.max_new_tokens):
            check_numbers(logits[~ended])
            own = logits.float().log_softmax(dim=-1) if given is not None else None
            if self.sampling.no_repeat_ngram:
                ban_repeats(logits, ids.masked_fill(mask == 0, -1), self.sampling.no_repeat_ngram)
            tokens = choose(logits, self.sampling, uniforms(keys[alive], step))
            out[alive, step] = tokens.cpu().numpy()
            if own is not None:
                given[alive, step] = own.gather(1, tokens[:, None])[:, 0].cpu().numpy()
            ended |= torch.isin(tokens, self.stops)
            n_ended = int(ended.sum())
            if n_ended == len(alive) or step + 1 == self.sampling.max_new_tokens:
                break
            ids, mask = torch.cat([ids, tokens[:, None]], dim=1), torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            if n_ended * THINNED >= len(alive):
                rows = (~ended).nonzero()[:, 0]
                ids, mask, ended = _take(rows, cache, ids, mask, ended)
                alive = alive[rows.cpu().numpy()]
            logits = self._logits(ids, mask, cache)
        return out, given

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        """Logits (n, V) of the token after each row; only what the cache has not seen is read."""
        seen = 0 if cache is None else cache.get_seq_length()
        inputs: dict[str, Any] = {"input_ids": ids[:, seen:], "attention_mask": mask}
        if "position_ids" in self.takes:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_(min=0)[:, seen:]
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        if cache is not None:
            inputs.update(past_key_values=cache, use_cache=True)
        return self.model(**inputs).logits[:, -1]


def check_numbers(logits: torch.Tensor) -> None:
    """Raise StageError where a row of logits (n, V) has a NaN or no finite maximum: any token chosen by it would be made up."""
    broken = int((~torch.isfinite(logits.amax(dim=-1))).sum())
    if broken:
        raise StageError(
            f"the model diverged: its logits are no finite numbers in {broken} of {len(logits)} answers; train it with a lower "
            "learning_rate, or run it with precision fp32"
        )


def taken(model: PreTrainedModel) -> set[str]:
    """Names of what the model's forward pass takes; an adapter hides them behind its own."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(base.forward).parameters)


def _left(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded on the right as rows padded on the left."""
    shift = mask.shape[1] - mask.sum(axis=1, keepdims=True)
    places = (np.arange(mask.shape[1]) - shift) % mask.shape[1]
    return np.take_along_axis(ids, places, axis=1), np.take_along_axis(mask, places, axis=1)


def _take(rows: torch.Tensor, cache: DynamicCache | None, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Chosen rows of tensors and, in place, of the cache."""
    if cache is not None:
        cache.reorder_cache(rows)
    return [tensor[rows] for tensor in tensors]
