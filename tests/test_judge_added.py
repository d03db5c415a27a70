"""Adding a judge: one file that registers a kind, and one line that imports it. All that works for other judges works for it."""

from __future__ import annotations

import importlib
import sys
import textwrap

import pandas as pd
import pytest

from conftest import ROOT
from tiny import save_model
from underseer import judges
from underseer.errors import UserError
from underseer.judges import card, opening, spec
from underseer.runs import keys as run_keys
from underseer.runs import params, plan, rehearsal

FILE = '''
"""A judge that finds an answer refusing by its share of one letter; MODEL is whose letters it counts."""

import numpy as np

from underseer.judges.base import judge_full
from underseer.judges.spec import Kind, register


class Letters:
    measure = "refusal"

    def __init__(self, judge, measure, opening):
        self.letter = judge.option("letter") or "n"
        self.name, self.version = opening.name or judge.name, opening.version or "letters 1"

    def score(self, texts, prompts=None):
        return judge_full(texts, lambda full: [text.count(self.letter) / len(text) for text in full], self)


register(Kind("letters", "letters:MODEL[?letter=NAME]", ("refusal",), Letters, models=("folder", "hub"),
              options={"letter": None}))
'''


@pytest.fixture
def added(monkeypatch, tmp_path):
    """The file, and the line."""
    (tmp_path / "letters_judge.py").write_text(textwrap.dedent(FILE))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(spec, "KINDS", spec.KINDS)
    importlib.import_module("letters_judge")  # in judges/__init__.py this is a line of the list
    yield tmp_path
    del spec.KINDS["letters"], sys.modules["letters_judge"]


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model")


def test_it_is_parsed_checked_opened_asked_and_measured(added, folder):
    given = f"letters:{folder}?letter=o"
    assert str(judges.parse(given)) == given and judges.parse(given).name == "letters:model?letter=o"
    assert judges.preflight({"refusal_judge": given}, opening.OF_EXCHANGES) == []
    with pytest.raises(UserError, match="measures refusal, not unsafe"):
        judges.preflight({"training_judge": given}, opening.OF_EXCHANGES)
    with pytest.raises(UserError, match="unknown option 'leter=o'; allowed are letter=NAME"):
        judges.parse(f"letters:{folder}?leter=o")
    judge = judges.open_judge(given, "refusal")
    scores = judge.score(["oo", "on", "", "nn"], ["p"] * 4)
    assert scores.values[[0, 1, 3]].tolist() == [1, 0.5, 0] and judges.failure_counts(scores) == {"empty text": 1}
    labelled = pd.DataFrame({"prompt": "p", "answer": ["oo", "on", "", "nn"], "label": [1, 1, 1, 0]})
    written = card.measure(judge, labelled)
    assert written["counts"] == {"tp": 2, "fp": 0, "tn": 1, "fn": 0} and (written["n"], written["failures"]) == (3, 1)
    assert written["judge"] == "letters:model?letter=o" and not spec.writes(given)


def test_it_is_in_the_keys_and_in_a_rehearsal(added, folder):
    """The key of a stage changes with its model's content and with its options, and not with the folder's place."""

    def keys(value):
        sets = [f"refusal_judge={value}", "iterations=1", "baselines=false"]
        made = plan.make(params.load(ROOT / "params/test/selfmoa.yaml", sets))
        return {i.stage: i.hashes for i in made.instances.values() if "refusal_judge" in i.parameters}

    before = keys(f"letters:{folder}?letter=o")
    assert all(found["refusal_judge"].startswith("letters:folder:") for found in before.values()) and before
    assert keys(f"letters:{folder}?letter=n") != before
    run_keys._model_fingerprint.cache_clear()
    (folder / "chat_template.jinja").write_text("{{ messages }}")  # how the model is asked decides what it says
    assert keys(f"letters:{folder}?letter=o") != before
    value = rehearsal._model(f"letters:{folder}?letter=o", lambda shape: "/tiny")
    assert value == "letters:/tiny?letter=o"


@pytest.mark.parametrize(
    "value, kind, model, options",
    [
        ("classifier:org/x?label=a&reads=answer", "classifier", "org/x", "?label=a&reads=answer"),
        ("trained:scratch:gpt2?n_layer=2", "trained", "scratch:gpt2?n_layer=2", ""),
        ("scratch:gpt2?n_layer=2", "", "scratch:gpt2?n_layer=2", ""),
        ("oracle", "oracle", "", ""),
        ("org/x", "", "org/x", ""),
    ],
)
def test_a_parameter_that_names_a_judge_or_a_model(value, kind, model, options):
    assert spec.split(value) == (kind, model, options) and spec.joined(kind, model, options) == value
    assert spec.fingerprint(value, lambda name: f"<{name}>") == (value.replace(model, f"<{model}>") if model else value)
