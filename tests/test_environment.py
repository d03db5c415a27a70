"""Machines as they are: odd names of folders, users without a name or rights, full disks, clocks that are set back."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, TEST_PARAMS, underseer
from underseer import store
from underseer.errors import UserError
from underseer.runs import execute, params, plan, warm, workflow

DATA = ("run", TEST_PARAMS, "--until", "w2s/1_data", "--jobs", "1")
NOBODY = 54_321  # a user whom no list of users knows


def as_another(command: list[str]) -> list[str]:
    """The command as a user without a name, who may read everything and write nothing of others; without root as oneself."""
    if os.geteuid():
        return command
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights, *command]


needs_setpriv = pytest.mark.skipif(not os.geteuid() and not shutil.which("setpriv"), reason="root without setpriv")


@needs_setpriv
def test_odd_folders_and_a_user_without_a_name_or_a_home(tmp_path: Path) -> None:
    """A stage runs although the store's path holds braces, '#', quotes and spaces, the interpreter's a space, TMPDIR is longer
    than any socket's path may be, HOME is not there, and nobody knows the user."""
    odd = tmp_path / "it's {odd} #1"
    temporary = odd / ("long" * 30)
    temporary.mkdir(parents=True)
    (odd / "venv").symlink_to(Path(sys.prefix))
    for folder in (odd, temporary) if not os.geteuid() else ():
        os.chown(folder, NOBODY, NOBODY)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME")}
    env |= {"HOME": "/nonexistent", "UNDERSEER_HOME": str(odd / "store"), "TMPDIR": str(temporary)}
    env |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "PYTHONDONTWRITEBYTECODE": "1"}
    command = as_another([str(odd / "venv/bin/python"), "-m", "underseer.runs.cli", *map(str, DATA)])
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "done     w2s/1_data" in done.stdout, done.stdout + done.stderr
    assert "MLflow is away" in done.stderr and "Traceback" not in done.stderr
    assert store.verify(odd / "store")[0] == 1


@needs_setpriv
def test_a_store_that_may_only_be_read_is_read(home: Path, tmp_path: Path) -> None:
    """What reads works; what would write says so, before anything runs."""
    (home / "runs").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    home.chmod(0o555), (home / "runs").chmod(0o555)
    told = {}
    for words in (("status",), ("verify",), DATA, ("sync",)):
        command = as_another([sys.executable, "-m", "underseer.runs.cli", *map(str, words)])
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        told[words[0]] = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert [done.returncode for done in told.values()] == [0, 0, 2, 0], told
    assert "home: the store cannot be written (Permission denied)" in told["run"].stderr
    assert len(told["run"].stderr.splitlines()) == 1


def limited(most: int) -> Callable[[], None]:
    """Lets a process write files of so many bytes and none larger: the fault of a full disk, without one."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_a_disk_that_is_full_before_and_while_a_stage_runs(tmp_path: Path) -> None:
    done = underseer(tmp_path / "none", *DATA, preexec_fn=limited(1000))
    assert done.returncode == 2 and "the store cannot be written (File too large)" in done.stderr, done.stderr
    home = tmp_path / "some"
    done = underseer(home, *DATA, preexec_fn=limited(26_000))  # the plan fits, the executed notebook does not
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "failed: w2s/1_data" in done.stderr and "File too large" in done.stderr
    assert not list((home / "runs").rglob("manifest.json")) and not list((home / "runs").rglob("*.part*"))
    assert "File too large" in underseer(home, "status").stdout


def test_a_failure_that_cannot_be_written_down_is_still_told(home: Path, monkeypatch, capsys) -> None:
    made = plan.make(params.load(TEST_PARAMS))
    instance = next(iter(made.instances.values()))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with store.working(instance.stage, instance.key) as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
            assert execute._keep_failure(instance, folder, "no space left") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "failed: no space left" in capsys.readouterr().err and workflow.failures() == []
    record = home / "runs/w2s/1_data/failed/0.json"
    record.write_text('{"stage": "w2s')
    (told,) = workflow.failures()
    assert told["stage"] == "w2s/1_data" and told["problem"] == "its record cannot be read"


def test_a_clock_that_is_set_back_hides_no_failure_and_no_newer_plan(home: Path, monkeypatch) -> None:
    record = home / "runs/w2s/1_data/failed/0.json"
    store.write_text(record, json.dumps({"problem": "old"}))
    before = workflow._records()
    assert workflow._records() == before
    store.write_text(record, json.dumps({"problem": "new"}))
    os.utime(record, (1, 1))
    assert workflow._records() != before
    first, second = (plan.make(params.load(TEST_PARAMS, [f"description={n}"])) for n in ("first", "second"))
    workflow.save(first)
    monkeypatch.setattr(workflow.time, "time_ns", lambda: 1_000)
    workflow.save(second)
    assert [p.description for p in workflow.saved()] == ["second"]


def test_a_report_is_not_made_anew_from_what_is_damaged(home: Path) -> None:
    folder = home / "runs/w2s/5_report/0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    record = {name: {} for name in ("inputs", "hashes", "metrics", "cost", "marks")}
    record |= {"stage": "w2s/5_report", "parameters": {"name": "test/x"}, "finished": "2026"}
    store.write_manifest(folder, record)
    (folder / "results.json").write_text("{")
    done = underseer(home, "report", "test/x")
    assert done.returncode == 2 and "results.json: differs from its manifest; remove" in done.stderr
    (folder / "manifest.json").write_text(json.dumps(record | {"files": 3}))
    done = underseer(home, "verify")
    assert done.returncode == 1 and "not a manifest" in done.stderr and "Traceback" not in done.stderr


def test_a_store_that_cannot_be_written_says_so(home: Path) -> None:
    (home / "runs").parent.mkdir(parents=True)
    (home / "runs").write_text("")
    with pytest.raises(UserError, match="the store cannot be written .*UNDERSEER_HOME=/path"):
        workflow.check_writable()


def test_sockets_find_room_however_long_the_folder_of_temporary_files(tmp_path: Path, monkeypatch) -> None:
    from underseer import paths

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    with paths.temporary() as folder:
        assert len(f"{folder}/kernel-5") < 104
        warm.sweep()
        assert Path(folder).is_dir()
