"""Judges that write their verdicts: language models on an engine. A call that fails is typed and counted, and the others go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from underseer.errors import EngineEnded, StageError, UserError
from underseer.judges import cutting
from underseer.judges.asking import ExchangeJudge
from underseer.judges.base import Exchange, Opening, Reply, Scores
from underseer.judges.spec import JudgeSpec, architectures
from underseer.models import specs

if TYPE_CHECKING:
    import numpy as np

    from underseer.cost import Ledger
    from underseer.engines import Answer, Engine, Sampling
    from underseer.models.chats import Chat

CALL, NO_VERDICT = "call failed", "no verdict"
GIVE_UP = 5  # calls in a row that failed: then the engine is away, and the rest is not asked
TEMPLATE_ROOM = 1024  # tokens that what a judge is asked with may take beside the exchange
SERVED = "openai"  # an engine whose models are names on a server, not files


class WritingJudge(ExchangeJudge):
    """A judge on an engine, which is opened when an exchange has to be judged that has no verdict yet.

    ``written`` is the version of what it is asked with, and ``settings`` name all else that decides a verdict beside the
    model. Exchanges of more than ``inference.max_length`` tokens are judged by their beginnings.
    """

    def __init__(
        self, spec: JudgeSpec, measure: str, opening: Opening, *, written: str, settings: str, sampling: Sampling
    ) -> None:
        self._max_length, self._sampling = opening.inference.max_length, sampling
        model, engine = _model_identity(spec, opening), _engine_identity(spec, opening)
        identity = "\x1f".join((spec.kind, model, engine, settings, str(sampling), str(self._max_length)))
        super().__init__(spec.name, f"{model}, {spec.kind} {written}", measure, identity, opening)
        self._caller = Caller(lambda: _opened(spec, opening), self.cost)

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n answers to n prompts; one that is empty, or that the judge gave no score, is NaN."""
        self._caller.in_a_row = 0
        return super().score(texts, prompts)

    def close(self) -> None:
        """Give back the engine's memory; it is opened anew if it is needed again."""
        self._caller.close()

    def chats(self, exchanges: Sequence[Exchange], asks: Callable[[str, str], Chat]) -> tuple[list[Chat], list[bool]]:
        """What is asked about exchanges, each cut to what the model can read; and which were cut (n,)."""
        kept = [self._cut(exchange, asks) for exchange in exchanges]
        return [asks(*exchange) for exchange in kept], [a != b for a, b in zip(kept, exchanges, strict=True)]

    def _cut(self, exchange: Exchange, asks: Callable[[str, str], Chat]) -> Exchange:
        engine = self._caller.engine
        tokenizer = getattr(engine, "tokenizer", None)
        if tokenizer is None:
            return cutting.cut_unread(exchange, self._max_length)
        from underseer.models.chats import check_template, prompt_rows

        check_template(tokenizer, self.name)
        window = getattr(engine, "positions", None)
        return cutting.cut(
            tokenizer,
            exchange,
            texts=self._max_length,
            whole=None if window is None else window - self._sampling.max_new_tokens,
            length=lambda texts: len(prompt_rows(tokenizer, [asks(*texts)])[0]),
        )


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
        """The engine's text for each chat, without what it thought before, or a failure."""

        def ask(some: list[Chat]) -> list[str | Reply]:
            if self._cost is not None:
                self._cost.add(judge_calls=len(some))
            return [_text(answer) for (answer,) in self.engine.generate(some, sampling)]

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
            replies = list(ask(items))
        except OSError as error:  # time-outs and lost connections; other errors are mistakes, and rise
            if len(items) > 1:
                return [reply for item in items for reply in self._call([item], ask)]
            self.in_a_row += 1
            kind = "time-out" if isinstance(error, TimeoutError) else type(error).__name__
            return [Reply(f"{CALL}: {kind}", keep=False)]
        self.in_a_row = 0
        return replies


class NoScore(OSError):
    """An engine could not score a text."""


def _text(answer: Answer) -> str | Reply:
    return without_thoughts(answer.text) if answer.failure is None else Reply(answer.failure, keep=False)


def without_thoughts(text: str) -> str:
    """A reply without what a model thought before it: what follows the last </think>. One that still thinks has none."""
    after = re.split(r"</think(?:ing)?>", text)[-1]
    return re.split(r"<think(?:ing)?>", after)[0] if re.match(r"\s*<think(?:ing)?>", after) else after


# ---------------------------------------------------------------------------------------------------- opening, checks


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Raise UserError where the model is, on this machine, no chat model. Needs no torch."""
    if parameters.get("engine") != SERVED:
        _check_chat_model(judge)
    return []


def _check_chat_model(judge: JudgeSpec) -> None:
    folder = specs.local_folder(judge.model)
    if folder is None:
        return
    named = architectures(specs.configuration(judge.model), judge)
    if named and all("Classification" in name or "MaskedLM" in name for name in named):
        raise UserError(
            f"judge {str(judge)!r} is no language model but {', '.join(named)}; give one that writes, or "
            f"classifier:{judge.model}"
        )
    if not specs.has_chat_template(folder):
        raise UserError(
            f"judge {str(judge)!r}: the model has no chat template, so it cannot be asked; give an instruct model or a guard, "
            "or put the template of its family into its folder as chat_template.jinja"
        )


def _opened(spec: JudgeSpec, opening: Opening) -> Engine:
    if not isinstance(opening.engine, str):
        return opening.engine
    from underseer.engines import open_engine

    return open_engine(
        opening.engine,
        str(spec.model),
        replace(opening.inference, max_length=opening.inference.max_length + TEMPLATE_ROOM),
        base=opening.base,
        cost=opening.cost,
        progress=opening.progress,
        **opening.options,
    )


def _engine_identity(spec: JudgeSpec, opening: Opening) -> str:
    """What of the engine decides verdicts: ``auto`` alone would say nothing of it."""
    if not isinstance(opening.engine, str):
        return f"{opening.engine.name}\x1f{opening.engine.version}"
    from underseer.engines import identity

    if opening.engine != SERVED:
        _check_chat_model(spec)
    return f"{identity(opening.engine, opening.inference.precision)}\x1f{opening.options.get('url', '')}"


def _model_identity(spec: JudgeSpec, opening: Opening) -> str:
    """What says which model this is, by its content where it is at hand."""
    if SERVED in (opening.engine, getattr(opening.engine, "name", None)):
        return f"served:{spec.model}"
    if spec.model.kind == "testbed" and opening.base is not None:
        return specs.fingerprint(specs.ModelSpec("folder", str(opening.base)))
    return specs.fingerprint(spec.model)
