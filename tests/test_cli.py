"""A user's mistake is one line a mistake, exit code 2, nothing run, never a traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from conftest import NOTHING, TEST_PARAMS, underseer
from underseer.runs import params, plan, publish


def refused(done: subprocess.CompletedProcess[str], home: Path) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (home / "runs").exists(), "something was written"
    return done.stderr


def run(home: Path, *sets: object) -> subprocess.CompletedProcess[str]:
    return underseer(home, "run", TEST_PARAMS, *[a for s in sets for a in ("--set", s)], cold=True)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = refused(run(tmp_path / "home", "epochs=long", "votng=hard", "n_test=-1"), tmp_path / "home")
    assert len(told.strip().splitlines()) == 3


def test_dry_run_runs_nothing(tmp_path: Path) -> None:
    done = underseer(tmp_path / "home", "run", TEST_PARAMS, "--dry-run")
    assert done.returncode == 0 and "would run" in done.stdout and not (tmp_path / "home" / "runs").exists()


def test_until_shows_what_a_stage_needs(tmp_path: Path) -> None:
    done = underseer(tmp_path, "run", TEST_PARAMS, "--dry-run", "--set", "seed=7", "--until", "w2s/3_weak_labels")
    assert done.returncode == 0 and "until w2s/3_weak_labels, 8 to run" in done.stdout
    assert "w2s/2_supervisors" in done.stdout and "w2s/4_student" not in done.stdout
    told = refused(underseer(tmp_path, "run", TEST_PARAMS, "--until", "w2s/3_weak_label"), tmp_path)
    assert told.startswith("--until w2s/3_weak_label: ") and "did you mean 'w2s/3_weak_labels'" in told
    done = underseer(tmp_path, "plan", TEST_PARAMS, "--until", "w2s/3_weak_labels", "--json")
    stages = {row["stage"] for row in json.loads(done.stdout)}
    assert stages == {"w2s/1_data", "w2s/2_supervisors", "w2s/3_weak_labels"}


def test_a_plan_of_a_folder_counts_what_is_shared_once(tmp_path: Path) -> None:
    folder = TEST_PARAMS.parents[1] / "demo"
    alone = [plan.make(params.load(file)).instances for file in sorted(folder.glob("*.yaml"))]
    keys = [row["key"] for row in json.loads(underseer(tmp_path, "plan", folder, "--json").stdout)]
    assert len(keys) == len(set(keys)) < sum(map(len, alone)) and set(keys) == {key for one in alone for key in one}
    estimated = underseer(tmp_path, "plan", folder, "--estimate")
    assert estimated.returncode == 0 and "w2s/4_student" in estimated.stdout


def test_a_report_is_rendered_in_its_folder_for_explorations_alone(home: Path) -> None:
    for name, explored in (("runs/w2s/5_report/0a", False), ("scratch/w2s/5_report/20260101-120000", True)):
        folder = home / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
        manifest = NOTHING | {"stage": "w2s/5_report", "marks": {"scratch": explored}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert (publish.explored(name) is not None) is explored
    done = underseer(home, "report", "runs/w2s/5_report/0a")
    assert done.returncode == 2 and "no finished report of that name" in done.stderr
    assert sorted(p.name for p in (home / "runs/w2s/5_report/0a").iterdir()) == ["manifest.json", "results.json"]


def test_empty_store(tmp_path: Path) -> None:
    assert "nothing has run" in underseer(tmp_path, "status").stdout
    assert "0 stage outputs verified" in underseer(tmp_path, "verify").stdout
    assert "nothing to log" in underseer(tmp_path, "sync").stdout
    assert underseer(tmp_path, "report", "demo/w2s_safety").returncode == 2
    assert underseer(tmp_path, "run", "params/demo/nope.yaml").returncode == 2
    assert "no exploratory result" in underseer(tmp_path, "promote", "scratch/w2s/1_data/x").stderr


@pytest.mark.parametrize("command", ["", "run", "plan", "status", "show", "diff", "open", "logs", "mlflow", "du", "gc",
                                     "verify", "promote", "sync", "report", "rows", "export"])  # fmt: skip
def test_help(tmp_path: Path, command: str) -> None:
    done = underseer(tmp_path, *command.split(), "--help", cold=not command)
    assert done.returncode == 0 and "Usage" in done.stdout


def test_a_folder_stands_for_its_experiments(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert "holds no experiment file" in refused(underseer(tmp_path, "run", tmp_path / "mine"), tmp_path)
    (tmp_path / "mine/b.yaml").write_text(f"extends: {TEST_PARAMS}\n")
    done = underseer(tmp_path, "run", tmp_path / "mine", tmp_path / "mine/b.yaml", "--dry-run")
    assert done.returncode == 0 and done.stdout.count("mine/b: 3 variants") == 1
