"""The server of the ``openai`` engine: its address, its key, a client of it, and what its refusals mean."""

from __future__ import annotations

import os
import re
from typing import Any

from underseer.engines.client import (
    Client,
    Doubted,
    Failed,
    Refused,
    Retries,
    Unusable,
    checked_key,
    checked_url,
    names_of,
)  # fmt: skip
from underseer.engines.replies import FILTERED
from underseer.errors import UserError

URL_VARIABLE, KEY_VARIABLE = "UNDERSEER_OPENAI_URL", "OPENAI_API_KEY"

OF_AN_ITEM, PERHAPS = (413, 414, 431, 451), (400, 422)
"""Statuses about what was sent: this item's, or perhaps every request's."""
_ACCOUNT = re.compile(r"quota|arrear|billing|balance|credit|payment|api_?key", re.IGNORECASE)


def connect(url: str, key: str | None, retries: Retries, connections: int = 16) -> Client:
    """A client of the server at an address, as http://127.0.0.1:8000/v1."""

    def refusal(status: int, content: bytes, path: str) -> Exception:
        names = names_of(content)
        filtered = next((name for name in names if FILTERED.search(name)), None)
        if filtered:
            return Refused(f"refused: HTTP {status}, {filtered}")
        name = f", {names[0]}" if names else ""
        if status in (401, 403):
            return UserError(f"the server at {url} refuses the key (HTTP {status}); check {KEY_VARIABLE}")
        if status in (404, 405):
            return UserError(f"the server at {url} has no {path}, or not this model (HTTP {status}{name})")
        kind = Refused if status in OF_AN_ITEM else Doubted if status in PERHAPS else Failed
        return (Failed if any(map(_ACCOUNT.search, names)) else kind)(f"refused: HTTP {status}{name}")

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Client(url, headers, refusal=refusal, retries=retries, connections=connections)


class Watch:
    """The outcomes of ``n`` calls as they come. ``ended`` says why the server need not be asked any more, if so: ``limit`` failures
    in a row, or the same doubtful refusal of every item where none of the kind was ever answered (``worked``)."""

    def __init__(self, n: int, limit: int, worked: bool) -> None:
        self._limit, self._most, self._worked = limit, min(n, 5 * limit), worked
        self._silent, self._seen, self._doubts, self.done = 0, 0, set(), 0
        self.ended: str | None = None

    def see(self, result: Any) -> bool:
        """Count an outcome, a value or a ``Failed``; gives whether this one ends it."""
        failed = isinstance(result, Failed)
        self._seen += 1
        self.done += not failed
        self._silent = self._silent + 1 if failed and not result.at_work else 0
        doubted = isinstance(result, (Doubted, Unusable)) and result.at_work
        self._doubts.add(str(result) if doubted else None)
        if self.ended is not None:
            return False
        if self._silent == self._limit:
            self.ended = f"gave no answer {self._limit} times in a row ({result})"
        elif self._limit <= self._seen == self._most and len(self._doubts) == 1 and doubted and not self._worked:
            self.ended = f"answered none of {self._seen} requests ({result}): its log says what it does not take"
        return self.ended is not None


def server_url(option: str | None) -> str:
    """The server's address without a closing slash: the option, or the environment's. Raises UserError."""
    url = (option or os.environ.get(URL_VARIABLE, "")).strip().rstrip("/")
    if not url:
        raise UserError(
            f"engine 'openai' needs the address of a server: set {URL_VARIABLE}, as http://127.0.0.1:8000/v1, "
            "or the option url"
        )
    return checked_url(url, f"{URL_VARIABLE} or the option url", "http://host:port/v1")


def server_key() -> str | None:
    """The key from the environment; None where there is none, as a server of one's own needs none."""
    return checked_key(os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE) or None
