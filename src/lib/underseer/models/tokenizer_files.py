"""The files beside a model's weights: its tokenizer and its chat template, checked without transformers."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from underseer.errors import UserError

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
_OBJECTS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "vocab.json")
_TEXTS = ("vocab.txt", "merges.txt", "chat_template.jinja", "tokenizer.model", "spiece.model")
_POINTER = b"version https://git-lfs"


def json_object(file: Path) -> dict[str, Any]:
    """Raises UserError where a file does not hold a JSON object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"model file {str(file)!r} is not JSON (a web page, a Git LFS pointer or a broken download?); fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"model file {str(file)!r} holds a JSON {type(value).__name__} where an object is needed")
    return value


def check_tokenizer(folder: Path) -> None:
    """Raise UserError where a folder has no tokenizer, or one of its files, or of the chat template's, cannot be read."""
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(
            f"model folder {str(folder)!r} has no tokenizer; it needs one of {', '.join(_TOKENIZERS)}: "
            "save it there with tokenizer.save_pretrained(folder)"
        )
    for file in (folder / name for name in _OBJECTS):
        if file.is_file():
            json_object(file)
    for file in (folder / name for name in _TEXTS):
        if file.is_file() and is_pointer(file):
            raise UserError(
                f"model file {str(file)!r} is a Git LFS pointer and not the file itself; fetch it, for example by git lfs pull"
            )
    file = folder / "tokenizer.json"
    if file.is_file():
        stat = file.stat()
        if problem := _tokenizer_problem(file, stat.st_size, stat.st_mtime_ns):
            raise UserError(
                f"model file {str(file)!r} cannot be read by tokenizers {version('tokenizers')} ({problem}); fetch it again, "
                "or save it with this version: a newer one may have written it"
            )


def is_pointer(file: Path) -> bool:
    """Whether a file holds what Git LFS leaves in a file's place."""
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


@cache
def _tokenizer_problem(file: Path, size: int, mtime: int) -> str | None:
    """Why the installed tokenizers cannot read a file; None where they can. ``size`` and ``mtime``: for the cache."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare exceptions
        return str(error).strip().split("\n")[0][:160]
    return None


def has_chat_template(folder: Path) -> bool:
    """Whether a model's folder says how its chats are written. Raises UserError where its configuration cannot be read."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(json_object(file).get("chat_template"))
