"""The leak scanner sees through what files do to a text, and finds nothing where nothing is."""

from __future__ import annotations

import base64
import gzip
import html
import json
import random
import sqlite3
import time
import zipfile

import pandas as pd
import pytest

from conftest import ROOT
from leaks import find_leaks, tracked_files
from underseer.report import latex, tabulate

TEXT = 'Describe, step by "step",\nhow the purple_gardener hides ünder a 50% bigger *basket* & waits for <rain>!'
OTHERS = ["too short", "An unrelated sentence that is long enough but is never written anywhere at all"]


def holds(tmp_path, content: bytes | str, name: str = "file.txt") -> bool:
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    found = find_leaks([*OTHERS, TEXT], place)
    assert not found or found[0].texts == (2,)
    return bool(found)


ENCODED = {
    "as it is": f"before {TEXT} after",
    "other case and blanks": TEXT.upper().replace(" ", "\n  "),
    "html": f"<td>{html.escape(TEXT)}</td>",
    "json": json.dumps({"a": [TEXT]}),
    "json in json": json.dumps({"a": json.dumps({"b": TEXT})}),
    "html in a notebook": json.dumps({"text/html": [f"<td>{html.escape(TEXT)}</td>"]}),
    "json in html": html.escape(json.dumps({"a": TEXT})),
    "python": repr([TEXT]),
    "markdown": tabulate.md(TEXT),
    "latex": latex.tex(TEXT),
    "base64": base64.b64encode(TEXT.encode()),
    "a data address": b"<img src='data:text/html;base64," + base64.b64encode(f"<p>{TEXT}</p>".encode()) + b"'>",
    "base64 in lines": json.dumps(base64.encodebytes((TEXT + " ").encode() * 3).decode()),
    "gzip in base64": base64.b64encode(gzip.compress(TEXT.encode())),
    "percent": "https://x.org/?q=" + __import__("urllib.parse").parse.quote(TEXT),
    "cut": TEXT[:70],
    "cut in front": TEXT[-70:],
    "gzip": gzip.compress(json.dumps(TEXT).encode()),
    "parquet": pd.DataFrame({"prompt": ["x", TEXT]}).to_parquet(),
    "nested parquet": pd.DataFrame({"turns": [[{"role": "user", "content": TEXT}]]}).to_parquet(),
}


@pytest.mark.parametrize("how", ENCODED)
def test_a_text_is_found_through(tmp_path, how):
    assert holds(tmp_path, ENCODED[how])


@pytest.mark.parametrize(
    "content",
    [
        "nothing of the kind",
        TEXT[:30],  # fewer words than the window
        "[redacted, 17 words, id 0123456789abcdef]",
        " ".join(reversed(TEXT.split())),
        OTHERS[0],
        base64.b64encode(random.Random(0).randbytes(5000)),
        b"PAR1 is only a word here",
        b"\x1f\x8b not gzip",
    ],
)
def test_nothing_is_found_where_nothing_is(tmp_path, content):
    assert not holds(tmp_path, content)


def test_databases_and_archives(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with sqlite3.connect(place / "mlflow.db") as connection:
        connection.execute("create table params (value text)")
        connection.execute("insert into params values (?)", ("filler " * 3000 + TEXT,))
    connection.close()
    with zipfile.ZipFile(place / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/x.html", html.escape(TEXT))
    assert [leak.file.rsplit("/", 1)[1] for leak in find_leaks([TEXT], place)] == ["a.zip", "mlflow.db"]


def test_hidden_folders_of_tools_are_skipped_and_missing_places_refused(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text(TEXT)
    assert find_leaks([TEXT], tmp_path) == []
    assert find_leaks([TEXT], tmp_path / ".git" / "x")[0].texts == (0,)
    with pytest.raises(FileNotFoundError):
        find_leaks([TEXT], tmp_path / "none")


def test_two_thousand_texts_in_megabytes_take_seconds(tmp_path):
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnop", k=dice.randint(2, 8))) for _ in range(3000)]
    texts = [" ".join(dice.choices(words, k=dice.randint(8, 30))) for _ in range(2000)]
    body = " ".join(dice.choices(words, k=600_000))  # about 3.5 MB
    (tmp_path / "page.html").write_text(f"<p>{body}</p><p>{texts[7]}</p>")
    began = time.process_time()
    assert find_leaks(texts, tmp_path)[0].texts == (7,)
    assert time.process_time() - began < 20  # 1.7 s of CPU when this was written


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository here")
def test_tracked_files_are_the_repositorys():
    names = {file.relative_to(ROOT).as_posix() for file in tracked_files(ROOT)}
    assert "README.md" in names and not any(name.startswith(".venv/") for name in names)
