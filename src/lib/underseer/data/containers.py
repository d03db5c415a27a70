"""What a file is, by its content and not by its name: archives are unpacked, and what is not a data set's file is refused."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath

from underseer.errors import UserError

ARCHIVES = (".gz", ".xz", ".bz2", ".zip")
LISTED = 5  # files of an archive that a message names


def alike(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name is one of the patterns; case, ``-`` and ``_``, and the ending of an archive do not count."""

    def plain(text: str) -> str:
        return text.lower().replace("-", "_")

    name = plain(name)
    names = [name, *(name.removesuffix(end) for end in ARCHIVES)]
    return any(fnmatch.fnmatchcase(each, plain(pattern)) for each in names for pattern in patterns)


def unpacked(content: bytes, name: str, patterns: tuple[str, ...] = ()) -> bytes:
    """The content of a file that lies in gzip, xz, bz2 or zip; of any other, as it is.

    Of a zip with several files the one named like ``patterns`` is read. Raises UserError for damaged archives, for
    archives that need a password, and where it is not clear which file of a zip is meant.
    """
    openers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": gzip.decompress,
        b"\xfd7zXZ\x00": lzma.decompress,
        b"BZh": bz2.decompress,
        b"PK\x03\x04": lambda packed: _from_zip(packed, name, patterns),
    }
    try:
        for _ in range(2):  # a gzip file may lie in a zip
            opener = next((open_ for start, open_ in openers.items() if content.startswith(start)), None)
            content = opener(content) if opener else content
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{name}: cannot be decompressed ({type(error).__name__}); download the file again") from None
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(f"{name}: cannot be decompressed ({error}); unpack it and give the file inside") from None
    return content


def _from_zip(content: bytes, name: str, patterns: tuple[str, ...]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.filename == "[Content_Types].xml" for info in inside):
            raise UserError(f"{name}: is an Office document; save the sheet as csv (UTF-8) and give that")
        inside = [i for i in inside if not i.filename.startswith("__MACOSX/") and "/." not in f"/{i.filename}"]
        fitting = [info for info in inside if alike(PurePosixPath(info.filename).name, patterns)]
        chosen = inside if len(inside) == 1 else fitting
        if len(chosen) != 1:
            names = ", ".join(info.filename for info in inside[:LISTED]) + (", ..." if len(inside) > LISTED else "")
            raise UserError(f"{name}: a zip of {len(inside)} files ({names}); unpack it and give the one to be read")
        return archive.read(chosen[0])


ANNEX = "is a git-annex pointer and not the file itself; run git annex get, or download it"
_OTHER_CONTENT = (
    ((b"<!doctype", b"<html", b"<head", b"<body", b"<title", b"<h1", b"<p>", b"<div", b"<script", b"<center", b"<!--", b"<?xml"),
     "is a web page and not the file itself; download the raw file"),
    ((b"version https://git-lfs",), "is a Git LFS pointer and not the file itself; run git lfs pull, or download it"),
    ((b"outs:\n", b"outs:\r", b"md5: "), "is a DVC pointer and not the file itself; run dvc pull, or download it"),
    ((b"# xet version",), "is a xet pointer and not the file itself; run git xet checkout, or download it"),
    ((b"/annex/objects/",), ANNEX),
    ((b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"rar!"), "is an archive (zstd, 7z or rar); unpack it and give the file inside"),
    ((b"%pdf-", b"sqlite format 3", b"arrow1", b"\x89hdf"), "is a PDF, SQLite, Arrow or HDF file; export it as csv or Parquet"),
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "is a pickle, which can run code when read; give csv or Parquet"),
)  # fmt: skip
_SERVER_ERROR = re.compile(
    rb"[45]\d\d:? [\w ]+|(entry|repository|revision|not) (not )?found|invalid (username or password|credentials)\b.*"
    rb"|access to (dataset|this resource) .*|\{\s*\"(error|message)\"\s*:.*\}"
    rb"|you have exceeded an? [\w ]*limit\b.*|(api )?rate limit exceeded.*|too many requests.*|error( code)?:? \d+\.?"
    rb"|upstream (connect|request) (error|timeout).*|no healthy upstream|bad gateway|service unavailable|gateway time-?out"
    rb"|internal server error|access denied\.?|forbidden|unauthorized|(found|moved permanently|temporary redirect)\. redirecting to .*"
    rb"|this repository (is over its data quota|exceeded its lfs budget).*",
    re.IGNORECASE | re.DOTALL,
)
"""What servers answer in place of a file: "404: Not Found", "Entry not found", {"error": ...}."""


def refuse_other_content(content: bytes, name: str) -> None:
    """Raises UserError where the content is recognised as something other than a data set's file."""
    head = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for starts, message in _OTHER_CONTENT:
        if head.startswith(starts):
            raise UserError(f"{name}: {message}")
    if len(content) < 1024 and _SERVER_ERROR.fullmatch(content.strip()):
        raise UserError(f"{name}: is a server's error message and not the file itself; download the file again")
    if b"\0" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{name}: is a binary file that is not known here; give csv, JSON lines or Parquet")


_PATH = re.compile(r"(?:~|\.{0,2})/.*|[a-zA-Z]:\\.*|\S*[/\\]\S*|\S+\.\w{1,7}")
_COLUMNS = re.compile(r"\"?\w+\"?(?:[,;\t]\"?\w+\"?)+|\"?(?:prompts?|texts?|goals?|targets?|questions?|instructions?|behaviou?rs?|labels?|query)\"?",
                      re.IGNORECASE)  # fmt: skip
_JSON = re.compile(r"\[\s*[\"\[{\]]|\{\s*[\"}]")


def refuse_no_lines(text: str, name: str) -> None:
    """Raises UserError where a text is recognised as something other than a prompt a line: there any line would be read as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    wrong = ""
    if len(lines) == 1 and "/annex/objects/" in lines[0]:
        wrong = ANNEX
    elif len(lines) == 1 and _PATH.fullmatch(lines[0]):
        wrong = "is a path, the text of a symbolic link, and not the file itself; give the file that it leads to"
    elif _JSON.match(lines[0] + "".join(lines[1:2])):
        wrong = "is JSON; a text file with one prompt a line is needed"
    elif _COLUMNS.fullmatch(lines[0]):
        wrong = "begins with names of columns; a text file with one prompt a line and no header is needed"
    if wrong:
        raise UserError(f"{name}: {wrong}")
