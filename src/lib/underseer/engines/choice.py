"""The next token from logits: bans, temperature, top-k, top-p, and a draw that depends on the prompt alone.

Imports torch: reach it through ``local`` only.
"""

from __future__ import annotations

import numpy as np
import torch

from underseer.engines.base import Sampling

NUCLEUS = 1024  # candidates sorted for top-p at first; all are, where these do not reach it
_GOLDEN, _MIX1, _MIX2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def uniforms(keys: np.ndarray, step: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of answers with ``keys`` (n,) uint64 at a step: counter-based, no state.

    Splitmix64 (Steele, Lea, Flood 2014), keyed: the step-th number of the generator that starts at the key.
    """
    with np.errstate(over="ignore"):
        z = keys + np.uint64(step + 1) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def ban_repeats(logits: torch.Tensor, history: torch.Tensor, size: int) -> None:
    """Set logits (n, V) to -inf, in place, where the token would complete a ``size``-gram that the row has already.

    ``history`` (n, L) holds the tokens so far, prompt included, padded on the left with -1. Hugging Face's
    no_repeat_ngram_size by another way (and without counting padding as tokens).
    """
    length = history.shape[1] - size + 1  # number of windows of `size` tokens
    if length < 1:
        return
    repeated = history[:, size - 1 :] >= 0
    for back in range(1, size):  # the tokens before the last of each window against the last ones of the row
        repeated = repeated & (history[:, size - 1 - back : size - 1 - back + length] == history[:, -back, None])
    rows, columns = repeated.nonzero(as_tuple=True)
    logits[rows, history[rows, columns + size - 1]] = -torch.inf


def candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tokens that may be drawn: log-weights (n, m), -inf for those ruled out, and token ids (n, m); None = all of V."""
    size = logits.shape[1]
    if 0 < sampling.top_k < size:
        values, ids = logits.topk(sampling.top_k, dim=-1)
        values = values.float() / sampling.temperature
        total = values.logsumexp(dim=-1, keepdim=True)
    elif sampling.top_p < 1:
        logits = logits.float() / sampling.temperature
        total = logits.logsumexp(dim=-1, keepdim=True)
        values, ids = logits.topk(min(NUCLEUS, size), dim=-1)
        if values.shape[1] < size and (values.logsumexp(dim=-1) < total[:, 0] + np.log(sampling.top_p)).any():
            values, ids = logits.sort(dim=-1, descending=True)
    else:
        return logits.float() / sampling.temperature, None
    if sampling.top_p < 1:
        before = (values - total).exp().cumsum(dim=-1).roll(1, dims=-1)  # probability of the likelier ones
        before[:, 0] = 0.0
        values = values.masked_fill(before >= sampling.top_p, -torch.inf)
    return values, ids


def choose(logits: torch.Tensor, sampling: Sampling, uniform: np.ndarray) -> torch.Tensor:
    """Next tokens (n,) from logits (n, V): the likeliest, or by the inverse distribution function at ``uniform`` (n,).

    The function runs over token ids in rising order, so that rounding (another batch, another machine) moves its steps
    a little but never reorders them.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    values, ids = candidates(logits, sampling)
    if ids is not None:
        ids, order = ids.sort(dim=-1)
        values = values.gather(1, order)
    weights = (values - values.amax(dim=-1, keepdim=True)).exp()
    reached = weights.cumsum(dim=-1, dtype=torch.float32 if weights.device.type == "mps" else torch.float64)
    wanted = torch.from_numpy(uniform).to(reached)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, wanted, right=True).clamp_(max=reached.shape[1] - 1)
    return place[:, 0] if ids is None else ids.gather(1, place)[:, 0]
