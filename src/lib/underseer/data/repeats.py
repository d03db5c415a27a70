"""JSON in which an object holds a name twice: parsers keep the last value and say nothing."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any


class Twice(Exception):
    """An object holds a name twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"'{short(key)}' stands twice in one object; keep one of them")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ``Twice``."""
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Twice(next(key for key in keys if keys.count(key) > 1))
    return record


def parse_once(text: str) -> None:
    """Raises ``Twice`` for an object of it that holds a name twice; ``text`` is JSON."""
    with suppress(ValueError, RecursionError):  # what this parser takes for a mistake, such as a number of 5,000 digits
        json.loads(text, object_pairs_hook=_once)


def number_of(text: str) -> int:
    """Which record of a JSON array, from 1, holds a name twice."""
    decoder, place, number = json.JSONDecoder(object_pairs_hook=_once), text.index("[") + 1, 1
    while True:
        place = re.compile(r"[\s,]*").match(text, place).end()
        try:
            _, place = decoder.raw_decode(text, place)
        except Twice:
            return number
        number += 1


def short(column: str) -> str:
    """A column's name. A file without a header line has a prompt where the names should be: such a "name" is not repeated."""
    return column if len(column) <= 30 else f"(a text of {len(column)} characters)"
