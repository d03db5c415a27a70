"""Continuations between stages: written by a model, laid side by side, chosen among, taught; joined by id."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from underseer.engines import Inference, local
from underseer.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from underseer.cost import Ledger
    from underseer.engines import Sampling

GREEDY = 0  # the number of the greedy draw; sampled ones count from 1
LEAST_CHOSEN = 0.5
"""Share of prompts that must get a continuation, as of texts that a scorer must score where it is measured."""


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[pd.DataFrame, Sampling]],
    *,
    batch_size: int,
    device: str,
    precision: str,
    cost: Ledger,
) -> pd.DataFrame:
    """A model's continuations: id, split, draw, text, n_tokens, finish (stop or length).

    Each request is rows with the prompts (id, split, text), and how these are continued. The greedy continuation of a
    prompt is draw 0, its sampled ones are 1, 2, ...
    """
    import pandas as pd

    written = []
    for rows, sampling in requests:
        answers = []
        if len(rows):
            inference = Inference(device, precision, batch_size, None)
            answers = local.generate(model, tokenizer, rows.text.tolist(), sampling, inference, cost=cost)
        first = GREEDY if sampling.temperature == 0 else 1
        written += [
            (row, split, first + k, a.text, a.n_tokens, a.finish_reason)
            for row, split, drawn in zip(rows.id, rows.split, answers, strict=True)
            for k, a in enumerate(drawn)
        ]
    return pd.DataFrame(written, columns=["id", "split", "draw", "text", "n_tokens", "finish"])


def candidates(answers: pd.DataFrame) -> np.ndarray:
    """The candidates (B, n): one continuation by each of B supervisors; ``answers`` as ``frames.align`` returns texts."""
    return answers.filter(regex=r"^text\d+$").to_numpy().T


def choose(
    answers: pd.DataFrame, rule: Callable[..., np.ndarray], toxicity: np.ndarray, nll: np.ndarray | None = None
) -> pd.DataFrame:
    """One continuation a prompt: id, split, continuation, supervisor, toxicity (mean of the training judges), nll, and ``cut``:
    whether it ran out of tokens. ``answers`` as ``frames.align`` returns texts and, where it is known, ``finish``.

    ``rule`` takes any of ``texts``, ``toxicity`` (M, B, n) and ``nll`` (B, n), by the names of its parameters, and
    returns the chosen indices (n,), as those of ``maths.selection`` do. Where it returns -1 (no candidate has a score,
    because the judge failed on all, say), the prompt is left out of what the student learns: its continuation is missing,
    its supervisor -1. ``nll`` (nats per token) may be missing.

    Raises:
        UserError: the rule needs what is not there, or returned something else.
    """
    texts = candidates(answers)
    known = {"texts": texts.tolist(), "toxicity": toxicity, "nll": nll}
    given = {name: known[name] for name in inspect.signature(rule).parameters if name in known}
    if given.get("nll", toxicity) is None:
        raise UserError("the rule asks for nll, which is measured for voting = 'least_toxic' alone; set that")
    chosen = np.asarray(rule(**given))
    if chosen.shape != texts.shape[1:] or not np.isin(chosen, np.arange(-1, len(texts))).all():
        raise UserError(
            f"the rule returned an array of shape {chosen.shape}; expected the numbers of {texts.shape[1]} candidates, "
            f"from 0 to {len(texts) - 1}, or -1"
        )
    finish = answers.filter(regex=r"^finish\d+$").to_numpy().T  # (B, n), or none
    known, at = chosen >= 0, (np.maximum(chosen, 0), np.arange(len(chosen)))
    return answers[["id", "split"]].assign(
        continuation=np.where(known, texts[at], None),
        supervisor=chosen,
        toxicity=np.where(known, toxicity.mean(axis=0)[at], np.nan),
        nll=np.nan if nll is None else np.where(known, nll[at], np.nan),
        cut=known & (finish[at] == "length") if len(finish) else False,
    )


def enough_chosen(weak_labels: pd.DataFrame) -> tuple[bool, str]:
    """Whether at least LEAST_CHOSEN of the prompts have a continuation, and in words what must hold and what does."""
    left_out, n = int(weak_labels.continuation.isna().sum()), len(weak_labels)
    text = (
        f"at least {LEAST_CHOSEN:.0%} of the prompts have a chosen continuation; {left_out} of {n} have none, because the judges "
        "gave no verdict on any candidate: look at the judge's replies or its server, or take another judge"
    )
    return left_out <= (1 - LEAST_CHOSEN) * n, text


def teach(rows: pd.DataFrame, weak_labels: pd.DataFrame | None) -> pd.DataFrame:
    """What a student learns from: transfer and validation prompts with the weak continuations, or with the human ones. Prompts for
    which none was chosen are left out; ``cut``: whether a weak one ran out of tokens.

    Raises:
        UserError: a prompt that is not among the weak labels, or none that has a continuation.
    """
    taught = rows[rows.split.isin(["transfer", "validation"])]
    if weak_labels is None:
        return taught
    strange = int((~taught.id.isin(weak_labels.id)).sum())
    if strange:
        raise UserError(f"{strange} of {len(taught)} prompts have no weak continuation; they were made for other rows")
    given = weak_labels.loc[weak_labels.continuation.notna(), weak_labels.columns.isin(["id", "continuation", "cut"])]
    if given.empty:
        raise UserError(
            f"none of {len(weak_labels)} prompts has a chosen continuation; look at the judge's replies, or take another judge"
        )
    return taught.drop(columns="continuation").merge(given, on="id", validate="one_to_one")


def shape(texts: pd.Series) -> dict[str, float]:
    """What continuations look like: mean number of words, share of empty ones, distinct word bigrams over all."""
    words = [t.split() for t in texts]
    bigrams = [pair for w in words for pair in zip(w, w[1:], strict=False)]
    return {
        "n_words": float(np.mean([len(w) for w in words])) if words else 0.0,
        "empty_share": float(np.mean([not w for w in words])) if words else 0.0,
        "distinct_2": len(set(bigrams)) / max(len(bigrams), 1),
    }
