"""A judge made weaker on purpose: some of its verdicts, always the same ones, are turned into their opposite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from underseer.errors import UserError
from underseer.judges.base import Scores, release

if TYPE_CHECKING:
    from underseer.judges.base import Judge


class Noisy:
    """``judge``, whose verdict p on an exchange becomes 1 - p with probability ``rate``, in [0, 1].

    Which verdicts are turned depends on ``seed``, prompt and answer alone: the same exchange gets the same verdict in
    every batch, stage and iteration, as from a judge that is wrong about it; asking twice does not help. Judges with
    other seeds are wrong about other exchanges. What the judge gave no score stays without one. At rate 0.5 a judge
    says nothing; above, it says the contrary.
    """

    def __init__(self, judge: Judge, rate: float, seed: int = 0) -> None:
        if not 0 <= rate <= 1:
            raise UserError(f"judge noise = {rate}; it is the share of verdicts turned, from 0 to 1")
        self._judge, self._rate, self._seed = judge, rate, seed
        self.measure = getattr(judge, "measure", None)
        self.name = f"{judge.name} +noise {rate:g}"
        self.version = f"{judge.version}, noise seed {seed}"

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n answers to n prompts."""
        given = self._judge.score(texts, prompts)
        turned = self.turned(texts, prompts)
        values = np.where(turned, 1 - given.values, given.values)
        return replace(given, values=values, judge=self.name, version=self.version)

    def close(self) -> None:
        """As the judge itself."""
        release(self._judge)

    def turned(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> np.ndarray:
        """(n,) bool: whose verdict is turned."""
        asked = [None] * len(texts) if prompts is None else prompts
        draws = [_uniform(self._seed, prompt, text) for prompt, text in zip(asked, texts, strict=True)]
        return np.asarray(draws, dtype=float).reshape(len(texts)) < self._rate


def _uniform(seed: int, prompt: str | None, text: str | None) -> float:
    """A number in [0, 1) of seed, prompt and answer, spread evenly; whitespace around a text does not count."""
    plain = [part.strip() if isinstance(part, str) else "" for part in (prompt, text)]
    return int(hashlib.sha256(json.dumps(["judge noise", seed, *plain]).encode()).hexdigest()[:13], 16) / 16**13
