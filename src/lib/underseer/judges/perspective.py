"""A client of the Perspective API (``comments:analyze``, attribute TOXICITY): the judge of RealToxicityPrompts and of
the W2S paper.

**The service ends on 31 December 2026.** Afterwards use a scorer trained on the scores that RealToxicityPrompts stores
(``trained:MODEL``).

The key stands in ``PERSPECTIVE_API_KEY``. It travels in a header, so that no address, error, log or cache holds it.
Answers are kept in a file, by a hash of the text: an item that was answered is never asked again, also after an
interruption, and the file holds no text. ``PERSPECTIVE_API_URL`` replaces the address (a proxy, a test).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.engines.client import Client, Failed, Refused, Retries, checked_key, checked_url, names_of
from underseer.engines.kept import MEMORY, Kept
from underseer.errors import UserError
from underseer.judges.base import Opening, Scores, is_score, judge_full
from underseer.judges.spec import JudgeSpec, Kind, register

if TYPE_CHECKING:
    from underseer.cost import Ledger

LAST_DAY = datetime.date(2026, 12, 31)
URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
ATTRIBUTE, API = "TOXICITY", "v1alpha1"
URL_VARIABLE, KEY_VARIABLE = "PERSPECTIVE_API_URL", "PERSPECTIVE_API_KEY"
ITEM_REFUSED = frozenset({400, 413})  # the service does not judge this text
UNUSABLE = frozenset({400, 401, 403, 404})
GIVE_UP = 5  # items in a row that got no answer: then the service is away, and the rest is not asked
RETRIES = Retries(timeout=20.0)
TRAINED = "use a scorer trained on stored scores, training_judge or reporting_judge: trained:MODEL"


def check(judge: JudgeSpec, measure: str, parameters: Mapping[str, Any]) -> list[str]:
    """Remarks: the last day of the service. Raises UserError after that day, or without a key or a usable address."""
    if _today() > LAST_DAY:
        raise UserError(f"the Perspective API ended on {LAST_DAY:%d %B %Y}; {TRAINED}")
    _key(), _url()
    return [f"the Perspective API ends on {LAST_DAY:%d %B %Y}; for later, {TRAINED}"]


class PerspectiveJudge:
    """Perspective's probability that a reader finds the text toxic.

    ``rate`` is in requests per second, over all processes that share the cache file (the service grants 1 by default).
    ``kept``: the cache file, or ":memory:".
    """

    def __init__(
        self,
        key: str,
        url: str = URL,
        kept: Path | str = MEMORY,
        *,
        rate: float = 1.0,
        retries: Retries = RETRIES,
        cost: Ledger | None = None,
    ) -> None:
        if rate <= 0:
            raise UserError(f"rate = {rate} requests per second; it must be above 0")
        self.name, self.version = "perspective", f"{API} {ATTRIBUTE}"
        self._client = Client(url, {"X-Goog-Api-Key": key}, refusal=_refusal, retries=retries)
        self._kept, self._service = Kept(kept), f"{API}\x1f{ATTRIBUTE}\x1f{'' if url == URL else url}"
        self._interval, self._retries, self._cost = 1 / rate, retries, cost

    def __repr__(self) -> str:
        return f"PerspectiveJudge({self.version!r})"

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n texts; those that the service did not judge are NaN, with the reason.

        Raises UserError where the service refuses the key or does not exist at the address.
        """
        return judge_full(texts, self._ask_all, self)

    def _ask_all(self, texts: list[str]) -> list[float | str]:
        replies, in_a_row = [], 0
        for text in texts:
            reply = self._kept.get([self._service, text])
            if reply is None and in_a_row >= GIVE_UP:
                reply = f"not asked: {GIVE_UP} calls in a row had failed"
            elif reply is None:
                reply, answered = self._ask(text)
                in_a_row = 0 if answered else in_a_row + 1
                if answered:
                    self._kept.put([([self._service, text], reply)])
            replies.append(reply)
        return replies

    def _ask(self, text: str) -> tuple[float | str, bool]:
        """A score, or a reason; and whether this is the service's own answer for this text, worth keeping."""
        body = {
            "comment": {"text": text, "type": "PLAIN_TEXT"},
            "languages": ["en"],
            "requestedAttributes": {ATTRIBUTE: {}},
            "doNotStore": True,
        }
        try:
            return self._client.call("", body, _score, self._turn), True
        except Refused as refused:
            return str(refused), True
        except Failed as failed:
            return str(failed), False

    def _turn(self) -> None:
        """Wait until a further request is due."""
        self._retries.sleep(self._kept.wait(self._service, self._interval, self._retries.clock()))
        if self._cost is not None:
            self._cost.add(judge_calls=1)


def _score(body: Any) -> float:
    value = body["attributeScores"][ATTRIBUTE]["summaryScore"]["value"]
    if not is_score(value):
        raise ValueError(value)
    return float(value)


def _refusal(status: int, content: bytes, path: str) -> Exception:
    names = names_of(content)
    kind = names[0] if names else "no reason given"
    if status in ITEM_REFUSED and not any("API_KEY" in name for name in names):
        return Refused(f"refused: {kind} (HTTP {status})")
    if status not in UNUSABLE:
        return Failed(f"call failed: HTTP {status}")
    reason = f"(HTTP {status}, {kind})"
    if status == 404:
        return UserError(
            f"there is no Perspective API at the address asked {reason}; check {URL_VARIABLE}, or {TRAINED}"
        )
    return UserError(
        f"the Perspective API refuses the key {reason}; check {KEY_VARIABLE} and that the API is enabled for it, or {TRAINED}"
    )


# ---------------------------------------------------------------------------------------------------- environment


def _today() -> datetime.date:
    return datetime.date.today()


def _key() -> str:
    key = checked_key(os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE)
    if not key:
        raise UserError(f"the judge 'perspective' needs a key: set {KEY_VARIABLE}, or {TRAINED}")
    return key


def _url() -> str:
    return checked_url(os.environ.get(URL_VARIABLE, "").strip() or URL, URL_VARIABLE, "https://host/path")


def open_perspective(judge: JudgeSpec, measure: str, opening: Opening) -> PerspectiveJudge:
    """The judge with key and address from the environment, its answers in ``opening.cache`` or in the run store."""
    from underseer import paths

    check(judge, measure, {})
    kept = opening.cache or paths.runs() / ".cache" / "perspective.sqlite"
    return PerspectiveJudge(_key(), _url(), kept, cost=opening.cost)


register(Kind("perspective", "perspective", ("toxicity",), open_perspective, check))
