"""What was asked and answered, kept in one SQLite file, so that nothing is asked twice: answers of engines, verdicts of judges."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from underseer.errors import UserError

_TABLES = (
    "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turns (service TEXT PRIMARY KEY, next REAL NOT NULL)",
)
MEMORY = ":memory:"


class Kept:
    """Values (anything that JSON holds) by a hash of what was asked. Several processes may share the file.

    Everything is on disk when ``put`` returns; what was asked is not in the file. With ``":memory:"`` the values live as
    long as the object. Raises UserError for a file that cannot be opened or is no such file.
    """

    def __init__(self, file: Path | str) -> None:
        try:
            if file != MEMORY:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=60, isolation_level=None)
            for table in _TABLES:
                self._db.execute(table)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"the kept answers {str(file)!r} cannot be used: {error}; move the file away") from error

    def get(self, asked: Any) -> Any:
        """The value of what was asked (anything that JSON holds), or None; one that was cut or spoilt counts as not kept."""
        row = self._db.execute("SELECT value FROM kept WHERE key = ?", (_key(asked),)).fetchone()
        try:
            return None if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            return None

    def put(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Keep values, all or none of them."""
        rows = [(_key(asked), json.dumps(value)) for asked, value in pairs]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)

    def wait(self, service: str, interval: float, now: float) -> float:
        """Seconds until this caller's turn at a service, ``interval`` seconds after the turn before it; the turn is taken.

        ``now`` in seconds, by a clock that all processes share. Turns further ahead than a minute come from a wrong clock
        and do not count.
        """
        with self._transaction():
            row = self._db.execute("SELECT next FROM turns WHERE service = ?", (service,)).fetchone()
            start = now if row is None or row[0] > now + 60 + interval else max(now, row[0])
            self._db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?)", (service, start + interval))
        return start - now

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


def _key(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
