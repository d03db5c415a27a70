"""How Snakemake is started: profiles, what is asked of a cluster, and what its output says of jobs that failed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT, TEST_PARAMS
from underseer import paths, store
from underseer.errors import UserError
from underseer.runs import launch, params, plan, warm, workflow

LOG = """\
[Thu Nov 26 09:56:31 2026]
Error in rule w2s_1_data:
    message: SLURM-job '1' failed, SLURM status is: 'CANCELLED'. Detailed failure reason unavailable.
    jobid: 1
    output: /home/a b/runs/.plans/.work-node-18210/w2s_1_data/0123456789abcdef
    log: /home/a b/.snakemake/slurm_logs/1.log (check log file(s) for error details)
[Thu Nov 26 09:56:31 2026]
Error in rule w2s_4_student:
    message: None
    jobid: 7
    input: /home/a b/runs/.plans/.work-node-18210/w2s_1_data/0123456789abcdef
    output: /home/a b/runs/.plans/.work-node-18210/w2s_4_student/f276c015719eee44
    shell:
        python -m underseer.runs.execute (command exited with non-zero exit code)
"""


def profile(folder: Path, text: str | bytes) -> str:
    (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def test_jobs_that_failed_are_read_from_snakemakes_output() -> None:
    cancelled = "SLURM-job '1' failed, SLURM status is: 'CANCELLED'"
    assert launch.errors(LOG) == {"0123456789abcdef": cancelled, "f276c015719eee44": ""}
    assert launch.errors("Complete log(s): x\n") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no such Snakemake profile; there are slurm"),
        ("executor: [", "not YAML"),
        (b"executor: \xff", "config.yaml: byte 0xff is not UTF-8; convert the file"),
        ("a: !!timestamp x", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("- executor", "['executor']: expected 'key: value' lines"),
        ("executor: [a]", "executor = ['a']: expected the name of one, such as slurm"),
        ("jobs: many", "jobs = 'many': expected a whole number from 1"),
        ("jobs: 0", "jobs = 0: expected a whole number from 1"),
        ("jobs: true", "jobs = True: expected a whole number from 1"),
        ("executor: no-such-thing", "pip install snakemake-executor-plugin-no-such-thing"),
    ],
)
def test_a_profile_that_cannot_be_used(tmp_path: Path, text: str | None, expected: str) -> None:
    name = "slurmm" if text is None else profile(tmp_path, text)
    with pytest.raises(UserError) as error:
        launch.open_profile(name)
    assert expected in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_profile_in_the_environment_reaches_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "/nowhere")
    assert launch.environment() == {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}


def test_the_cores_of_this_machine_do_not_limit_a_cluster(home: Path, tmp_path: Path) -> None:
    local = launch.open_profile(profile(tmp_path, "latency-wait: 5"))
    cluster = launch.Profile(ROOT / "profiles/slurm", "slurm", 64)
    assert (local.is_cluster, cluster.is_cluster) == (False, True)

    def command(jobs: int | None, used: launch.Profile | None) -> str:
        files = (paths.plans() / "plan.json", paths.plans() / "marks")
        return " ".join(launch.command(*files, launch.at_a_time(jobs, used), used))

    assert "--cores 3" in command(3, None) and "--cores 3" in command(3, local)
    assert f"--cores {os.cpu_count()}" in command(None, local)
    assert "--cores" not in command(None, cluster) and "--jobs 64" in command(None, cluster)
    assert "--jobs 3" in command(3, cluster) and f"--workflow-profile {cluster.folder}" in command(3, cluster)
    assert "--config plan=runs/.plans/plan.json marks=runs/.plans/marks" in command(3, None)


@pytest.mark.parametrize(
    ("devices", "expected"), [("cuda cuda", 1), ("cuda:0 cuda:1 cpu", 2), ("auto cpu", os.cpu_count())]
)
def test_stages_do_not_share_a_gpu_unless_asked_to(devices: str, expected: int) -> None:
    stages = [SimpleNamespace(runtime={}), *(SimpleNamespace(runtime={"device": name}) for name in devices.split())]
    assert launch.at_a_time(None, None, stages) == expected
    assert launch.at_a_time(8, None, stages) == 8
    assert launch.at_a_time(None, launch.Profile(ROOT / "profiles/slurm", "slurm", 64), stages) == 64
    assert launch.at_a_time(None, launch.Profile(ROOT / "profiles/slurm", "slurm"), stages) == os.cpu_count()


@pytest.mark.parametrize("stages", [1, 2])
def test_one_stage_alone_needs_no_warm_process(home: Path, stages: int) -> None:
    with launch.local(1, stages) as env:
        assert Path(env["TMPDIR"]).is_dir() and (warm.SOCKET in env) == (stages > 1 and warm.is_safe())
    assert not Path(env["TMPDIR"]).exists()


@pytest.mark.parametrize("cluster", [False, True])
def test_marks_of_a_run_are_its_own_and_go_with_it(home: Path, cluster: bool) -> None:
    """What a killed run has left goes too; where its jobs may live on, on a cluster, after a week."""
    local, recent, old = (paths.work(paths.plans().name, n) for n in ("local-a-1", "cluster-a-1", "cluster-a-2"))
    for left in (local, recent, old):
        left.mkdir(parents=True)
    os.utime(old, (0, 0))
    lock = local.with_name(".work-local-a-2.lock")  # of a folder that Snakemake has removed
    lock.touch()
    launch.clear()
    with launch.marks(cluster=cluster) as mine:
        assert store.is_working(mine)
        assert mine.is_dir() and [left.exists() for left in (local, lock, recent, old)] == [False, False, True, False]
    assert list(paths.plans().iterdir()) == [recent]


def test_a_job_that_left_nothing_is_named(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    made = plan.make(params.load(TEST_PARAMS))
    student = next(i for i in made.instances.values() if i.stage == "w2s/4_student")
    log = tmp_path / "log"
    log.write_text(LOG.replace("f276c015719eee44", student.key))
    (one,) = workflow._failed(1, made.missing(), [], log)
    assert (one["stage"], one["key"], one["notebook"]) == ("w2s/4_student", student.key, str(log))
    assert one["problem"].startswith("its job ended without a result: it was killed")
    log.write_text("something else\n")
    (one,) = workflow._failed(2, made.missing(), [], log)
    assert one["stage"] == "snakemake" and "something else" in one["problem"]
    assert workflow._failed(0, made.missing(), [], log) == []
