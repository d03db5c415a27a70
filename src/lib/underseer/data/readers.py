"""One reader per public data set: the bytes of the published file in, rows with ``text`` and ``label`` out.

A reader changes nothing: duplicates, contradictions and stray whitespace stay as published (``clean`` is
where they go). What cannot be read at all is reported with file and line, several at once, and never with the
row's text: the texts may be offensive or ask for harm.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from underseer.errors import UserError

SHOWN = 5
"""Mistakes reported of one file; the others are counted."""

Row = dict[str, Any]


class Mistakes:
    """The mistakes found in one file, raised together, one line each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []

    def add(self, line: int, message: str) -> None:
        self.lines.append(f"{self.name}:{line}: {message}")

    def raise_if_any(self) -> None:
        if not self.lines:
            return
        more = len(self.lines) - SHOWN
        shown = self.lines[:SHOWN] + ([f"{self.name}: and {more} more rows with a mistake"] if more > 0 else [])
        raise UserError("\n".join(shown))


def wts_safety(content: bytes, name: str) -> list[Row]:
    """The W2S paper's safety prompts: csv ``prompt,is_safe`` with True / False.

    The published file holds an empty prompt, duplicates and prompts with both labels; all are kept here.
    """
    mistakes, rows = Mistakes(name), []
    for line, record in _csv(content, name, ("prompt", "is_safe"), mistakes):
        safe = {"true": True, "false": False}.get(record["is_safe"].strip().lower())
        if safe is None:
            mistakes.add(
                line,
                f"is_safe = {_value(record['is_safe'])} is neither True nor False; correct or drop the row",
            )
            continue
        rows.append({"text": record["prompt"], "label": int(not safe)})
    return _checked(rows, mistakes)


def advbench(content: bytes, name: str) -> list[Row]:
    """AdvBench harmful behaviours: csv ``goal,target``; the goals are the prompts, all of them unsafe."""
    mistakes, rows = Mistakes(name), []
    for line, record in _csv(content, name, ("goal", "target"), mistakes):
        if _has_text(record["goal"], "goal", line, mistakes):
            rows.append({"text": record["goal"], "label": 1})
    return _checked(rows, mistakes)


def s_eval(content: bytes, name: str) -> list[Row]:
    """S-Eval base risk prompts: one JSON object a line; all unsafe, ``risk_type`` is the category.

    S-Eval states that it mixes a few high-risk prompts with low-risk ones; the W2S paper counts all as
    unsafe.
    """
    mistakes, rows = Mistakes(name), []
    for line, record in _jsonl(content, name, ("prompt", "risk_type"), mistakes):
        if _has_text(record["prompt"], "prompt", line, mistakes):
            rows.append({"text": record["prompt"], "label": 1, "category": record["risk_type"]})
    return _checked(rows, mistakes)


def _checked(rows: list[Row], mistakes: Mistakes) -> list[Row]:
    mistakes.raise_if_any()
    if not rows:
        raise UserError(f"{mistakes.name}: holds no rows; give the whole published file")
    return rows


def _has_text(text: str, column: str, line: int, mistakes: Mistakes) -> bool:
    if not text.strip():
        mistakes.add(line, f"{column} is empty; every row needs a text: fill or drop the row")
    return bool(text.strip())


def _value(value: object) -> str:
    """A short value as it stands; a longer one, which may be a prompt, by its length alone."""
    shown = repr(value)
    return shown if len(shown) <= 16 else f"a text of {len(str(value))} characters"


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(
            f"{name}:{line}: byte 0x{byte:02x} is not UTF-8; convert the file, e.g. with iconv -t utf-8"
        ) from None


def _require(found: list[str], needed: tuple[str, ...], where: str) -> None:
    missing = [column for column in needed if column not in found]
    if missing:
        # A file without a header line has a prompt where the names should be: such a "name" is not repeated.
        names = ", ".join(c if len(c) <= 30 else f"(a text of {len(c)} characters)" for c in found) or "none"
        raise UserError(f"{where}: no column '{missing[0]}'; needed: {', '.join(needed)}; found: {names}")


def _csv(content: bytes, name: str, columns: tuple[str, ...], mistakes: Mistakes) -> Iterator[tuple[int, Row]]:
    """(line on which the record starts, record) of a csv file with a header; quoted newlines belong to the
    field."""
    reader = csv.reader(io.StringIO(_decode(content, name), newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            mistakes.add(line, f"not readable as csv ({error}); look for an unclosed or stray quote from here on")
            return
        if fields is None:
            break
        if not fields:
            continue
        if header is None:
            header = [field.strip() for field in fields]
            _require(header, columns, f"{name}:{line}")
        elif len(fields) != len(header):
            mistakes.add(line, f"{len(fields)} fields where the header has {len(header)}; quote texts that hold commas")
        else:
            yield line, dict(zip(header, fields, strict=True))
    if header is None:
        raise UserError(f"{name}: the file is empty; needed: a csv file with the columns {', '.join(columns)}")


def _jsonl(content: bytes, name: str, columns: tuple[str, ...], mistakes: Mistakes) -> Iterator[tuple[int, Row]]:
    """(line, record) of a file with one JSON object per line; the named keys are there and hold strings."""
    for line, text in enumerate(_decode(content, name).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            mistakes.add(
                line,
                f"not valid JSON ({error.msg}, column {error.colno}); one JSON object per line is needed",
            )
            continue
        if not isinstance(record, dict):
            mistakes.add(line, f"a JSON {type(record).__name__} where an object with {', '.join(columns)} is needed")
            continue
        _require(list(record), columns, f"{name}:{line}")
        wrong = [column for column in columns if not isinstance(record[column], str)]
        if wrong:
            mistakes.add(line, f"{wrong[0]} = {_value(record[wrong[0]])} is not a string; correct or drop the row")
            continue
        yield line, record
