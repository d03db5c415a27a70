"""How far a stage has come: what its bar writes, what others read of it, and the time that is left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from underseer import paths, progress, store
from underseer.runs import estimate, show, watch
from underseer.runs.plan import Instance, Plan


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of a stage under the executor, in which every step is written at once."""
    (tmp_path / "instance.json").write_text("{}")
    monkeypatch.setenv("UNDERSEER_WORK", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.0)
    return tmp_path


def test_each_step_can_be_read_by_others(work: Path) -> None:
    assert progress.read(work) is None and progress.line(None) == ""
    with progress.bar(200, "train", "step", initial=40) as bar:
        assert progress.read(work)["step"] == 40 and progress.read(work)["seconds_left"] is None
        bar.set_postfix(loss="0.312", refresh=False)
        bar.update(80)
        state = progress.read(work)
        assert (state["step"], state["total"], state["values"]) == (120, 200, {"loss": "0.312"})
    assert progress.line({**state, "seconds_left": 187.0}) == "train 120 of 200 steps, loss 0.312, 3:07 left"
    (work / progress.FILE).write_text("{half")
    assert progress.read(work) is None


def test_a_batch_notebook_gets_a_line_a_minute(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    for shown in (True, False):
        with progress.bar(2, "judge", "answer", shown=shown) as bar:
            bar.update(1)
    assert capsys.readouterr().out.count("judge 1 of 2 answers") == 1


def test_by_hand_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSEER_WORK", str(tmp_path))  # a variable that was left behind: no instance there
    with progress.bar(3, "train", "step", shown=False) as bar:
        bar.update(3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "clock"), [(7, "0:07"), (187.9, "3:07"), (3787, "1:03:07")])
def test_clock(seconds: float, clock: str) -> None:
    assert progress.clock(seconds) == clock


def test_time_left_is_what_the_stages_have_taken_less_what_is_spent() -> None:
    left = [Instance(stage, key, {}, {}, {}, {}) for stage, key in (("a/1", "x"), ("a/1", "y"), ("a/2", "z"))]
    usual = {"a/1": 10.0, "a/2": 4.0}
    assert watch.time_left(left, usual, {"x": 6.0, "y": 99.0}, jobs=2) == (4.0 + 0.0 + 4.0) / 2
    assert watch.time_left(left, {"a/1": 10.0}, {}, jobs=2) is None, "a stage that has never run here"


def test_status_and_table_name_what_a_stage_is_at(home: Path) -> None:
    stages = [Instance("w2s/1_data", "a" * 16, {}, {}, {}, {}), Instance("w2s/5_report", "b" * 16, {}, {}, {}, {})]
    stages[1].inputs["data"] = ["a" * 16]
    plan = Plan("test/x", "params/test/x.yaml", "w2s", "", {i.key: i for i in stages}, [])
    text = io.StringIO()
    with store.working("w2s/1_data", "a" * 16) as folder:
        (folder / "instance.json").write_text("{}")
        state = {"name": "train", "unit": "step", "step": 1, "total": 4, "values": {}, "seconds_left": 3.0}
        (folder / progress.FILE).write_text(json.dumps(state))
        assert show.working() == {f"w2s/1_data {'a' * 16}": "train 1 of 4 steps, 0:03 left"}
        row = [list(c.cells) for c in show.by_experiment([plan], show.working(), []).columns]
        assert row == [["test/x"], [""], ["1"], [""], ["1"], [""]]
        shown = watch.Watch(stages, Console(file=text, width=120), jobs=1)
        for instance in stages:
            shown._look(instance, lines=True)
        shown._beat()
        Console(file=text, width=160).print(shown._table())
    assert text.getvalue().count("train 1 of 4 steps, 0:03 left") == 2 and "begins" in text.getvalue()
    assert show.working() == {} and paths.work("w2s/1_data", "a" * 16).is_dir()
    shown._look(stages[0], lines=True)
    assert list(shown.running) == ["a" * 16], "its result is on its way, as far as is known"
    kept = paths.failed_notebook("w2s/1_data", "a" * 16)
    kept.parent.mkdir()
    kept.write_text("{}")
    shown._look(stages[0], lines=True)
    assert shown.running == {} and f"failed   w2s/1_data {'a' * 16}" in text.getvalue()


def test_a_dequantised_model_has_no_seconds(home: Path) -> None:
    place = paths.place("models/gguf", "a" * 16)
    place.mkdir(parents=True)
    manifest = {"stage": "models/gguf", "key": "a" * 16, "cost": {}, "marks": {}}
    (place / "manifest.json").write_text(json.dumps(manifest))
    assert watch.seconds_by_stage() == {} and estimate.History().finished == {}
