"""Looking into the store and clearing it: nothing that anything reaches is deleted, and nothing at all unless asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import underseer
from underseer import paths, store
from underseer.errors import StageError, UserError
from underseer.runs import housekeeping, workflow
from underseer.runs.plan import Instance, Plan

MOMENT = "2026-01-01T00:00:00+00:00"


def finished(stage: str, letter: str, inputs: dict[str, list[str]] | None = None, **notes: object) -> Instance:
    """A finished result; ``inputs`` as in a manifest, by name."""
    instance = Instance(stage, letter * 16, {"seed": ord(letter)}, {}, {}, {"notebook": letter})
    cells = [{"cell_type": "code", "metadata": {}, "source": [f"x = '{letter}'\n", "y = 1"], "outputs": []}]
    cells[0]["outputs"].append({"output_type": "stream", "text": [f"printed by {letter}\n"]})
    with store.working(stage, instance.key) as folder:
        (folder / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
        (folder / "rows.parquet").write_bytes(b"0" * 1000)
        record = {**vars(instance), "inputs": inputs or {}, "metrics": {"loss": 1.0}, "cost": {"seconds": 1.0}}
        record |= {"marks": {"unsafe": False}, "started": MOMENT, "finished": MOMENT, **notes}
        made = {"commit": None, "versions": {"torch": "2"}, "host": "here"}
        store.seal(folder, instance.place, {**record, "provenance": made})
    return instance


@pytest.fixture
def held(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store in which a plan, a report, a promoted result and a result by hand reach a, b, c and d; nothing reaches e and f."""
    (tmp_path / "root/params").mkdir(parents=True)  # no experiment file
    monkeypatch.setattr(paths, "ROOT", tmp_path / "root")
    a = finished("w2s/1_data", "a")
    planned = finished("w2s/5_report", "9", {"data": [f"w2s/1_data/{a.key}"]})
    workflow.save(Plan("test/x", "x.yaml", "w2s", "", {planned.key: planned}, []))
    b = finished("w2s/2_supervisors", "b")
    finished("w2s/5_report", "8", {"supervisors": [f"w2s/2_supervisors/{b.key}"]})
    (home / "reports/test/y").mkdir(parents=True)
    (home / "reports/test/y/results.json").write_text(json.dumps({"provenance": {"report": "8" * 16}}))
    c = finished("w2s/1_data", "c")
    finished("w2s/4_student", "7", {"data": [f"w2s/1_data/{c.key}"]}, promoted_from="scratch/w2s/4_student/1")
    d = finished("w2s/1_data", "d")
    by_hand = home / "scratch/w2s/4_student/20260101-000000"
    by_hand.mkdir(parents=True)
    nothing = {name: {} for name in ("parameters", "hashes", "metrics", "cost", "marks")}
    store.write_manifest(by_hand, nothing | {"stage": "w2s/4_student", "inputs": {"data": [f"w2s/1_data/{d.key}"]}})
    e = finished("w2s/1_data", "e")
    finished("w2s/4_student", "f", {"data": [f"w2s/1_data/{e.key}"]})
    left = paths.work("w2s/4_student", "0" * 16)
    left.mkdir()
    return home


def test_gc_keeps_all_that_anything_reaches(held: Path) -> None:
    unreached = housekeeping.garbage()
    assert {output.key[0] for output in unreached.results} == {"e", "f"}
    assert [path.name for path in unreached.leavings] == [f".work-{'0' * 16}"]
    housekeeping.remove(unreached)
    assert {output.key[0] for output in store.outputs()} == set("9a8b7cd")
    assert not housekeeping.garbage().results and store.verify()[1] == []


def test_gc_waits_for_a_run_and_keeps_what_one_may_take_up(held: Path) -> None:
    with store.working("w2s/4_student", "1" * 16), pytest.raises(StageError, match="a run is going on"):
        housekeeping.garbage()
    paths.work("w2s/5_report", "9" * 16).mkdir()  # killed, with checkpoints to go on from
    assert all(path.name != f".work-{'9' * 16}" for path in housekeeping.garbage().leavings)


@pytest.mark.parametrize(("key", "problem"), [("x1", "no finished result"), ("", "results have such a key")])
def test_a_key_that_names_nothing_or_too_much(held: Path, key: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        housekeeping.named(key)


def test_commands_about_results(home: Path) -> None:
    """Through the command line, in a store of two results of one stage. ``gc`` reads every experiment file and deletes nothing."""
    for letter in "ab":
        finished("w2s/1_data", letter)
    shown = underseer(home, "show", "aaa").stdout
    assert "w2s/1_data/aaaa" in shown and "seed: 97" in shown and "rows.parquet: 1,000 bytes" in shown
    differ = underseer(home, "diff", "aaaa", "bbbb").stdout
    assert "seed" in differ and "97" in differ and "98" in differ and "metrics: the same" in differ
    assert "-x = 'a'" in differ and "+x = 'b'" in differ
    assert underseer(home, "logs", "bbbb").stdout.splitlines()[-1] == "printed by b"
    assert underseer(home, "open", "bbbb", "--print").stdout.strip().endswith("bbbb/notebook.ipynb")
    assert "w2s/1_data" in underseer(home, "du").stdout
    for wrong in (["show", "c"], ["diff", "aaaa", "c"], ["open", "demo/nothing"], ["logs", "c"]):
        done = underseer(home, *wrong)
        assert done.returncode == 2 and "no finished result" in done.stderr and "Traceback" not in done.stderr


def test_a_log_that_is_not_text_is_shown(home: Path) -> None:
    (paths.plans() / "test/x").mkdir(parents=True)
    (paths.plans() / "test/x/0.log").write_bytes(b"begins\n\xff ends\n")
    done = underseer(home, "logs", "test/x")
    assert done.returncode == 0 and "begins" in done.stdout and "ends" in done.stdout


@pytest.mark.parametrize("change", ["inputs", "cost", "marks", "hashes", "metrics", "parameters", "files", "stage", "bytes", "finished"])  # fmt: skip
def test_a_manifest_without_what_is_read_of_it_is_damaged(home: Path, change: str) -> None:
    place = finished("w2s/1_data", "a").place
    file = place / store.MANIFEST
    record = json.loads(file.read_text())
    if change == "bytes":
        record["files"]["rows.parquet"].pop(change)
    elif change == "finished":
        record[change] = 3
    else:
        record.pop(change)
    file.chmod(0o644)
    file.write_text(json.dumps(record))
    with pytest.raises(StageError, match="not a manifest; remove .* and run the same command again"):
        housekeeping.sizes(store.outputs())
    assert store.verify()[1] == [f"{paths.shown(file)}: not a manifest"] and not list(store.readable())


def test_what_no_stage_made_is_shown(home: Path) -> None:
    """A model that was dequantised has no host, commit and end."""
    place = finished("models/gguf", "a").place
    file = place / store.MANIFEST
    record = json.loads(file.read_text())
    file.chmod(0o644)
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in ("finished", "provenance", "runtime")}))
    assert housekeeping.differences(store.Output(place), store.Output(place))["code"] == []


@pytest.mark.slow
def test_gc_by_default_deletes_nothing(home: Path) -> None:
    finished("w2s/1_data", "a")
    done = underseer(home, "gc")
    assert done.returncode == 0 and "reached by nothing: 1 results" in done.stdout
    assert (home / "runs/w2s/1_data").is_dir()
    assert "params/demo" not in done.stdout, "every experiment of the demo can be planned"
    assert "deleted: 1 results" in underseer(home, "gc", "--delete").stdout and not list(store.outputs())
