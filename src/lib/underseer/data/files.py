"""The formats in which data sets are published (csv, tsv, text, JSON, Parquet), record by record.

Each record is checked by a pydantic schema (see ``readers``).
Mistakes are reported with file and line (of a JSON array and of Parquet: with the number of the record, from 1), several at
once, and never with the row's text: the texts may be offensive or ask for harm.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, from_json

from underseer.data.containers import refuse_no_lines, refuse_other_content
from underseer.data.repeats import Twice, number_of, parse_once, short
from underseer.errors import UserError

SHOWN = 5
"""Mistakes reported of one file; the others are counted."""

FIELD_LIMIT = 1 << 30  # characters of one csv field; the standard library's own limit is 131,072

Record = dict[str, Any]


class Schema(BaseModel):
    """One published record. ``form`` is the format of the file where it is not Parquet: csv, tsv, text or json."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    form: ClassVar[str] = "json"

    @classmethod
    def columns(cls) -> list[str]:
        """The columns that each record must have, by their published names."""
        return [field.alias or name for name, field in cls.model_fields.items() if field.is_required()]


S = TypeVar("S", bound=Schema)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "every row needs a text")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
"""A text that holds more than whitespace."""


def _first_or_second(value: int) -> int:
    if value not in (0, 1):
        raise PydanticCustomError("literal_error", "neither 0 nor 1", {"expected": "0 or 1"})
    return value


FirstOrSecond = Annotated[int, AfterValidator(_first_or_second)]
"""Which of two answers: 0 or 1. (A Literal would take true for 1.)"""


def choice(*words: str) -> Any:
    """The type of a field that holds one of ``words``, in any case, with or without whitespace around it."""
    known = {word.lower(): word for word in words}
    return Annotated[Literal[words], BeforeValidator(lambda value: known.get(str(value).strip().lower(), value))]


def read_records(content: bytes, name: str, schema: type[S]) -> list[S]:
    """The records of a published file, each checked by ``schema``. ``name``: the file's, for messages.

    Raises UserError: not the file but a web page, a pointer or another container; not readable as its format; a column
    missing; values that the schema does not allow; no rows.
    """
    mistakes: list[str] = []
    records = []
    for line, record in _records(content, name, schema, mistakes):
        try:
            records.append(schema.model_validate(record))
        except ValidationError as error:
            mistakes.append(f"{name}:{line}: {_explain(error.errors(include_url=False)[0], schema)}")
            if error.errors()[0]["type"] == "missing" and len(error.errors()[0]["loc"]) == 1:
                break  # a column that one record lacks is lacking in most
    if mistakes:
        more = len(mistakes) - SHOWN
        counted = [f"{name}: and {more} more rows with a mistake"] if more > 0 else []
        raise UserError("\n".join(mistakes[:SHOWN] + counted))
    if not records:
        raise UserError(f"{name}: holds no rows; give the whole published file")
    return records


def shown(value: object) -> str:
    """A short value as it stands; a longer one, which may be a prompt, by its length alone."""
    text = repr(value)
    return text if len(text) <= 16 else f"a text of {len(str(value))} characters"


# ---------------------------------------------------------------------------------------------------------- formats


def _records(content: bytes, name: str, schema: type[Schema], mistakes: list[str]) -> Iterator[tuple[int, Any]]:
    """(line or number, record) of a file; adds to ``mistakes`` the lines that cannot be read."""
    if content[:4] == b"PAR1":
        yield from enumerate(_from_parquet(content, name, schema), start=1)
        return
    refuse_other_content(content, name)
    text = _decode(content, name)
    if schema.form in ("csv", "tsv"):
        yield from _from_csv(text, name, schema, mistakes)
    elif schema.form == "text":
        refuse_no_lines(text, name)
        yield from (
            (line, {"text": row.removesuffix("\r")}) for line, row in enumerate(_lines(text), start=1) if row.strip()
        )
    elif text.lstrip()[:1] == "[":
        yield from enumerate(_parse(text, name), start=1)
    else:
        for line, row in enumerate(_lines(text), start=1):
            try:
                if row.strip():
                    record = from_json(row)
                    parse_once(row)
                    yield line, record
            except Twice as error:
                mistakes.append(f"{name}:{line}: {error}")
            except ValueError as error:
                _, message = _json_mistake(error)
                mistakes.append(f"{name}:{line}: {message}; one JSON object per line is needed")


def _lines(text: str) -> list[str]:
    """The lines of a text; where none ends in a newline, carriage returns end them, as on old Macs."""
    return text.split("\n" if "\n" in text else "\r")


def _parse(text: str, name: str) -> list[Any]:
    """A JSON array."""
    try:
        records = from_json(text)
        parse_once(text)
        return records
    except Twice as error:
        raise UserError(f"{name}:{number_of(text)}: {error}") from None
    except ValueError as error:
        line, message = _json_mistake(error)
        raise UserError(f"{name}:{line}: {message}; download the file again, or correct it") from None


def _json_mistake(error: ValueError) -> tuple[str, str]:
    """(line, message) of text that is not JSON."""
    reason, _, place = str(error).rpartition(" at line ")
    line, _, column = place.partition(" column ")
    if "surrogate" in reason or "hex escape" in reason:
        reason = "half a character: a lone surrogate as in \\ud800"
    return line, f"not valid JSON ({reason}, column {column})"


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(
            f"{name}:{line}: byte 0x{byte:02x} is not UTF-8; convert the file, e.g. with iconv -t utf-8"
        ) from None


def _from_csv(text: str, name: str, schema: type[Schema], mistakes: list[str]) -> Iterator[tuple[int, Record]]:
    """(line on which the record starts, record); quoted newlines belong to the field.

    pandas reads past a stray quote, fills short rows and does not say on which line a record starts: hence ``csv``, strict.
    """
    delimiter, held = ("\t", "tabs") if schema.form == "tsv" else (",", "commas")
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            hint = "look for an unclosed or stray quote from here on"
            mistakes.append(f"{name}:{line}: not readable as {schema.form} ({error}); {hint}")
            return
        if fields is None:
            break
        if not fields:
            continue
        if header is None:
            header = [field.strip() for field in fields]
            _require(header, schema, f"{name}:{line}")
        elif len(fields) != len(header):
            counts = f"{len(fields)} fields where the header has {len(header)}"
            mistakes.append(f"{name}:{line}: {counts}; quote texts that hold {held}")
        else:
            yield line, dict(zip(header, fields, strict=True))
    if header is None:
        columns = ", ".join(schema.columns())
        raise UserError(f"{name}: the file is empty; needed: a {schema.form} file with the columns {columns}")


def _from_parquet(content: bytes, name: str, schema: type[Schema]) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        present = file.schema_arrow.names
        _require(present, schema, name)
        known = {field.alias or field_name for field_name, field in schema.model_fields.items()}
        return file.read(columns=[column for column in present if column in known]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not readable as Parquet ({type(error).__name__}); download the file again") from None


# --------------------------------------------------------------------------------------------------------- mistakes

_KINDS = {
    "string_type": "a string",
    "dict_type": "an object",
    "model_type": "an object",
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
}
_RANGE = ("greater_than_equal", "less_than_equal", "finite_number")


def _require(present: list[str], schema: type[Schema], where: str) -> None:
    if message := _missing(present, schema):
        raise UserError(f"{where}: {message}")
    known = {field.alias or name for name, field in schema.model_fields.items()}
    if twice := [column for column in present if column in known and present.count(column) > 1]:
        raise UserError(f"{where}: two columns '{twice[0]}'; drop or rename one of them")


def _missing(present: list[str], schema: type[Schema]) -> str | None:
    missing = [column for column in schema.columns() if column not in present]
    if not missing:
        return None
    names = ", ".join(map(short, present)) or "none"
    return f"no column '{missing[0]}'; needed: {', '.join(schema.columns())}; found: {names}"


def _explain(error: Any, schema: type[Schema]) -> str:
    """One mistake that pydantic found, without the row's text."""
    kind, place, value = error["type"], error["loc"], error["input"]
    if not place:
        return f"a JSON {type(value).__name__} where an object with {', '.join(schema.columns())} is needed"
    name = " of ".join(str(part) for part in reversed(place))
    if kind == "missing" and len(place) == 1:
        return str(_missing(list(value), schema))
    if kind == "missing":
        hint = " (null stands for a missing score)" if place[-1] == "toxicity" else ""
        return f"{place[0]} has no {place[-1]}{hint}; correct or drop the row"
    if kind == "blank":
        return f"{name} is empty; every row needs a text: fill or drop the row"
    if kind in _RANGE:
        return f"{name} = {shown(value)} is out of range; a score is from 0 to 1, or null where there is none; correct or drop the row"
    if kind == "literal_error":
        allowed = error["ctx"]["expected"].replace("'", "").replace(" or ", " nor ")
        return f"{name} = {shown(value)} is neither {allowed}; correct or drop the row"
    if kind in _KINDS:
        return f"{name} = {shown(value)} is not {_KINDS[kind]}; correct or drop the row"
    return f"{name} = {shown(value)}: {error['msg']}; correct or drop the row"
