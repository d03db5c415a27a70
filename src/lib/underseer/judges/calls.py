"""Calls of an engine that may fail: a call that fails is typed and counted, and the others go on."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from underseer.errors import EngineEnded, StageError
from underseer.judges.asking import ExchangeJudge
from underseer.judges.base import Exchange, Reply, Scores

if TYPE_CHECKING:
    import numpy as np

    from underseer.cost import Ledger
    from underseer.engines import Answer, Engine, Sampling
    from underseer.models.chats import Chat

CALL = "call failed"
GIVE_UP = 5  # calls in a row that failed: then the engine is away, and the rest is not asked
FAILURES = (OSError, http.client.HTTPException)  # time-outs and lost connections; other errors are mistakes, and rise
CHARACTERS = 3  # a token, at least: English has about four


class EngineJudge(ExchangeJudge):
    """A judge on an engine, which is opened when an exchange has to be judged that has no verdict yet.

    ``max_length`` is in tokens, at three characters each: longer exchanges are judged by their beginnings.
    """

    def __init__(self, open_engine: Callable[[], Engine], *, max_length: int = 512, **how: Any) -> None:
        super().__init__(**how)
        self._max_length, self._caller = max_length, Caller(open_engine, self.cost)

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n answers to n prompts; one that is empty, or that the judge gave no score, is NaN."""
        self._caller.in_a_row = 0
        return super().score(texts, prompts)

    def close(self) -> None:
        """Give back the engine's memory; it is opened anew if it is needed again."""
        self._caller.close()


class Caller:
    """An engine, opened when it is first needed. A batch that fails is asked anew one by one, so that one item that
    cannot be answered fails alone."""

    def __init__(self, open_engine: Callable[[], Engine], cost: Ledger | None) -> None:
        self._open, self._cost, self.in_a_row = open_engine, cost, 0

    @cached_property
    def engine(self) -> Engine:
        return self._open()

    def close(self) -> None:
        if "engine" in self.__dict__:
            self.__dict__.pop("engine").close()

    def generate(self, talks: Sequence[Chat], sampling: Sampling) -> list[str | Reply]:
        """The engine's text for each chat, or a failure."""

        def ask(some: list[Chat]) -> list[str | Reply]:
            if self._cost is not None:
                self._cost.add(judge_calls=len(some))
            return [_said(answer) for (answer,) in self.engine.generate(some, sampling)]

        return self._call(list(talks), ask)

    def score(self, talks: Sequence[Chat], texts: Sequence[str]) -> list[float | Reply]:
        """The log-probability (nats) of each text as the reply to its chat, or a failure."""

        def ask(some: list[tuple[Chat, str]]) -> Sequence[float]:
            try:
                sums: np.ndarray = self.engine.score([t for _, t in some], contexts=[c for c, _ in some])[0]
            except EngineEnded:
                raise
            except StageError as error:  # an engine's sums have no gaps: it raises where a single text has none
                raise NoScore(str(error)) from error
            return sums.tolist()

        return self._call(list(zip(talks, texts, strict=True)), ask)

    def _call(self, items: list[Any], ask: Callable[[list[Any]], Sequence[Any]]) -> list[Any]:
        if not items:
            return []
        if self.in_a_row >= GIVE_UP:
            return [Reply(f"not asked: {GIVE_UP} calls in a row had failed", keep=False)] * len(items)
        try:
            said = list(ask(items))
        except FAILURES as error:
            if len(items) > 1:
                return [said for item in items for said in self._call([item], ask)]
            self.in_a_row += 1
            kind = "time-out" if isinstance(error, TimeoutError) else type(error).__name__
            return [Reply(f"{CALL}: {kind}", keep=False)]
        self.in_a_row = 0
        return said


class NoScore(OSError):
    """An engine could not score a text."""


def _said(answer: Answer) -> str | Reply:
    failure = getattr(answer, "failure", None)  # of an engine that calls a server
    return answer.text if failure is None else Reply(failure, keep=False)


def shortened(exchange: Exchange, max_length: int) -> Exchange:
    """An exchange of at most ``max_length`` tokens, at ``CHARACTERS`` each: the longer text is cut at its end first."""
    from underseer.models.batches import shares

    prompt, answer = exchange
    n, m = shares(len(prompt), len(answer), CHARACTERS * max_length)
    return prompt[:n], answer[:m]
