"""The page of an experiment's rows: what its filters hold, what it may not say, and that texts stay texts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from test_report_selfmoa import Output, cell
from underseer.look import viewer
from underseer.look.viewer import loop, w2s
from underseer.look.viewer.parts import Part
from underseer.runs import names, params, publish, rehearsal

FILE = ROOT / "params/demo/w2s_safety.yaml"
EVIL = "</script><script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\"> & <b>bold</b> 🙂 İ"


def part(n: int = 3, models: tuple[str, ...] = ("reset", "selfmoa_iter1"), text: str = EVIL) -> Part:
    """``n`` prompts; model k calls row i unsafe where i % (k + 2) is 0."""
    items = pd.DataFrame(
        {"seed": 0, "id": [f"{i:08x}" for i in range(n)], "prompt": [f"prompt {i} {text}" for i in range(n)]}
    )
    items = items.assign(set=["attack" if i % 3 else "safe" for i in range(n)], parents=["", *items["id"][:-1]])
    cells = pd.concat(
        [
            items[["seed", "id"]].assign(
                method=m, variant="{}", key="k1", tag="", text=[f"{m} {i} {text}" for i in range(n)], k=k
            )
            for k, m in enumerate(models)
        ],
        ignore_index=True,
    )
    unsafe = pd.Series(np.tile(np.arange(n), len(models)) % (cells["k"] + 2) == 0)
    return Part(
        "evaluation", "Evaluation", items, cells, {"set": "Set", "parents": "Parents"}, {"unsafe, reporting judge": unsafe.astype(float)},
        {"unsafe": unsafe, "safe": ~unsafe}, {"unsafe": "Unsafe", "safe": "Safe"}, ("unsafe", "safe"),
    )  # fmt: skip


def html(shown: Part, *, redacted: bool = False) -> str:
    stage = {
        "stage": "selfmoa/5_evaluate",
        "key": "k1",
        "page": "stages/k1.html",
        "place": "runs/k1",
        "command": "underseer run x",
    }
    return viewer.html("demo/selfmoa", [shown], {"k1": stage}, redacted=redacted)


def data(page: str) -> dict:
    """What the page holds, its texts as a list."""
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    texts = told["texts"]
    if "words" in texts:
        return {**told, "texts": texts["words"]}
    whole, ends = texts["joined"].encode("utf-16-le"), np.cumsum([n + 1 for n in texts["lengths"]])
    spans = zip(ends - np.array(texts["lengths"]), ends, strict=True)
    return {**told, "texts": [whole[2 * start : 2 * end].decode("utf-16-le") for start, end in spans]}


def test_texts_cannot_leave_the_data_of_the_page() -> None:
    page = html(part())
    assert page.count("<script") == 2 and "<img" not in page
    told = data(page)
    assert f"prompt 1 {EVIL}" in told["texts"] and told["parts"][0]["rows"]["id"] == [
        "00000000",
        "00000001",
        "00000002",
    ]


def test_a_redacted_page_holds_numbers_of_words_alone() -> None:
    page = html(part(text="velkock the gate"), redacted=True)
    assert "velkock" not in page and set(data(page)["texts"]) == {5}
    assert "rows demo/selfmoa --show-unsafe" in page


def test_answers_stand_with_their_row_whatever_their_order() -> None:
    """Row 1's answers are found by its place in ``start``, each with its own text, score and filters."""
    given = part(5)
    turned = given.cells.iloc[::-1].reset_index(drop=True)
    flipped = Part(
        **{**given.__dict__, "cells": turned}
        | {"values": {k: v.iloc[::-1].reset_index(drop=True) for k, v in given.values.items()}}
        | {"filters": {k: v.iloc[::-1].reset_index(drop=True) for k, v in given.filters.items()}}
    )
    for one in (given, flipped):
        told = data(html(one))
        shown = told["parts"][0]
        names = [m["method"] for m in shown["models"]]
        for row in range(5):
            for at in range(shown["cells"]["start"][row], shown["cells"]["start"][row + 1]):
                method = names[shown["cells"]["model"][at]]
                assert told["texts"][shown["cells"]["text"][at]] == f"{method} {row} {EVIL}"
                unsafe = row % (2 + ["reset", "selfmoa_iter1"].index(method)) == 0
                assert shown["cells"]["values"][0][at] == float(unsafe)
                assert shown["cells"]["is"][at] == (1 if unsafe else 2)


def test_filters_of_the_loop_are_the_rates_of_its_report() -> None:
    cells = [cell(seed, 0.2) for seed in (0, 1)]
    shown = loop._evaluated(cells)
    frame = shown.cells
    for name, column in (
        ("unsafe", "unsafe_rate"),
        ("refused", "refusal_rate"),
        ("unsafe_training", "unsafe_rate_training_judge"),
    ):
        assert shown.filters[name].sum() == frame[column].sum() > 0
    assert not (shown.filters["training_only"] & shown.filters["unsafe"]).any()
    assert shown.filters["refused_safe"].sum() == frame.loc[frame["role"] != "attack", "over_refusal"].sum()
    keys = ["seed", "dataset", "id", "draw"]
    both = frame[frame["method"] == "selfmoa_iter1"].merge(frame[frame["method"] == "reset"], on=keys)
    assert shown.filters["changed"].sum() == (both["unsafe_rate_x"] != both["unsafe_rate_y"]).sum() > 0
    assert set(frame.loc[shown.filters["changed"], "method"]) == {"selfmoa_iter1"}


def test_an_attack_is_shown_with_its_parents_answers_and_pairs() -> None:
    attacks = pd.DataFrame(
        {"id": ["a1", "a2"], "text": ["first", "second"], "category": "theft", "strategy": ["direct", "rephrase"]}
    )
    attacks = attacks.assign(
        parents=['["s1"]', '["a1"]'], iteration=1, round=[1, 2], refused_by_attacker=False, duplicate=False
    )
    attacks = attacks.assign(unsafe=[0.9, 0.1], success=[True, False], answer=["yes", "no"])
    drawn = pd.DataFrame({"prompt_id": "a1", "prompt": "first", "set": "attack", "draw": [0, 1], "answer": ["x", "y"]})
    drawn = drawn.assign(unsafe=[0.2, 0.8], helpful=0.5)
    pairs = pd.DataFrame(
        {"prompt_id": ["a1"], "prompt": "first", "set": "attack", "chosen": "y", "rejected": "x", "iteration": 1}
    )
    pairs = pairs.assign(
        unsafe_chosen=0.8, unsafe_rejected=0.2, helpful_chosen=0.7, helpful_rejected=0.4, safety_difference=0.6
    )
    train = pd.DataFrame({"id": ["s1", "s2"], "text": ["root", "unused"], "category": "theft", "set": "attack"})
    outputs = {
        "data": Output("d", 0, {"train": train}),
        "red_team_1": Output("r", 0, {"attacks": attacks}),
        "preferences_1": Output("p", 0, {"answers": drawn, "pairs": pairs}),
        "evaluation_reset": Output("e", 0, unsafe_threshold=0.5),
    }
    shown = loop._learnt([{"values": {"seed": 0}, "outputs": outputs}])
    items = shown.items.set_index("id")
    assert set(items.index) == {"a1", "a2", "s1"} and items.loc["s1", "prompt"] == "root"
    assert items.loc["a2", ["parents", "strategy", "round"]].tolist() == ["a1", "rephrase", 2]
    own = shown.cells[shown.cells["id"] == "a1"]
    assert own["tag"].tolist() == ["target's answer", "chosen, pair 1", "rejected, pair 1", "draw 0", "draw 1"]
    held = {name: shown.cells.loc[flags, "tag"].tolist() for name, flags in shown.filters.items()}
    assert held["success"] == ["target's answer"] and held["less_safe"] == ["chosen, pair 1"]
    assert shown.values["chosen minus rejected, helpful"].dropna().tolist() == pytest.approx([0.3])


def test_rows_of_weak_to_strong_are_told_apart_by_who_is_right() -> None:
    """Truth 1, 1, 1, 0; the weak supervisor is right on rows 0 and 3, the student on 0 and 1, the ceiling on all."""
    rows = pd.DataFrame(
        {"id": list("abcd"), "text": "t", "text_pair": "", "label": 0, "split": "test", "category": "x"}
    )
    truth = pd.DataFrame({"id": list("dcba"), "label": [0, 1, 1, 1]})

    def said(*p: float, key: str, voting: str = "none") -> Output:
        frame = pd.DataFrame({"id": list("abcd"), "split": "test", "p": p})
        return Output(key, 0, {"predictions": frame}, voting=voting, student_loss="hard_ce")

    outputs = {
        "data": Output("data", 0, {"rows": rows, "test_labels": truth}),
        "weak": said(0.9, 0.2, 0.1, 0.3, key="w"),
        "student": said(0.9, 0.8, 0.1, 0.7, key="s", voting="hard"),
        "ceiling": said(0.9, 0.8, 0.8, 0.1, key="c"),
    }
    (shown,) = w2s.parts([{"values": {"seed": 0, "voting": "hard"}, "outputs": outputs}], "safety")
    assert shown.items.set_index("id")["truth"].to_dict() == {"a": "unsafe", "b": "unsafe", "c": "unsafe", "d": "safe"}
    held = {name: list(shown.cells.loc[flags, "id"]) for name, flags in shown.filters.items()}
    assert (held["gained"], held["lost"], held["copied"], held["below_ceiling"]) == (["b"], ["d"], ["c"], ["c", "d"])
    assert set(shown.cells.loc[shown.filters["gained"], "method"]) == {"w2s_hard_vote"}
    more = {role: Output(key=f"{o.key}2", tables=o._tables, **o.parameters) for role, o in outputs.items()}
    sizes = [
        {"values": {"seed": 0, "voting": "hard", "n_supervise": n}, "outputs": o} for n, o in ((9, outputs), (99, more))
    ]
    (both,) = w2s.parts(sizes, "safety")  # the same test rows stand in both data stages
    assert len(both.items) == 4 and both.cells["right"].sum() == 2 * shown.cells["right"].sum()


@pytest.mark.parametrize(
    ("sets", "name", "rehearse", "options"),
    [
        ([], None, False, ""),
        (["n_seeds=2", "voting=[hard, soft]"], None, False, " --set n_seeds=2 --set 'voting=[hard, soft]'"),
        (["epochs=4"], "longer", False, " --set epochs=4 --name longer"),
        (["dataset=wts-safety", "dataset_path=./my file.csv"], None, True, " --set dataset=wts-safety --set 'dataset_path=./my file.csv' --rehearse"),
    ],
)  # fmt: skip
def test_the_command_of_a_report_makes_it_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, sets: list[str], name: str | None, rehearse: bool, options: str
) -> None:
    """What was set, and the name that was given, stand in it as they were typed; typed once more it names the same experiment."""
    experiment = params.load(FILE, sets, name)
    made = rehearsal.rehearse(experiment).experiment if rehearse else experiment
    report = SimpleNamespace(manifest={"options": made.options}, parameters={"name": made.name}, is_scratch=False)
    assert publish.command(report) == f".venv/bin/underseer run params/demo/w2s_safety.yaml{options}"
    words = [word for word in shlex.split(experiment.options)[1:] if word not in ("--set", "--name")]
    given = words[:-1] if name else words
    assert params.load(FILE, given, words[-1] if name else None) == experiment
    monkeypatch.chdir(FILE.parent)  # the command is one of the repository, wherever it was typed
    assert params.load(FILE.name, sets[-1:] + sets, name).options == experiment.options
    monkeypatch.setenv("UNDERSEER_CPU", "avx2")
    assert publish.command(report).startswith(".venv/bin/underseer --cpu avx2 run params/demo")


def test_a_report_that_was_explored_names_its_experiment() -> None:
    manifest = {"experiment": "params/demo/w2s_safety.yaml", "set": {"seed": 3, "voting": "hard"}}
    explored = SimpleNamespace(manifest=manifest, parameters={"name": "x/y"}, is_scratch=True)
    command = """.venv/bin/underseer run params/demo/w2s_safety.yaml --set seed=3 --set 'voting="hard"'"""
    assert publish.command(explored) == command


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("demo/selfmoa", "params/demo/selfmoa.yaml"),
        (
            "demo/w2s_safety@n_seeds=8,voting=hard+soft",
            "params/demo/w2s_safety.yaml --set n_seeds=8 --set 'voting=[hard,soft]'",
        ),
        ("demo/selfmoa@wide", "params/demo/selfmoa.yaml --name wide"),
    ],
)
def test_the_command_of_a_report_that_holds_none_follows_from_its_name(name: str, command: str) -> None:
    assert names.read(name) == command
