"""The library's structure does not get worse: lines, long functions, circles and upward imports only fall."""

from __future__ import annotations

import ast
import json

import pytest

import structure

LIMITS = json.loads(structure.LIMITS.read_text(encoding="utf-8"))
MEASURED = structure.measure()


@pytest.mark.parametrize("name", MEASURED)
def test_no_measure_rises(name: str) -> None:
    value = MEASURED[name]
    assert structure.number(value) <= LIMITS[name], f"{name}: {value}; mend it: the limit only falls"


def test_the_measures_see_what_they_are_for() -> None:
    wide = "def f(a, b, c, d, e, f, g, h, i, *rest, **how): pass"
    tree = {
        "maths.x": ast.parse(wide + "\nfrom underseer.runs import plan"),
        "runs.plan": ast.parse("import underseer"),
    }
    assert structure.wide_functions(tree) == ["maths.x.f"] == structure.untyped_runs(tree)
    assert structure.upward(structure.imports(tree)) == ["maths.x -> runs.plan"]
    assert structure.circles({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}) == ["a <-> b <-> c"]
    long = "def f():\n" + "    pass\n" * structure.FUNCTION_LINES
    assert structure.long_functions({"x": ast.parse(long)}) == ["x.f"]
