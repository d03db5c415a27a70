"""What a judge said, kept in one file so that no item is asked twice: of a paid or limited service, or of a slow
model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from underseer.errors import UserError

Item = str | tuple[str, ...]
"""A text, or several: a prompt and the answer to it."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, score REAL, reason TEXT)",
    "CREATE TABLE IF NOT EXISTS details (key TEXT PRIMARY KEY, detail TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turns (service TEXT PRIMARY KEY, next REAL NOT NULL)",
)


class Answers:
    """Answers by a hash of judge, settings and item: a score, or the judge's reason for giving none.

    Each answer is on disk when ``put`` returns. Several processes may share the file. Without a file the answers live
    as long as the object. ``identity`` names judge, version and settings. The file holds no text. Raises UserError for
    a file that cannot be opened or is no such file.
    """

    def __init__(self, file: Path | str | None, identity: str) -> None:
        self._identity = identity
        try:
            if file is not None:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if file is None else file, timeout=60, isolation_level=None)
            for table in _TABLES:
                self._db.execute(table)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the judge's cache {str(file)!r} cannot be used: {error}; move it away") from error

    def get(self, item: Item) -> float | str | None:
        """The score or reason that was given for an item; None where it has not been asked."""
        found = self._db.execute("SELECT score, reason FROM answers WHERE key = ?", (self._key(item),)).fetchone()
        return None if found is None else found[0] if found[1] is None else found[1]

    def detail(self, item: Item) -> str | None:
        """What else was said of an item."""
        found = self._db.execute("SELECT detail FROM details WHERE key = ?", (self._key(item),)).fetchone()
        return None if found is None else found[0]

    def put(self, item: Item, reply: float | str) -> None:
        """Keep the answer for an item."""
        self.put_all([(item, reply, None)])

    def put_all(self, answers: Sequence[tuple[Item, float | str, str | None]]) -> None:
        """Keep answers, each with what else was said: all of them, or none where the process dies meanwhile."""
        with self._turn():
            for item, reply, detail in answers:
                key = self._key(item)
                score, reason = (None, reply) if isinstance(reply, str) else (float(reply), None)
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, score, reason))
                if detail is not None:
                    self._db.execute("INSERT OR REPLACE INTO details VALUES (?, ?)", (key, detail))

    def wait(self, interval: float, now: float) -> float:
        """Seconds until this caller's turn, ``interval`` seconds after the one before it, which it now takes.

        ``now`` in seconds, by a clock that all processes share. Turns further ahead than a minute are taken for those
        of a wrong clock.
        """
        with self._turn():
            found = self._db.execute("SELECT next FROM turns WHERE service = ?", (self._identity,)).fetchone()
            start = now if found is None or found[0] > now + 60 + interval else max(now, found[0])
            self._db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?)", (self._identity, start + interval))
        return start - now

    @contextlib.contextmanager
    def _turn(self):
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _key(self, item: Item) -> str:
        text = item if isinstance(item, str) else json.dumps(item)
        return hashlib.sha256(f"{self._identity}\x1f{text}".encode("utf-8", "surrogatepass")).hexdigest()
