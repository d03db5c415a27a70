"""The exceptions that are shown as one line, and the hint that they carry."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any


class _InOneLine(Exception):
    """Shown by IPython as its message alone: the 40 lines of a traceback through the library help nobody who reads them."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class UserError(_InOneLine):
    """A mistake in what the user gave: shown as its message alone, never with a traceback (exit code 2).

    The message names the value received, what is allowed, and the next step. Several mistakes found together are
    given as several lines.
    """


class StageError(_InOneLine):
    """A stage that cannot go on, in one line: a missing input, a failed check (exit code 1)."""


class EngineEnded(StageError):
    """An engine that answers nothing any more: whatever else it is asked would fail as well."""


def unreadable(error: OSError) -> str:
    """What the operating system refused, in one line."""
    name = error.filename or ("the current folder" if isinstance(error, FileNotFoundError) else None)
    return f"{name}: {error.strerror}" if name else str(error.strerror or error)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 20, 20
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def short(value: Any) -> str:
    """A value as Python writes it; one that is long or nested deep is cut."""
    return _SHORT.repr(value)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the allowed name closest to ``name``, or an empty string when none is close."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
