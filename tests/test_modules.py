"""The library's modules as keys see them: kept or parsed, what is read of them is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

READ = """
import json, sys
from underseer.runs import modules
sys.dont_write_bytecode = len(sys.argv) > 1
parsed = []
read = modules.ast.parse
modules.ast.parse = lambda text: parsed.append(text) or read(text)
names = modules.follow(["w2s.tasks", "training.finetune"])
found = [sorted(names), modules.hash_of(frozenset(names))]
modules.keep()
print(json.dumps([found, len(parsed)]))
"""


@pytest.fixture
def read(copied):
    """What a fresh process reads of some modules of a copy of the library, and how many of them it parsed."""
    folder, printed = copied
    return folder / "src/lib/underseer", lambda *args: json.loads(printed(READ, *args))


def memo(library: Path) -> Path:
    (file,) = library.glob("runs/__pycache__/modules.*.json")
    return file


def test_a_module_is_parsed_once(read) -> None:
    library, again = read
    found, parsed = again("without bytecode")
    assert parsed == len(found[0]) > 10 and not list(library.glob("runs/__pycache__/*.json"))
    assert again() == [found, parsed] and again() == [found, 0]
    file = library / "maths/losses.py"
    file.write_text(file.read_text() + "\n# a comment\n")
    assert again() == [found, 1] and again() == [found, 0]
    file.write_text(file.read_text() + "\nX = 1\n")
    (names, digest), parsed = again()
    assert names == found[0] and digest != found[1] and parsed == 1


@pytest.mark.parametrize("damage", ["", "{", '{"by": 1}', "[]", "half", "foreign"])
def test_a_damaged_memo_is_not_used(read, damage: str) -> None:
    library, again = read
    found, parsed = again()
    whole = memo(library).read_text()
    if damage == "foreign":  # another Python, or another version of the module that reads
        content = json.loads(whole)
        damage = json.dumps(
            {"by": "other", "modules": {name: [d, "0", []] for name, (d, _, _) in content["modules"].items()}}
        )
    memo(library).write_text(whole[: len(whole) // 2] if damage == "half" else damage)
    assert again() == [found, parsed] and memo(library).read_text() == whole


def test_a_module_that_takes_the_place_of_a_name_is_followed(read) -> None:
    """``from underseer.maths import losses`` names what is there, although no file that is kept has changed."""
    library, again = read
    file = library / "maths/losses.py"
    file.write_text(file.read_text() + "\nfrom underseer.maths import votes, nothing\n")
    (names, digest), _ = again()
    assert "maths.votes" in names and "maths.nothing" not in names
    (library / "maths/nothing.py").write_text("X = 1\n")
    (more, other), parsed = again()
    assert set(more) - set(names) == {"maths.nothing"} and other != digest and parsed == 1


def test_notebooks_are_read_and_checked_without_grammars_of_web_addresses(copied) -> None:
    """They cost a second at each start; a notebook's form is checked all the same."""
    script = """
import sys
import underseer.runs, nbformat
notebook = nbformat.v4.new_notebook()
nbformat.validate(notebook)
try:
    nbformat.validate(notebook | {"metadata": 1})
except nbformat.ValidationError:
    print("lark" in sys.modules)
"""
    assert copied[1](script) == "False\n"
