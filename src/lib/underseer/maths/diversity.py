"""How much texts repeat each other, as a pure function of the texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Grams = list[Counter[tuple[str, ...]]]


def self_bleu(texts: Sequence[str], n: int = 4, sample: int = 200, seed: int = 0) -> float:
    """Mean BLEU-n of each text against all others as references, in [0, 1]; lower is more diverse.

    After Zhu et al. 2018 (Texygen, section 3.2); words are split at white space, lower-cased. Clipped n-gram precisions are
    smoothed by adding one to both counts above unigrams (Lin and Och 2004), and the brevity penalty takes the reference
    closest in length. Of more than `sample` texts a sample is drawn: the value rises with their number, so compare like
    numbers. NaN for fewer than two texts that hold a word.
    """
    words = [w for t in texts if (w := t.lower().split())]
    if len(words) < 2:
        return math.nan
    if len(words) > sample:
        chosen = np.random.default_rng(seed).choice(len(words), sample, replace=False)
        words = [words[k] for k in sorted(chosen)]
    grams = [[Counter(zip(*(w[j:] for j in range(k)), strict=False)) for k in range(1, n + 1)] for w in words]
    highest = [_two_highest([g[k] for g in grams]) for k in range(n)]
    lengths = np.array([len(w) for w in words])
    return float(np.mean([_bleu(grams[k], highest, lengths, k) for k in range(len(words))]))


def _two_highest(counts: Sequence[Counter]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Of each n-gram the two highest counts in any text: what the others hold, whichever text is taken out."""
    highest: dict[tuple[str, ...], tuple[int, int]] = {}
    for counter in counts:
        for gram, count in counter.items():
            first, second = highest.get(gram, (0, 0))
            highest[gram] = (count, first) if count > first else (first, max(second, count))
    return highest


def _bleu(own: Grams, highest: Sequence[dict], lengths: np.ndarray, place: int) -> float:
    """BLEU of one text against all others."""
    precision = 0.0
    for k, counter in enumerate(own):
        total, shared = sum(counter.values()), 0
        for gram, count in counter.items():
            first, second = highest[k][gram]
            shared += min(count, second if count == first else first)
        smooth = int(k > 0)
        if not shared + smooth:
            return 0.0
        precision += math.log((shared + smooth) / (total + smooth)) / len(own)
    others = np.delete(lengths, place)
    reference = others[np.lexsort((others, np.abs(others - lengths[place])))[0]]
    return math.exp(precision + min(0.0, 1 - reference / lengths[place]))
