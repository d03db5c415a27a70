"""HTTP calls to a model server that may be busy, broken or silent: bounded in tries, time and size.

The key travels in a header alone; no message, log or file holds it.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

from underseer.errors import EngineEnded, UserError

URL_VARIABLE, KEY_VARIABLE = "UNDERSEER_OPENAI_URL", "OPENAI_API_KEY"
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 60.0  # seconds before a further try, whatever the server asks for
LARGEST_REPLY = 1 << 26  # bytes
TRIES_IN_SILENCE = 2  # a server that hangs is not waited for longer
SILENT = "time-out"
GARBAGE = "the reply is not what was asked for"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Failed(Exception):
    """One call that got no usable reply; the message is the reason."""


class Client:
    """A server's API at ``url`` (as http://127.0.0.1:8000/v1). Threads may share a client.

    A call is tried ``tries`` times where the server is busy, broken, silent for ``timeout`` seconds in all, or replies
    with something else than was asked for; waits between them begin at ``backoff`` seconds and double, or are what
    the server asks for. ``sleep`` is replaced in tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        tries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        connections: int = 16,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        self.url, self._tries, self._backoff, self._timeout, self._sleep = url, tries, backoff, timeout, sleep
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # a proxy is for other machines
        )
        self.stopped = threading.Event()  # set: calls end at their next try

    def call(self, path: str, body: Any = None, read: Callable[[Any], Any] | None = None) -> Any:
        """What ``read`` makes of the JSON reply to a POST of ``body`` (None: a GET); None where it is not to be read.

        ``read`` raises for a reply that is not what was asked for.

        Raises:
            Failed: no usable reply after all tries, or the server refuses this item.
            UserError: the server refuses the key, or has nothing at this path or by this model's name.
        """
        reason, silent = "", 0
        for attempt in range(self._tries):
            if self.stopped.is_set():
                raise Failed("not asked: the calls before it had failed")
            status, content, asked_wait = self._once(path, body)
            if status == 200:
                try:
                    return None if read is None else read(json.loads(content))
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                    reason, asked_wait = f"call failed: {GARBAGE}", None
            elif isinstance(status, int) and status not in RETRIED:
                raise self._refusal(status, content, path)
            else:
                reason = f"call failed: {f'HTTP {status}' if isinstance(status, int) else status}"
                silent += status == SILENT
            if silent == TRIES_IN_SILENCE:
                break
            if attempt + 1 < self._tries:
                wait = self._backoff * 2**attempt * random.uniform(1, 1.25) if asked_wait is None else asked_wait
                self._sleep(min(wait, LONGEST_WAIT))
        raise Failed(reason)

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

    def _once(self, path: str, body: Any) -> tuple[int | str, bytes, float | None]:
        """Status (or the name of what went wrong on the way), content, and seconds that the server asks to wait."""
        import httpx

        end = time.monotonic() + self._timeout
        method = "GET" if body is None else "POST"
        try:
            with self._http.stream(method, self.url + path, json=body) as reply:
                content = b""
                for chunk in reply.iter_bytes():
                    content += chunk
                    if time.monotonic() > end:  # a server that trickles never runs into a read time-out
                        return SILENT, b"", None
                    if len(content) > LARGEST_REPLY:
                        return "reply too large", b"", None
                return reply.status_code, content, asked_wait(reply.headers.get("Retry-After"))
        except httpx.TimeoutException:
            return SILENT, b"", None
        except httpx.ConnectError:
            return "no connection", b"", None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return type(error).__name__, b"", None

    def _refusal(self, status: int, content: bytes, path: str) -> Exception:
        said = said_by(content)
        if status in (401, 403):
            return UserError(f"the server at {self.url} refuses the key (HTTP {status}); check {KEY_VARIABLE}")
        if status == 404 or status == 405:
            return UserError(f"the server at {self.url} has no {path}, or not this model (HTTP {status}{said})")
        return Failed(f"refused: HTTP {status}{said}")

    def close(self) -> None:
        self._http.close()


def _outcome(call: Callable[[Any], Any], item: Any) -> Any:
    try:
        return call(item)
    except Failed as failed:
        return failed


def server_url(option: str | None) -> str:
    """The server's address without a closing slash: the option, or the environment's. Raises UserError."""
    url = (option or os.environ.get(URL_VARIABLE, "")).strip().rstrip("/")
    if not url:
        raise UserError(
            f"engine 'openai' needs the address of a server: set {URL_VARIABLE}, as http://127.0.0.1:8000/v1, "
            "or the option url"
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError(
            f"the server's address is not as http://host:port/v1, without user, key or query; correct {URL_VARIABLE} "
            "or the option url"
        )
    return url


def server_key() -> str | None:
    """The key from the environment; None where there is none, as a server of one's own needs none."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"{KEY_VARIABLE} holds characters that no key has; copy it again, on one line")
    return key or None


def asked_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After header that gives a number; a date is taken for no wish."""
    header = (header or "").strip()
    return float(header) if re.fullmatch(r"\d{1,6}(\.\d+)?", header) else None


def said_by(content: bytes) -> str:
    """The server's own short name of an error (``: code``), or nothing. Its prose may repeat what was sent."""
    try:
        error = json.loads(content)
        error = error.get("error", error)
        names = [error.get("code"), error.get("type")]
    except (ValueError, AttributeError, RecursionError):
        return ""
    return next((f", {n}" for n in names if isinstance(n, str) and re.fullmatch(r"[A-Za-z][\w.-]{2,60}", n)), "")


def away(url: str, n: int, reason: str, n_done: int) -> EngineEnded:
    """The error where a server gives no answers any more."""
    return EngineEnded(
        f"the server at {url} gave no answer {n} times in a row ({reason}); {n_done} answers are kept: run again when it "
        "works, and only the others are asked for"
    )
