"""HTTP calls to a service that may be busy, broken or silent: bounded in tries, time and size.

The key travels in a header alone; no message, log or file holds it, and no redirection carries it elsewhere.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from underseer.errors import UserError

if TYPE_CHECKING:
    from tenacity import RetryCallState

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 120.0  # seconds before a further try, whatever the service asks for
LARGEST_REPLY = 1 << 26  # bytes
TRIES_IN_SILENCE = 2  # a service that hangs is not waited for longer
SILENT = "time-out"
GARBAGE = "the reply is not what was asked for"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Failed(Exception):
    """One call that got no usable reply; the message is the reason."""

    at_work = False  # the service works, and it is this item that it does not answer


class Refused(Failed):
    """A working service does not answer this item, by its content filter for example."""

    at_work = True


class Doubted(Refused):
    """The same, by a status that says no more: where it comes for every item, the request itself is wrong."""


class Withheld(ValueError):
    """A working service's reply without an answer in it."""


class Unusable(Failed):
    """A try that may go better another time. ``wait``: seconds that the service asks for."""

    def __init__(self, reason: str, wait: float | None = None, at_work: bool = False) -> None:
        super().__init__(f"call failed: {reason}")
        self.reason, self.wait, self.at_work = reason, wait, at_work


@dataclass(frozen=True)
class Retries:
    """How often a call is tried and how long it is waited for.

    Each try may take ``timeout`` seconds in all. Waits between tries begin at ``backoff`` seconds (and up to a quarter
    more, by chance) and double, or are what the service asks for. ``sleep`` and ``clock`` are replaced in tests.
    """

    tries: int = 5
    backoff: float = 1.0
    timeout: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time


Refusal = Callable[[int, bytes, str], Exception]
"""What to raise for a status that is not tried again, the reply's content, and the path that was asked."""


class Client:
    """A service's API at ``url``. Threads may share a client. ``refusal`` says what a status that is no success means."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        refusal: Refusal,
        retries: Retries = Retries(),
        connections: int = 16,
    ) -> None:
        import httpx

        self.url, self._retries, self._refusal = url, retries, refusal
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(retries.timeout, connect=min(retries.timeout, 10.0)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # a proxy is for other machines
        )
        self.stopped = threading.Event()  # set: calls end at their next try

    def call(
        self,
        path: str,
        body: Any = None,
        read: Callable[[Any], Any] = lambda reply: None,
        before: Callable[[], None] = lambda: None,
    ) -> Any:
        """What ``read`` makes of the JSON reply to a POST of ``body`` (None: a GET). ``before`` is called before each try.

        ``read`` raises ``Refused`` where the service does not answer this item, and a ValueError, KeyError, TypeError or
        the like for a reply that is not what was asked for.

        Raises:
            Failed: no usable reply after all tries, or the service refuses this item.
            Exception: what ``refusal`` makes of a status that is not tried again.
        """
        from tenacity import Retrying, retry_if_exception_type

        def attempt() -> Any:
            if self.stopped.is_set():
                raise Failed("not asked: the calls before it had failed")
            before()
            return self._read(*self._once(path, body), path, read)

        retrying = Retrying(
            retry=retry_if_exception_type(Unusable),
            stop=_Stop(self._retries.tries),
            wait=self._wait,
            sleep=self._retries.sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        asked = state.outcome.exception().wait
        own = self._retries.backoff * 2 ** (state.attempt_number - 1) * random.uniform(1, 1.25)
        return min(own if asked is None else asked, LONGEST_WAIT)

    def _read(self, status: int, content: bytes, asked: float | None, path: str, read: Callable[[Any], Any]) -> Any:
        if status in RETRIED:
            raise Unusable(f"HTTP {status}", asked)
        if status != 200:
            raise self._refusal(status, content, path)
        try:
            return read(json.loads(content))
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
            raise Unusable(GARBAGE, at_work=isinstance(error, Withheld)) from error

    def calls(
        self, items: Iterable[Any], call: Callable[[Any], Any], concurrency: int
    ) -> Generator[tuple[Any, Any], None, None]:
        """Each item with the outcome of its ``call``, a value or a ``Failed``, as they come; so many at a time.

        Setting ``stopped`` ends it: no further call begins, and those under way still come. Closing the generator, or an
        error, ends it without them.
        """
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="calls")
        rest, running = iter(items), {}
        try:
            while True:
                while len(running) < 2 * concurrency and not self.stopped.is_set():
                    try:
                        item = next(rest)
                    except StopIteration:
                        break
                    running[pool.submit(_outcome, call, item)] = item
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            self.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self.stopped.clear()

    def _once(self, path: str, body: Any) -> tuple[int, bytes, float | None]:
        """Status, content, and the seconds that the service asks to wait. Raises Unusable where no reply comes."""
        import httpx

        end = time.monotonic() + self._retries.timeout
        sent: dict[str, Any] = {}
        if body is not None:  # in ASCII, as a text may hold halves of characters
            sent = {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}
        try:
            with self._http.stream("POST" if sent else "GET", self.url + path, **sent) as reply:
                content = b""
                for chunk in reply.iter_bytes():
                    content += chunk
                    if time.monotonic() > end:  # a service that trickles never runs into a read time-out
                        raise Unusable(SILENT)
                    if len(content) > LARGEST_REPLY:
                        raise Unusable("reply too large")
                return reply.status_code, content, self._asked_wait(reply.headers.get("Retry-After"))
        except httpx.TimeoutException as error:
            raise Unusable(SILENT) from error
        except httpx.ConnectError as error:
            raise Unusable("no connection") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise Unusable(type(error).__name__) from error

    def _asked_wait(self, header: str | None) -> float | None:
        """Seconds of a Retry-After header: a number, or a date; None for anything else."""
        header = (header or "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", header):
            return float(header)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - self._retries.clock())
        except (ValueError, OverflowError):
            return None

    def close(self) -> None:
        self._http.close()


class _Stop:
    """tenacity's question whether to stop: after so many tries, or when the service was silent too often."""

    def __init__(self, tries: int) -> None:
        self._tries, self._silent = tries, 0

    def __call__(self, state: RetryCallState) -> bool:
        self._silent += state.outcome.exception().reason == SILENT
        return state.attempt_number >= self._tries or self._silent >= TRIES_IN_SILENCE


def _outcome(call: Callable[[Any], Any], item: Any) -> Any:
    try:
        return call(item)
    except Failed as failed:
        return failed


# ---------------------------------------------------------------------------------------------------- addresses, keys


def checked_url(url: str, variable: str, example: str) -> str:
    """An address without user, key or query. Raises UserError, which does not show the address: it may hold a key."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError(f"the address is not as {example}, without user, key or query; correct or unset {variable}")
    return url


def checked_key(key: str, variable: str) -> str:
    """A key without the white space around it. Raises UserError for what cannot be one."""
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"{variable} holds characters that no key has; copy it again, on one line")
    return key


def names_of(content: bytes) -> list[str]:
    """A service's own short names of an error, the most telling first. Its prose may repeat what was sent, and is left out."""
    try:
        return names_in(json.loads(content))
    except (ValueError, RecursionError):
        return []


def names_in(reply: Any) -> list[str]:
    """The same, of a parsed reply."""
    try:
        reply = reply[0] if isinstance(reply, list) else reply
        error = reply.get("error", reply)
        inner = error.get("innererror") or {}
        details = [d.get(key) for d in error.get("details") or () for key in ("errorType", "reason")]
        flagged = ["moderation"] if (error.get("metadata") or {}).get("reasons") else []
        names = [inner.get("code"), *details, *flagged, error.get("code"), error.get("type"), error.get("status")]
    except (LookupError, AttributeError, TypeError):
        return []
    return [n for n in names if isinstance(n, str) and re.fullmatch(r"[A-Za-z][\w.-]{2,60}|\d{4,6}", n)]
