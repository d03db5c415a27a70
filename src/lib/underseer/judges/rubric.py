"""A language model as a judge: it grades an exchange from 1 to 5 by a rubric and replies with JSON.

The prompt (``prompts.rubric``) asks for a reason before the score, and is part of what decides a verdict: it carries a version
and its text is in the cache's key. A reply that holds no verdict is answered with a message that says what is missing, up to
``max_replies`` in all; then the exchange has no score, with the reason (``NO_VERDICT``). So has one whose call failed
(``calls.CALL``). Reasons that the judge writes are not kept: they quote what they judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from underseer.engines import Sampling
from underseer.judges.base import Exchange, Reply
from underseer.judges.calls import EngineJudge, shortened
from underseer.models import chats
from underseer.prompts.rubric import CRITERIA, REPAIR, TEMPLATE, VERSION

NO_VERDICT = "no verdict"
GRADES = (1, 2, 3, 4, 5)
MAX_NEW_TOKENS = 160
QUOTED = 500  # characters of a reply without verdict that are shown to the model again
READ = 8000  # characters of a reply, its last, in which a verdict is looked for


class RubricJudge(EngineJudge):
    """A language model on an engine. ``max_replies``: those it may give before an exchange goes without a score;
    ``max_new_tokens``: the length of each (one that thinks before it writes needs more)."""

    def __init__(
        self,
        open_engine: Callable[[], Any],
        *,
        measure: str,
        identity: str,
        max_replies: int = 3,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_length: int = 512,
        **how: Any,
    ) -> None:
        self._sampling = Sampling(max_new_tokens=max_new_tokens)  # greedy
        settings = str((self._sampling, max_replies, max_length))
        asked = "\x1f".join((VERSION, TEMPLATE, CRITERIA[measure], REPAIR, settings))
        named = f"rubric\x1f{identity}\x1f{asked}"
        super().__init__(open_engine, measure=measure, identity=named, max_length=max_length, **how)
        self._max_replies = max_replies

    def ask(self, exchanges: list[Exchange]) -> list[Reply]:
        """The grades of a batch of exchanges; those without a verdict are asked again together."""
        talks = [chats.ask(question(self.measure, *shortened(e, self._max_length))) for e in exchanges]
        replies: list[Reply] = [Reply(NO_VERDICT)] * len(talks)
        waiting = list(range(len(talks)))
        for _ in range(self._max_replies):
            if not waiting:
                break
            said = self._caller.generate([talks[i] for i in waiting], self._sampling)
            again = []
            for i, text in zip(waiting, said, strict=True):
                if isinstance(text, Reply):
                    replies[i] = text
                    continue
                verdict = grade(text)
                replies[i] = Reply(verdict if isinstance(verdict, str) else (verdict - 1) / (len(GRADES) - 1))
                if isinstance(verdict, str):
                    again.append(i)
                    quoted = text.strip()[:QUOTED] or "(nothing)"
                    talks[i] = [*talks[i][:1], {"role": "assistant", "content": quoted}, *chats.ask(REPAIR)]
            waiting = again
        return replies


def question(measure: str, prompt: str, answer: str) -> str:
    """What the judge is asked about an exchange. Marks that the texts spell are broken up, so that none ends early."""
    plain = [
        re.sub(r"<(\s*/?\s*(?:request|answer)\b)", r"< \1", text, flags=re.IGNORECASE) for text in (prompt, answer)
    ]
    return TEMPLATE.format(criteria=CRITERIA[measure], prompt=plain[0], answer=plain[1])


def grade(text: str) -> int | str:
    """The grade of a reply, or why it holds none: exactly one grade must stand in its JSON objects."""
    found = [given["score"] for given in _objects(text[-READ:]) if "score" in given]
    if not found:
        return f"{NO_VERDICT}: no JSON object with a score"
    grades = {_whole(value) for value in found}
    if len(grades) > 1:
        return f"{NO_VERDICT}: several scores"
    (value,) = grades
    return value if value in GRADES else f"{NO_VERDICT}: the score is not one of 1, 2, 3, 4, 5"


def _objects(text: str) -> list[dict[str, Any]]:
    """JSON objects in a text, whatever stands around them."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _whole(value: Any) -> int | None:
    """A grade given as 4, 4.0 or "4"."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d\s*", value):
        return int(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and value == value and abs(value) < 100 and value == int(value) else None
