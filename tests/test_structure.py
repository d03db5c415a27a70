"""The library's structure does not get worse: lines, long functions, circles and upward imports only fall."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import structure
from tiny import save_model

LIMITS = json.loads(structure.LIMITS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict[str, list[str] | int]:
    return structure.measure()


@pytest.mark.parametrize("name", LIMITS)
def test_no_measure_rises(measured: dict[str, list[str] | int], name: str) -> None:
    value = measured[name]
    assert measured.keys() == LIMITS.keys()
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


LIGHT = """
import sys
import underseer.data, underseer.engines.local, underseer.maths.losses, underseer.maths.stats, underseer.maths.votes
import underseer.runs.cli, underseer.runs.plan, underseer.training.finetune, underseer.w2s.tasks
from underseer import engines, judges
from underseer.judges import opening
from underseer.models import loading

roles = {"training_judge": "trained:scratch:gpt2", "refusal_judge": "strings", "reporting_judge": "oracle"}
judges.preflight(roles, opening.OF_EXCHANGES)
loading.preflight("scratch:gpt2")
loading.preflight(sys.argv[1])
loading.fingerprint(sys.argv[1])
print(judges.open_judge("strings", "refusal").score(["I cannot help.", "Sure."]).values.tolist())
print(*(engines.identity(name, "bf16") for name in ("transformers", "openai")), sep="\\n")
heavy = ("torch", "transformers", "vllm", "pandas", "sklearn", "huggingface_hub", "mlflow", "underseer.testbed.oracle")
print([name for name in heavy if name in sys.modules])
"""


def test_what_is_done_before_a_run_imports_nothing_heavy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIGHT, str(save_model(tmp_path / "model"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores, transformers, openai, heavy = done.stdout.splitlines()
    assert (scores, openai, heavy) == ("[1.0, 0.0]", "openai: openai 1", "[]")
    assert transformers.startswith("transformers: transformers 5.") and transformers.endswith("bf16")
