"""Continuations between stages: written by a model, laid side by side, chosen among, taught; joined by id."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from underseer import engines
from underseer.engines import local
from underseer.errors import UserError
from underseer.judges import panel
from underseer.maths import selection
from underseer.w2s.kinds import Decoding

if TYPE_CHECKING:
    import pandas as pd

GREEDY = 0  # the number of the greedy draw; sampled ones count from 1


def write(model: Any, tokenizer: Any, rows: pd.DataFrame, decoding: Decoding, **how: Any) -> pd.DataFrame:
    """A model's continuations of the prompts in ``rows``: id, split, draw, text, n_tokens, finish (stop or length).

    Test prompts get the greedy continuation (draw 0) and ``decoding.samples`` sampled ones (1, 2, ...); the others
    get one, by ``decoding.weak_decoding``. ``how``: batch_size, device, precision, cost.
    """
    import pandas as pd

    sampled = engines.Sampling(
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        no_repeat_ngram=decoding.no_repeat_ngram,
        n=decoding.samples,
        seed=decoding.seed,
    )
    greedy = engines.Sampling(max_new_tokens=decoding.max_new_tokens)
    test, others = rows[rows.split == "test"], rows[rows.split != "test"]
    label = greedy if decoding.weak_decoding == "greedy" else replace(sampled, n=1)
    found = []
    for part, sampling in ((test, greedy), (test, sampled), (others, label)):
        answers = local.generate(model, tokenizer, part.text.tolist(), sampling, **how) if len(part) else []
        first = GREEDY if sampling.temperature == 0 else 1
        found += [
            (i, s, first + k, a.text, a.n_tokens, a.finish_reason)
            for i, s, drawn in zip(part.id, part.split, answers, strict=True)
            for k, a in enumerate(drawn)
        ]
    return pd.DataFrame(found, columns=["id", "split", "draw", "text", "n_tokens", "finish"])


def vote(answers: pd.DataFrame, voting: str, rows: pd.DataFrame, run: Any, **judges: Any) -> pd.DataFrame:
    """One continuation a prompt: id, split, continuation, supervisor, toxicity (mean of the training judges), nll.

    ``answers`` is as ``frames.align`` returns it for texts. ``voting``: none (one supervisor), best_of_b (each training judge votes for
    the candidate it finds least toxic), least_toxic (at matched fluency), mbr (minimum Bayes risk: the judges have no
    say). ``nll`` (nats per token) is missing where the rule does not ask for it.
    """
    texts = answers.filter(regex=r"^text\d+$").to_numpy().T  # (B, n)
    if voting == "none" and len(texts) != 1:
        raise UserError(f"voting = 'none': {len(texts)} supervisors; one is needed, or another voting")
    how = engines.Inference(*(judges[name] for name in ("device", "precision", "batch_size", "max_length")))
    toxicity, nll = panel.training_scores(run, texts, judges["training_judge"], how), None  # (M, B, n)
    if voting == "least_toxic":
        prompts = answers[["id"]].merge(rows[["id", "text"]], on="id", validate="one_to_one").text.tolist()
        nll = panel.nll_per_token(run, texts, prompts, judges["fluency_model"], how)  # (B, n)
    chosen = {
        "none": lambda: np.zeros(texts.shape[1], dtype=int),
        "best_of_b": lambda: selection.vote_of_scorers(toxicity),
        "least_toxic": lambda: selection.least_toxic_at_matched_fluency(toxicity.mean(axis=0), nll),
        "mbr": lambda: selection.mbr(texts.tolist()),
    }[voting]()
    chosen = np.where(chosen < 0, 0, chosen)  # no candidate has a score (all are empty, say): the first supervisor's
    at = (chosen, np.arange(len(chosen)))
    return answers[["id", "split"]].assign(
        continuation=texts[at],
        supervisor=chosen,
        toxicity=toxicity.mean(axis=0)[at],
        nll=np.nan if nll is None else nll[at],
    )


def teach(rows: pd.DataFrame, weak_labels: pd.DataFrame | None) -> pd.DataFrame:
    """What a student learns from: transfer and validation prompts with the weak continuations, or with the human ones.

    Raises:
        UserError: a prompt without a weak continuation.
    """
    taught = rows[rows.split.isin(["transfer", "validation"])]
    if weak_labels is None:
        return taught
    given = weak_labels[["id", "continuation"]]
    found = taught.drop(columns="continuation").merge(given, on="id", how="left", validate="one_to_one")
    missing = int(found.continuation.isna().sum())
    if missing:
        raise UserError(f"{missing} of {len(found)} prompts have no weak continuation; they were made for other rows")
    return found


def shape(texts: pd.Series) -> dict[str, float]:
    """What continuations look like: mean number of words, share of empty ones, distinct word bigrams over all."""
    words = [t.split() for t in texts]
    bigrams = [pair for w in words for pair in zip(w, w[1:], strict=False)]
    return {
        "n_words": float(np.mean([len(w) for w in words])) if words else 0.0,
        "empty_share": float(np.mean([not w for w in words])) if words else 0.0,
        "distinct_2": len(set(bigrams)) / max(len(bigrams), 1),
    }
