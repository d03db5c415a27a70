"""Experiment files: every mistake is found before anything runs, each in one line with what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import ROOT
from underseer.errors import UserError
from underseer.runs import files, params, plan, seeds

FILES = sorted(p for p in (ROOT / "params").glob("*/*.yaml") if p.parent.name != "base")


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def problems(file: Path, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        plan.make(params.load(file, sets))
    return str(caught.value).splitlines()


def extending(folder: Path, text: str) -> Path:
    return write(folder, f"extends: {ROOT}/params/test/w2s_safety.yaml\n{text}")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_shipped_file_is_valid(file: Path) -> None:
    experiment = params.load(file)
    assert experiment.variants and experiment.description
    assert experiment.name == f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name in ("demo", "test")], ids=lambda f: f.stem)
def test_offline_files_plan(file: Path) -> None:
    assert plan.make(params.load(file)).instances


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = extending(tmp_path, "learning_rate: 5e-5\nepochs: 3\nvoting: none\nvariants: {seed: [0]}")
    found = params.load(file).parameters
    assert found["learning_rate"] == 5e-5 and found["voting"] == "none" and found["epochs"] == 3


def test_extends_and_grid() -> None:
    experiment = params.load(ROOT / "params/demo/w2s_safety.yaml", ["n_seeds=3", "voting=[none, hard, soft]"])
    assert len(experiment.variants) == 9
    assert next(iter(experiment.resolved()))["weight_decay"] == 0.01  # from the base file


def test_list_of_grids_is_their_union(tmp_path: Path) -> None:
    file = extending(tmp_path, "variants:\n- {seed: [0, 1]}\n- {seed: [1], voting: [hard]}\n- {seed: [0]}")
    assert params.load(file).variants == ({"seed": 0}, {"seed": 1}, {"seed": 1, "voting": "hard"})


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    found = problems(
        extending(tmp_path, "epochs: -1\nvotng: hard\nn_test: many\nvariants: {seed: [x]}"), "batch_size=0"
    )
    assert len(found) == 5


def test_missing_parameters_are_named(tmp_path: Path) -> None:
    found = problems(write(tmp_path, "pipeline: w2s\nseed: 0\n"))
    assert any("n_supervise: missing; w2s/1_data needs it" in line for line in found)
    assert any("bootstraps: missing" in line for line in found)


def seeds_of(file: Path, *sets: str) -> list[int]:
    return list(dict.fromkeys(v["seed"] for v in params.load(file, sets).resolved()))


@pytest.mark.parametrize(
    ("text", "sets", "expected"),
    [
        ("", [], [0]),
        ("n_seeds: 3", [], [0, 1, 2]),
        ("seeds: reporting\nn_seeds: 2", [], [10, 11]),
        ("seeds: second", ["n_seeds=10"], list(range(20, 30))),
        ("", ["seeds=second", "n_seeds=2"], [20, 21]),
        ("", ["seed=12"], [12]),
        ("", ["seed=[3, 30]"], [3, 30]),
        ("", ["seed=12", "seeds=reporting"], [*range(10, 20)]),
        ("variants: {seed: [5, 6]}", [], [5, 6]),
        ("variants: {seed: [5, 6]}", ["seeds=second", "n_seeds=1"], [20]),
        ("seed: 4\nvariants:\n- {voting: [none]}\n- {seed: [5], voting: [hard]}", [], [4, 5]),
        ("variants:\n- {voting: [none]}\n- {n_test: [9]}", [], [0]),
        ("seed: 7", [], [7]),
    ],
)
def test_seeds_by_the_name_of_their_set(tmp_path: Path, text: str, sets: list[str], expected: list[int]) -> None:
    """A file's own seeds, as a set or one by one, take the place of inherited ones; the command line of both."""
    assert seeds_of(extending(tmp_path, text), *sets) == expected


def test_a_grid_may_keep_fewer_seeds(tmp_path: Path) -> None:
    """So that a cheap arm has more seeds than a dear one; n_seeds of the command line caps both."""
    file = extending(tmp_path, "n_seeds: 5\nvariants:\n- {voting: [none]}\n- {voting: [hard], n_seeds: 2}")
    made = [(v["seed"], v["voting"]) for v in params.load(file).resolved()]
    assert made == [(k, "none") for k in range(5)] + [(k, "hard") for k in range(2)]
    assert len(params.load(file, ["n_seeds=1"]).variants) == 2
    (said,) = problems(extending(tmp_path, "variants:\n- {voting: [hard], n_seeds: 0}"))
    assert "n_seeds = 0: expected a whole number above 0" in said


def test_sets_of_seeds_are_disjoint_and_shipped_files_report_none_that_was_tuned_on() -> None:
    sets = seeds.sets()
    assert set(sets) == {"tuning", "reporting", "second"} and len({s for v in sets.values() for s in v}) == 30
    with pytest.raises(UserError, match="seed 3 stands in a and in b"):
        seeds.checked({"a": [2, 3], "b": [3]})
    for file in FILES:
        assert seeds.described(seeds_of(file))["set"] == ("tuning" if file.parent.name == "test" else "reporting"), file
    assert seeds.described([11, 10])["values"] == [10, 11] and seeds.described([9, 10])["set"] is None
    assert seeds.described([])["set"] is None and seeds.described([10])["tuned_on"] == sets["tuning"]


@pytest.mark.parametrize(
    ("sets", "name", "expected"),
    [
        ([], None, ""),
        (["jobs"], "wide", None),
        (["threads=2", "eval_batch_size=3", "description=mine"], None, ""),
        (["seeds=tuning", "n_seeds=1", "epochs=1"], None, ""),
        (["seed=0"], None, ""),
        (["n_seeds=2"], None, "@n_seeds=2"),
        (["seeds=second", "threads=2"], None, "@seeds=second"),
        (["voting=[none, hard]", "epochs=2"], None, r"@epochs=2,voting=none\+hard"),
        (["weak_model=org/a"], None, r"@weak_model=org-a-[0-9a-f]{8}"),
        (["weak_model=org-a"], None, "@weak_model=org-a"),
        (["dataset_path=README.md"], None, r"@dataset_path=README\.md-[0-9a-f]{8}"),
        ([f"seed={list(range(30))}"], None, r"@seed=0[+\d]{50,}-[0-9a-f]{8}"),
        (["n_seeds=2"], "wide", "@wide"),
        ([], "wide", "@wide"),
        ([], "../x", None),
    ],
)
def test_a_rerun_with_other_results_has_a_name_of_its_own(
    sets: list[str], name: str | None, expected: str | None
) -> None:
    file = ROOT / "params/test/w2s_safety.yaml"
    if expected is None:
        with pytest.raises(UserError, match="expected"):
            params.load(file, sets, name)
    else:
        found = params.load(file, sets, name).name
        assert re.fullmatch("test/w2s_safety" + expected, found), found
    assert params.load(file, sets[::-1]).name == params.load(file, sets).name if expected else True


def test_set_replaces_and_sweeps() -> None:
    file = ROOT / "params/test/w2s_safety.yaml"
    assert len(params.load(file, ["seed=[0, 1]"]).variants) == 6
    assert params.load(file, ["voting=hard"]).variants == ({"seed": 0, "voting": "hard"},)
    assert params.load(file, ["epochs=2"]).parameters["epochs"] == 2
    assert "expected KEY=VALUE" in problems(file, "epochs")[0]


def test_set_paths_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text("prompt,is_safe\n")
    (tmp_path / "encoder").mkdir()
    found = params.load(
        ROOT / "params/test/w2s_safety.yaml", ["dataset_path=my.csv", "strong_model=encoder", "weak_model=org/name"]
    )
    assert found.parameters["dataset_path"] == str(tmp_path / "my.csv")
    assert found.parameters["strong_model"] == str(tmp_path / "encoder")
    assert found.parameters["weak_model"] == "org/name"
    axis = params.load(ROOT / "params/test/w2s_safety.yaml", ["strong_model=[encoder, org/name]"]).resolved()
    assert {p["strong_model"] for p in axis} == {str(tmp_path / "encoder"), "org/name"}
    assert files.name_of(Path("/x.yaml")) == "root/x"  # never the folder /x


def test_every_parameter_is_commented_in_a_params_file() -> None:
    """A key's unit and reason stand beside it, once, in params/base or in the experiment that sets it."""
    for file in (ROOT / "params/base").glob("*.yaml"):
        for line in file.read_text().splitlines():
            if line and not line.startswith(("#", "pipeline")):
                assert "#" in line, f"{file.name}: {line}"
