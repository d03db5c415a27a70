"""Tasks: what goes together, what reruns what, and the continuations between stages."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from underseer import look
from underseer.engines import cuts
from underseer.errors import UserError
from underseer.maths import selection
from underseer.runs import modules, params, plan
from underseer.w2s import frames, passages, tasks

TOXICITY = ROOT / "params" / "test" / "w2s_toxicity.yaml"
SAFETY = ROOT / "params" / "test" / "w2s_safety.yaml"


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_has_its_metric_and_its_votes(name: str) -> None:
    """The names that the schema and the tasks allow are those that the notebooks choose by."""
    task = tasks.task(name)
    suffix = "_continuation" if task.kind == "continuation" else ""
    for stage, names in (("3_weak_labels", task.votings), ("4_student", task.losses)):
        code = (ROOT / "notebooks" / "w2s" / f"{stage}{suffix}.ipynb").read_text()
        assert all(f'\\"{each}\\"' in code for each in names), stage


@pytest.mark.parametrize(
    ("file", "sets", "told"),
    [
        (TOXICITY, ["student_loss=aux_conf"], "student_loss = 'aux_conf': the toxicity task takes hard_ce"),
        (SAFETY, ["student_loss=filtered_ce"], "it needs supervisors that can disagree"),
        (SAFETY, ["n_judge=10"], "n_judge = 10: the safety task has no judges"),
        (TOXICITY, ["reporting_judge=null"], "reporting_judge = null: the toxicity task needs it"),
    ],
)
def test_parameters_that_do_not_go_together(file, sets: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told.replace("'", ".")):
        plan.make(params.load(file, sets))


def test_a_stage_rests_on_its_own_code_alone() -> None:
    """Code that generates and judges is in no key of a classifier's stages, and report code in none but the report's."""
    stages = {
        s: plan.read_notebook(f"w2s/{s}").reached for s in ("1_data", "2_supervisors", "3_weak_labels", "4_student")
    }
    for reached in stages.values():
        assert not [m for m in reached if m.split(".")[0] in ("engines", "judges", "report", "testbed", "selfmoa")]
    assert "training.finetune" not in stages["1_data"] | stages["3_weak_labels"]
    for stage in ("2_supervisors", "3_weak_labels", "4_student"):
        reached = plan.read_notebook(f"w2s/{stage}_continuation").reached
        assert "engines.local" in reached and not [m for m in reached if m.startswith("report")]
    data = plan.read_notebook("w2s/1_data")
    assert data.modules({"dataset": "testbed-legal"}) != data.modules({"dataset": "privacy-policy-qa"})


def test_types_are_no_part_of_a_key() -> None:
    import ast

    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from underseer.{} import {}\nfrom underseer import data"
    one, other = (
        modules._decisive(ast.parse(code.format(*p))) for p in (("training", "finetune"), ("models", "specs"))
    )
    assert modules.imports(one) == ["data"] and ast.dump(one) == ast.dump(other)


ROWS = pd.DataFrame(
    {
        "id": list("abcd"),
        "split": ["transfer", "transfer", "validation", "test"],
        "text": ["one", "two", "three", "four"],
        "continuation": [" x", " y", " z", " w"],
        "prompt_toxicity": [0.1, 0.2, 0.3, 0.9],
        "toxicity": [0.0, 0.1, 0.2, 0.8],
        "label": [0, 0, 0, 1],
    }
)


def test_the_truth_of_test_rows_is_sealed() -> None:
    known, truth = tasks.task("toxicity").seal(ROWS)
    hidden = known[known.split == "test"].iloc[0]
    assert pd.isna(hidden.label) and pd.isna(hidden.toxicity) and pd.isna(hidden.continuation) and hidden.text == "four"
    assert known.toxicity[:3].tolist() == [0.0, 0.1, 0.2] and known.continuation[0] == " x"
    assert truth.to_dict("records") == [
        {"id": "d", "label": 1, "continuation": " w", "toxicity": 0.8, "prompt_toxicity": 0.9}
    ]
    known, truth = tasks.task("safety").seal(ROWS)
    assert known.label.isna().sum() == 1 and list(truth.columns) == ["id", "label"]


def written(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"id": list("abc")[: len(texts)], "split": "transfer", "draw": 1, "text": texts})


def align(found: list[pd.DataFrame]) -> pd.DataFrame:
    return frames.align(found, "text")


def test_one_supervisor_or_a_choice() -> None:
    one = align([written(" p", " q")])
    assert passages.candidates(one).shape == (1, 2)
    single = passages.choose(one, selection.single, np.array([[[0.1, 0.2]]]))
    assert single.continuation.tolist() == [" p", " q"] and single.toxicity.tolist() == [0.1, 0.2]
    assert single.nll.isna().all()
    three = align([written(" a b c", " k"), written(" a b d", " l m n"), written(" a b c", " l m o")])
    toxicity = np.zeros((1, 3, 2))
    chosen = passages.choose(three, selection.mbr, toxicity)
    assert chosen.continuation[0] == " a b c" and chosen.supervisor[1] != 0
    same = passages.choose(align([written(" p", " q")] * 3), selection.mbr, toxicity)
    assert same.continuation.tolist() == single.continuation.tolist()
    with pytest.raises(UserError, match="3 supervisors; one is needed"):
        passages.choose(three, selection.single, toxicity)


def test_judges_choose_what_they_find_least_toxic() -> None:
    answers = align([written(" p", " q"), written(" r", " s")])
    toxicity = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.8, 0.3], [0.1, 0.2]], [[0.3, 0.2], [0.4, 0.9]]])
    voted = passages.choose(answers, selection.best_of_b, toxicity)
    assert voted.supervisor.tolist() == [1, 0]  # two of three judges each
    assert voted.toxicity.tolist() == pytest.approx([0.7 / 3, 0.2]) and voted.nll.isna().all()
    nll = np.array([[1.0, 2.0], [9.0, 1.0]])
    fluent = passages.choose(answers, selection.least_toxic, toxicity, nll)
    assert fluent.supervisor[0] == 0  # the less toxic one reads worse than the median candidate
    assert fluent.nll.tolist() == [1.0, nll[fluent.supervisor[1], 1]]
    unscored = passages.choose(answers, selection.best_of_b, np.full((1, 2, 2), np.nan))
    assert unscored.supervisor.tolist() == [-1, -1] and unscored[["continuation", "toxicity"]].isna().all(axis=None)


def test_prompts_without_a_verdict_are_left_out() -> None:
    answers = align([written(" p", " q", " r"), written(" s", " t", " u")])
    toxicity = np.array([[[0.9, np.nan, np.nan], [0.2, np.nan, np.nan]]])
    for rule, nll in ((selection.best_of_b, None), (selection.least_toxic, np.ones((2, 3)))):
        lost = passages.choose(answers, rule, toxicity, nll)
        assert lost.supervisor.tolist() == [1, -1, -1] and lost.continuation.isna().tolist() == [False, True, True]
        assert look.chosen(lost).prompts.to_dict() == {1: 1}
        holds, words = passages.enough_chosen(lost)
        assert not holds and "2 of 3 have none" in words and "50%" in words
    toxicity[0, 0, 1] = 0.5
    kept = passages.choose(answers, selection.best_of_b, toxicity)
    assert passages.enough_chosen(kept)[0]
    assert passages.teach(ROWS, kept).continuation.tolist() == [" s", " q"]
    with pytest.raises(UserError, match="none of 3 prompts has a chosen continuation"):
        passages.teach(ROWS, kept.assign(continuation=None))


def test_a_continuation_that_was_cut_stays_marked_as_such() -> None:
    finish = (["stop", "length", "stop"], ["length", "stop", "stop"])
    both = [written(" p", " q", " r"), written(" s", " t", " u")]
    answers = frames.align([w.assign(finish=f) for w, f in zip(both, finish, strict=True)], "text", "finish")
    chosen = passages.choose(answers, lambda texts: [1, 0, 0], np.zeros((1, 2, 3)))
    assert chosen.cut.tolist() == [True, True, False] and cuts.cut_share(chosen) == pytest.approx(2 / 3)
    assert cuts.cut_words(chosen).startswith("WARNING: 2 of 3 answers ran out of tokens (66.7%), above 5%")
    assert passages.teach(ROWS, chosen).cut.tolist() == [True, True, False]
    assert "cut" not in passages.teach(ROWS, None)
    unchosen = passages.choose(answers, lambda texts: [-1, 0, 0], np.zeros((1, 2, 3)))
    assert unchosen.cut.tolist() == [False, True, False] and unchosen.cut.dtype == bool


def test_a_rule_of_ones_own_chooses() -> None:
    answers = align([written(" p", " q"), written(" r r", " s")])
    toxicity = np.zeros((1, 2, 2))

    def longest(texts: list[list[str]]) -> np.ndarray:
        return np.array([[len(t) for t in each] for each in texts]).argmax(axis=0)

    assert passages.choose(answers, longest, toxicity).continuation.tolist() == [" r r", " q"]
    with pytest.raises(UserError, match="asks for nll, which is measured for voting = 'least_toxic' alone"):
        passages.choose(answers, lambda nll: nll.argmin(axis=0), toxicity)
    with pytest.raises(UserError, match="numbers of 2 candidates, from 0 to 1"):
        passages.choose(answers, lambda texts: [5, 0], toxicity)


def test_the_student_learns_weak_continuations_alone() -> None:
    weak = pd.DataFrame({"id": list("cba"), "continuation": [" 3", " 2", " 1"]})
    taught = passages.teach(ROWS, weak)
    assert dict(zip(taught.id, taught.continuation, strict=True)) == {"a": " 1", "b": " 2", "c": " 3"}
    assert passages.teach(ROWS, None).continuation.tolist() == [" x", " y", " z"]
    with pytest.raises(UserError, match="1 of 3 prompts have no weak continuation"):
        passages.teach(ROWS, weak.iloc[:2])


def test_shape_of_continuations() -> None:
    told = passages.shape(pd.Series([" a b a b", "", " a b"]))
    assert told == pytest.approx({"n_words": 2.0, "empty_share": 1 / 3, "distinct_2": 2 / 4})


@pytest.mark.parametrize("file", sorted((ROOT / "params").glob("*/*.yaml")), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_experiment_file_resolves(file) -> None:
    if file.parent.name == "base":
        return
    experiment = params.load(file)
    for p in experiment.resolved() if experiment.pipeline == "w2s" else ():
        tasks.check(p)
    assert json.dumps(experiment.variants)
