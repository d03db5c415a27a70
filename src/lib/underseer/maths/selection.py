"""Which of B candidates to take as the weak label of a prompt, where the label is a text and cannot be averaged.

A rule is a pure function that returns the index (n,) of the chosen candidate of each prompt, -1 where none can be
chosen. It takes any of three things, by the parameter's name: ``texts``, the candidates, B lists of n; ``toxicity``
(M, B, n), the scores of M judges in [0, 1], lower is better, NaN where a judge could not give one; ``nll`` (B, n), the mean
negative log-likelihood per token in nats, under a model of fluency. All ties end at the lowest index, so that equal
candidates give the same choice every time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from underseer.errors import UserError

_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIGITS = 12  # kept before sums are compared: the same numbers in another order differ in the last digit


def single(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The continuations of one supervisor. Raises UserError for several."""
    if len(texts) != 1:
        raise UserError(f"voting = 'none': {len(texts)} supervisors; one is needed, or another voting")
    return np.zeros(len(texts[0]), dtype=np.int64)


def best_of_b(toxicity: np.ndarray) -> np.ndarray:
    """Each judge votes for its least toxic candidate; the most votes win (a plurality vote).

    A tie of votes goes to the lowest mean score, then to the lowest index. A score that is NaN gets no vote and does not
    count in the mean; -1 where no candidate has a score. Raises UserError without judges or candidates.
    """
    scores = _scores(toxicity)
    known = ~np.isnan(scores)
    filled = np.where(known, scores, np.inf)
    favourite = filled.argmin(axis=1)  # (M, n)
    counted = known.any(axis=1)  # (M, n): a scorer without any score does not vote
    candidates = np.arange(scores.shape[1])[:, None, None]
    votes = ((favourite == candidates) & counted).sum(axis=1)  # (B, n)
    number = known.sum(axis=0)
    mean = np.where(number > 0, np.where(known, scores, 0.0).sum(axis=0) / np.maximum(number, 1), np.inf)
    mean = mean.round(_DIGITS)
    most = np.where(votes == votes.max(axis=0), mean, np.inf)
    return np.where(number.any(axis=0), most.argmin(axis=0), -1)


def least_toxic(toxicity: np.ndarray, nll: np.ndarray, quantile: float = 0.5) -> np.ndarray:
    """The least toxic, by the judges' mean, of the candidates that are fluent by their own prompt's measure.

    Fluent is a candidate whose negative log-likelihood per token is at most the ``quantile`` (0.5: the median) over its
    prompt's candidates; one always is. So an answer cannot win by being no language at all. Ties go to the lowest nll,
    then to the lowest index. A candidate that a judge gave no score, or without nll, is left out; -1 where all are.
    Raises UserError without judges or candidates, or for a quantile outside [0, 1].
    """
    toxicity, nll = _scores(toxicity).mean(axis=0), np.asarray(nll, dtype=np.float64)
    if toxicity.shape != nll.shape:
        raise ValueError(f"toxicity and nll are of (candidates, prompts) alike; got {toxicity.shape} and {nll.shape}")
    if not 0 <= quantile <= 1:
        raise UserError(f"quantile = {quantile} is not in [0, 1]; 0.5 is the median")
    chosen = np.full(toxicity.shape[1], -1, dtype=np.int64)
    for i in np.flatnonzero((np.isfinite(toxicity) & np.isfinite(nll)).any(axis=0)):
        there = np.flatnonzero(np.isfinite(toxicity[:, i]) & np.isfinite(nll[:, i]))
        fluent = there[nll[there, i] <= np.quantile(nll[there, i], quantile)]
        chosen[i] = min(fluent, key=lambda b: (toxicity[b, i], nll[b, i], b))
    return chosen


def mbr(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The candidate that agrees most with the others: minimum Bayes risk by samples.

    The risk of a candidate is the mean of 1 - utility against the other B - 1, which stand for the model's distribution
    (Kumar and Byrne 2004; for samples of a neural model Eikema and Aziz 2022). The utility is ``overlap_f1``. Ties go to
    the lowest index. Raises UserError without candidates.
    """
    _check_candidates(len(texts))
    if len({len(each) for each in texts}) != 1:
        raise ValueError(f"candidates are lists of one length; got {[len(each) for each in texts]}")
    chosen = np.zeros(len(texts[0]), dtype=np.int64)
    for i, candidates in enumerate(zip(*texts, strict=True)):
        counts = [grams(text) for text in candidates]
        gain = np.zeros(len(counts))
        for a in range(len(counts)):
            for b in range(a + 1, len(counts)):
                utility = overlap_f1(counts[a], counts[b])
                gain[a] += utility
                gain[b] += utility
        chosen[i] = int(np.argmax(gain.round(_DIGITS)))
    return chosen


def grams(text: str) -> Counter[tuple[str, ...]]:
    """The words and word pairs of a text; case is ignored and punctuation marks are words."""
    words = _TOKEN.findall(text.lower())
    return Counter([(word,) for word in words] + list(zip(words, words[1:], strict=False)))


def overlap_f1(first: Counter[tuple[str, ...]], second: Counter[tuple[str, ...]]) -> float:
    """F1 of the words and word pairs that two texts share, counted with repeats and together, in [0, 1]; 1 for two empty texts."""
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 1.0


def _scores(toxicity: np.ndarray) -> np.ndarray:
    """Scores (judges, candidates, prompts) in float64, at least one of the first two."""
    scores = np.asarray(toxicity, dtype=np.float64)
    if scores.ndim != 3:
        raise ValueError(f"toxicity is of (judges, candidates, prompts); got {scores.shape}")
    if scores.shape[0] == 0:
        raise UserError("a choice by toxicity needs at least one judge; got 0: set judge_members to 1 or more")
    _check_candidates(scores.shape[1])
    return scores


def _check_candidates(number: int) -> None:
    if number == 0:
        raise UserError("a selection needs at least one candidate; got 0: set bootstraps to 1 or more")
