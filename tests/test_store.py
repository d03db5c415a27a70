"""The run store: whole or absent, locked while worked on, damage named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import NOTHING
from underseer import paths, store
from underseer.errors import StageError, UserError

KEY = "0123456789abcdef"
STAGE = "w2s/1_data"


def make(home: Path, text: str = "content") -> store.Output:
    with store.working(STAGE, KEY) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)
        (folder / "checkpoints").mkdir()
        return store.seal(folder, paths.place(STAGE, KEY), NOTHING | {"stage": STAGE})


def test_sealed_output_is_whole(home: Path) -> None:
    output = make(home)
    assert output.manifest["files"] == {"sub/a.txt": {"bytes": 7, "sha256": store.sha256(output.path / "sub/a.txt")}}
    assert not paths.work(STAGE, KEY).exists() and not (output.path / "checkpoints").exists()
    assert store.verify() == (1, [])
    assert not [p for p in output.path.rglob("*") if p.is_file() and p.stat().st_mode & 0o222], "read-only"
    with pytest.raises(StageError, match="holds no 'b.txt'; it holds sub"):
        output.file("b.txt")


def test_a_folder_without_a_manifest_does_not_exist(home: Path) -> None:
    place = paths.place(STAGE, KEY)
    place.mkdir(parents=True)
    (place / "half.txt").write_text("killed here")
    assert store.read(STAGE, KEY) is None and list(store.outputs()) == []
    make(home)
    assert not (place / "half.txt").exists() and store.read(STAGE, KEY)


def test_what_stands_there_already_is_kept(home: Path) -> None:
    make(home, "first")
    make(home, "second")
    assert (paths.place(STAGE, KEY) / "sub/a.txt").read_text() == "first"


def test_damage_is_named(home: Path) -> None:
    output = make(home)
    (output.path / "sub/a.txt").chmod(0o644)
    (output.path / "sub/a.txt").write_text("c0ntent")
    (output.path / "new.txt").write_text("")
    count, damaged = store.verify()
    assert count == 1 and ["differs" in damaged[0], "not in the manifest" in damaged[1]] == [True, True]
    (output.path / "sub/a.txt").unlink()
    assert "missing" in store.verify(output.path)[1][0]
    with pytest.raises(UserError, match="no such folder"):
        store.verify(Path("nowhere"))


def test_leftovers_of_a_killed_run_are_dropped_but_checkpoints_kept(home: Path) -> None:
    folder = paths.work(STAGE, KEY)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "state").write_text("x")
    (folder / "half.parquet").write_text("x")
    with store.working(STAGE, KEY) as found:
        assert [p.name for p in found.iterdir()] == ["checkpoints"]


def test_two_processes_do_not_work_on_one_instance(home: Path) -> None:
    code = f"from underseer import store\nwith store.working('{STAGE}', '{KEY}') as f: print('in', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    assert store.is_working(paths.work(STAGE, KEY))
    other.kill()  # a dead process holds no lock
    other.wait()
    assert not store.is_working(paths.work(STAGE, KEY))
