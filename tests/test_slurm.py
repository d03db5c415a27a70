"""Both pipelines on a Slurm cluster of one node on this machine: ``make test-slurm``.

The profile is ``profiles/slurm`` with the line for clusters without accounting, as its comment says.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import slurm
from conftest import ROOT, TEST_PARAMS, underseer
from underseer import store

pytestmark = pytest.mark.slurm
SELFMOA = ROOT / "params/test/selfmoa.yaml"
WAIT = 3600  # seconds, on a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Cluster]:
    if problem := slurm.lacking():
        pytest.fail(problem)
    made = slurm.Cluster()
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    assert "# slurm-status-command: squeue" in text
    (folder / "config.yaml").write_text(text.replace("# slurm-status-command: squeue", "slurm-status-command: squeue"))
    return folder


@pytest.fixture(autouse=True)
def environment(cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])


def start(home: Path, *args: object) -> subprocess.Popen[str]:
    env = {**os.environ, "UNDERSEER_HOME": str(home), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "underseer.runs.cli", "run", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(happens: Callable[[], object], process: subprocess.Popen) -> None:
    end = time.monotonic() + WAIT
    while not happens():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.2)


def test_w2s_computes_what_it_computes_here(cluster, profile: Path, finished: Path, tmp_path: Path) -> None:
    """Each stage is a job of its own, with the resources of its parameters or else of the profile."""
    sets = ("--set", "job_minutes=60,w2s/4_student:90", "--set", "job_memory_gb=w2s/4_student:2.5")
    before = {job["id"] for job in cluster.jobs()}
    done = underseer(tmp_path, "run", TEST_PARAMS, "--profile", profile, *sets, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [job for job in cluster.jobs() if job["id"] not in before]
    assert len(jobs) == 13 and {job["state"] for job in jobs} == {"COMPLETED"}
    asked = {job["comment"].split("_wildcards_")[0]: (job["limit"], job["memory"]) for job in jobs}
    assert asked["rule_w2s_4_student"] == ("1:30:00", "2500M") and asked["rule_w2s_1_data"] == ("1:00:00", "16000M")
    mine, local = (json.loads((h / "reports/test/w2s_safety/results.json").read_text()) for h in (tmp_path, finished))
    assert (mine["rows"], mine["pgr"]) == (local["rows"], local["pgr"])
    assert not list(tmp_path.glob("runs/*/*/.work-*"))


def test_a_stage_that_fails_is_named(cluster, profile: Path, tmp_path: Path) -> None:
    sets = ("--set", "voting=none", "--set", "weak_learning_rate=1e30", "--until", "w2s/2_supervisors")
    before = len(cluster.jobs("FAILED"))
    done = underseer(tmp_path, "run", TEST_PARAMS, "--profile", profile, *sets, timeout=WAIT)
    assert done.returncode == 1 and "failed: w2s/2_supervisors" in done.stderr and "training diverged" in done.stderr
    assert len(list(tmp_path.glob("runs/w2s/2_supervisors/failed/*.ipynb"))) == 1
    assert len(cluster.jobs("FAILED")) == before + 1, "no stage is tried twice"


def test_a_cancelled_job_is_named_and_the_same_command_goes_on(cluster, profile: Path, tmp_path: Path) -> None:
    command = (TEST_PARAMS, "--profile", profile, "--set", "voting=none", "--until", "w2s/2_supervisors")
    process = start(tmp_path, *command)
    running = []
    until(
        lambda: running.extend(j for j in cluster.jobs("RUNNING") if "2_supervisors" in j["comment"]) or running,
        process,
    )
    cluster.run("scancel", running[0]["id"])
    told = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 1 and "failed: w2s/2_supervisors" in told and "'CANCELLED'" in told, told
    done = underseer(tmp_path, "run", *command, timeout=WAIT)
    assert done.returncode == 0 and "1 to run" in done.stdout, done.stdout + done.stderr


def test_ctrl_c_cancels_the_jobs(cluster, profile: Path, tmp_path: Path) -> None:
    process = start(tmp_path, TEST_PARAMS, "--profile", profile)
    until(lambda: cluster.jobs("RUNNING"), process)
    process.terminate()
    told = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 130 and told.strip() == "stopped; the same command continues"
    end = time.monotonic() + 60
    while cluster.jobs("RUNNING", "PENDING", "COMPLETING") and time.monotonic() < end:
        time.sleep(0.5)
    assert not cluster.jobs("RUNNING", "PENDING", "COMPLETING")


def test_selfmoa_goes_on_when_the_command_was_killed(cluster, profile: Path, tmp_path: Path) -> None:
    """Jobs outlive the command that submitted them. The next one waits for those at work, and computes nothing again."""
    process = start(tmp_path, SELFMOA, "--profile", profile)
    until(lambda: any("judges_evaluator" in job["comment"] for job in cluster.jobs("RUNNING")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = time.time()
    at_work = {
        folder.name.removeprefix(".work-") for folder in tmp_path.glob("runs/*/*/.work-*") if store.is_working(folder)
    }
    before = {o.key: o.path.stat().st_ino for o in store.outputs(tmp_path / "runs")}
    done = underseer(tmp_path, "run", SELFMOA, "--profile", profile, timeout=2 * WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = {o.key: o for o in store.outputs(tmp_path / "runs")}
    assert len(outputs) == 32 and all(outputs[key].path.stat().st_ino == inode for key, inode in before.items())
    from datetime import datetime

    again = [k for k in at_work if datetime.fromisoformat(outputs[k].manifest["started"]).timestamp() > killed + 1]
    assert at_work and not again, "what was at work when the command was killed went on"
    assert store.verify(tmp_path / "runs")[1] == [] and not list(tmp_path.glob("runs/*/*/.work-*"))
    shutil.rmtree(tmp_path)
