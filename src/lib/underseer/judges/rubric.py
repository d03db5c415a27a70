"""A language model as a judge: it grades an exchange from 1 to 5 by a rubric and replies with JSON.

The texts (``prompts.rubric``) ask for a reason before the score, and are part of what decides a verdict: they carry a
version and stand in the cache's key. A reply that holds no verdict is answered with a message that says what is missing, up
to ``max_replies`` in all; then the exchange has no score, with the reason (``NO_VERDICT``). So has one whose call failed
(``CALL``). Reasons that the judge writes are not kept: they quote what they judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from underseer.engines import Sampling
from underseer.errors import UserError
from underseer.judges import writing
from underseer.judges.base import Exchange, Opening, Reply
from underseer.judges.spec import OF_EXCHANGES, JudgeSpec, Kind, Writing, register
from underseer.judges.writing import NO_VERDICT, WritingJudge
from underseer.models import chats
from underseer.prompts.rubric import CRITERIA, REPAIR, TEMPLATE, VERSION

GRADES = (1, 2, 3, 4, 5)
MAX_NEW_TOKENS = 160
"""Tokens of a reply: 25 words of reason and the JSON around them are some 60 in English, and twice that in other scripts. A
model that cannot be kept from thinking before it writes needs more: the option ``tokens``."""
QUOTED = 500  # characters of a reply without verdict that are shown to the model again
READ = 8000  # characters of a reply, its last, in which a verdict is looked for


@dataclass(frozen=True)
class Texts:
    """What a rubric judge is asked with: the meaning of the grades, the question around an exchange, and what follows a reply
    without a verdict. ``max_replies``: those it may give before an exchange goes without a score; ``max_new_tokens``: the
    length of each."""

    criteria: str
    template: str = TEMPLATE
    repair: str = REPAIR
    max_replies: int = 3
    max_new_tokens: int = MAX_NEW_TOKENS

    def question(self, prompt: str, answer: str) -> str:
        """What the judge is asked about an exchange. Marks that the texts spell are broken up, so that none ends early."""
        plain = [
            re.sub(r"<(\s*/?\s*(?:request|answer)\b)", r"< \1", text, flags=re.IGNORECASE) for text in (prompt, answer)
        ]
        return self.template.format(criteria=self.criteria, prompt=plain[0], answer=plain[1])

    def chat(self, prompt: str, answer: str) -> chats.Chat:
        """The question as a chat."""
        return chats.with_arguments(chats.ask(self.question(prompt, answer)), chats.NO_THOUGHTS)


def texts_of(measure: str) -> Texts:
    """The texts that a rubric judge of a measure comes with."""
    return Texts(CRITERIA[measure])


class RubricJudge(WritingJudge):
    """A language model that grades by ``opening.texts``, or by the texts that come with the measure."""

    def __init__(self, spec: JudgeSpec, measure: str, opening: Opening) -> None:
        self.texts: Texts = opening.texts or texts_of(measure)
        if tokens := _tokens(spec):
            self.texts = replace(self.texts, max_new_tokens=tokens)
        sampling = Sampling(max_new_tokens=self.texts.max_new_tokens)  # greedy
        super().__init__(
            spec, measure, opening, written=VERSION, settings=f"{VERSION}\x1f{self.texts}", sampling=sampling
        )

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The grades of a batch of exchanges; those without a verdict are asked again together."""
        talks, shortened = self.chats(exchanges, self.texts.chat)
        replies: list[Reply] = [Reply(NO_VERDICT)] * len(talks)
        waiting = list(range(len(talks)))
        for _ in range(self.texts.max_replies):
            written = self._caller.generate([talks[i] for i in waiting], self._sampling)
            again = []
            for i, text in zip(waiting, written, strict=True):
                if isinstance(text, Reply):
                    replies[i] = text
                    continue
                verdict = grade(text)
                value = verdict if isinstance(verdict, str) else (verdict - 1) / (len(GRADES) - 1)
                replies[i] = Reply(value, cut=shortened[i])
                if isinstance(verdict, str):
                    again.append(i)
                    quoted = text.strip()[:QUOTED] or "(nothing)"
                    talks[i] = [*talks[i][:1], {"role": "assistant", "content": quoted}, *chats.ask(self.texts.repair)]
            waiting = again
        return replies


def grade(text: str) -> int | str:
    """The grade of a reply, or why it holds none: exactly one grade must stand in its JSON objects."""
    scores = [given["score"] for given in _objects(text[-READ:]) if "score" in given]
    if not scores:
        return f"{NO_VERDICT}: no JSON object with a score"
    grades = {_whole(value) for value in scores}
    if len(grades) > 1:
        return f"{NO_VERDICT}: several scores"
    (value,) = grades
    return value if value in GRADES else f"{NO_VERDICT}: the score is not one of 1, 2, 3, 4, 5"


def _objects(text: str) -> list[dict[str, Any]]:
    """JSON objects in a text, whatever stands around them."""
    decoder, objects, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            objects.append(value)
        at = text.find("{", end)
    return objects


def _whole(value: Any) -> int | None:
    """A grade given as 4, 4.0 or "4"."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d\s*", value):
        return int(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and value == value and abs(value) < 100 and value == int(value) else None


def _tokens(judge: JudgeSpec) -> int | None:
    """The option ``tokens``. Raises UserError."""
    given = judge.option("tokens")
    if given is not None and not re.fullmatch(r"[1-9]\d{0,5}", given):
        raise UserError(
            f"judge {str(judge)!r}: tokens = {given!r} is no number of tokens; give for example tokens={MAX_NEW_TOKENS}"
        )
    return given and int(given)


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Raise UserError for an option that is no number, and where the model is, on this machine, no chat model."""
    _tokens(judge)
    return writing.check(judge, measure, parameters)


register(
    Kind(
        "rubric",
        "rubric:MODEL[?tokens=N] (a language model that grades from 1 to 5, in replies of at most N tokens)",
        OF_EXCHANGES,
        RubricJudge,
        check,
        models=("hub", "folder", "testbed"),
        options={"tokens": None},
        writing=(
            Writing(
                asks=tuple(texts_of(measure).chat for measure in CRITERIA),
                examples=(
                    ('{"reason": "a rehearsal", "score": 2}',),
                    ('{"reason": "a rehearsal", "score": 4}',),
                ),
            ),
        ),
    )
)
