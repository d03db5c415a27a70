"""MLflow under faults: copies that are raced, killed, undone by hand, or that meet a store that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest

from underseer import paths, progress, store
from underseer.runs import live, mlflow_runs, mlflow_view, tracking, workflow
from underseer.runs.plan import Instance, Plan

STAGES = 4
RUNS = STAGES + 3  # with the report, its configuration and its variant


def finished(stage: str, number: int) -> Instance:
    """A finished stage instance in the store, with curves, metrics and a notebook."""
    instance = Instance(stage, f"{number:016x}", {"seed": number}, {}, {}, {"notebook": "0"})
    with store.working(stage, instance.key) as folder:
        pd.DataFrame({"step": [1, 2], "metric": "train_loss", "value": [2.0, 1.0]}).to_parquet(
            folder / "curves.parquet"
        )
        (folder / "summary.json").write_text(
            json.dumps({"variants": [{"values": {"seed": 0}, "metrics": {"accuracy": 0.5}}], "configurations": []})
        )
        (folder / "notebook.ipynb").write_text("{}")
        moment = "2026-01-01T00:00:00+00:00"
        record = {"metrics": {"loss": 1.0}, "cost": {"seconds": 1.0}, "started": moment, "finished": moment}
        record |= {"marks": {"unsafe": False, "synthetic": True}, "provenance": {"commit": None}}
        store.seal(folder, instance.place, {**vars(instance), **record})
    return instance


def planned(name: str = "test/x", stages: int = STAGES) -> Plan:
    """A plan whose stages have all finished, saved in the store."""
    instances = [finished("w2s/4_student", n) for n in range(stages)] + [finished("w2s/5_report", stages)]
    needs = [i.key for i in instances[:-1]]
    variant = {"values": {"seed": 0}, "parameters": {"seed": 0, "task": "safety"}, "roles": {}, "needs": needs}
    made = Plan(name, f"params/{name}.yaml", "w2s", "", {i.key: i for i in instances}, [variant])
    workflow.save(made)
    return made


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty database: making one takes many migrations."""
    import mlflow

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking._create_database(mlflow, f"{tracking.SQLITE}{file}")
    return file


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan in a store that MLflow knows nothing of."""
    monkeypatch.setenv("UNDERSEER_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return planned()


@pytest.fixture
def plan(new: Plan, database: Path, tmp_path: Path) -> Plan:
    """A plan in a store with an empty database of MLflow."""
    shutil.copy(database, tmp_path)
    return new


def command(**env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "underseer.runs.cli", "sync"],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def logged(plan: Plan) -> list:
    """The runs that MLflow holds: each whole, with its metrics and parameters."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking.uri())
    experiment = client.get_experiment_by_name(plan.name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    assert all(run.info.status == "FINISHED" and run.data.params for run in runs)
    stages = [run for run in runs if run.data.tags["kind"] == "stage"]
    assert all(len(client.get_metric_history(run.info.run_id, "curve.train_loss")) == 2 for run in stages)
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 1 for run in stages)
    assert all(
        [f.path for f in client.list_artifacts(r.info.run_id)] == ["manifest.json", "notebook.ipynb"] for r in stages
    )
    assert max(Counter(run.data.tags["underseer.id"] for run in runs).values(), default=1) == 1
    return runs


def test_syncs_that_race_from_the_first_one_on_log_each_run_once(new: Plan) -> None:
    started = [command() for _ in range(3)]
    ended = [(process.wait(timeout=300), process.stderr.read()) for process in started]
    assert ended == [(0, "")] * 3
    assert len(logged(new)) == RUNS


def test_a_creation_that_was_killed_half_way_leaves_a_sound_store(new: Plan) -> None:
    process = command()
    part = paths.home() / ".mlflow.db.part"
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (paths.home() / "mlflow.db").exists()
    assert tracking.sync(new) == RUNS and len(logged(new)) == RUNS
    assert not part.exists()


def test_what_a_killed_copy_left_is_logged_again_and_whole(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy ends at the curves of the second stage: its run is there, without curves and not finished."""
    calls = []

    def curves(self, run: str, table: pd.DataFrame, original=tracking.Copy._curves) -> None:
        calls.append(run)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(self, run, table)

    monkeypatch.setattr(tracking.Copy, "_curves", curves)
    with pytest.raises(KeyboardInterrupt):
        tracking.sync(plan)
    assert not tracking.is_logged(plan)
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS and tracking.is_logged(plan)


@pytest.mark.parametrize("asynchronous", ["true", "false"])
@pytest.mark.parametrize("where", ["tracking.sqlalchemy_store.SqlAlchemyStore.log_batch",
                                   "artifact.local_artifact_repo.LocalArtifactRepository.log_artifact"])  # fmt: skip
def test_what_cannot_be_written_is_told_and_logged_again(
    plan: Plan, monkeypatch, where: str, asynchronous: str
) -> None:
    """The first run's parameters, or an artifact; where the user has MLflow log in the background, too."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", asynchronous)
    calls, write = [], resolve_name(f"mlflow.store.{where}")

    def full(*given: object, **named: object) -> None:
        calls.append(given)
        if len(calls) == (3 if "artifact" in where else 1):
            raise OSError(28, "No space left on device")
        write(*given, **named)

    monkeypatch.setattr(f"mlflow.store.{where}", full)
    with pytest.raises(tracking.Unreachable, match="No space left"):
        tracking.sync(plan)
    assert not tracking.is_logged(plan)
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS and tracking.is_logged(plan)


@pytest.mark.parametrize("file", ["notebook.ipynb", "curves.parquet"])
def test_a_stage_that_lost_a_file_is_not_taken_for_whole(plan: Plan, file: str) -> None:
    lost = next(iter(plan.instances.values())).place / file
    aside = lost.rename(paths.home() / file)
    with pytest.raises(tracking.Unreachable, match=file):
        tracking.sync(plan)
    assert not tracking.is_logged(plan)
    aside.rename(lost)
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS


def test_a_run_that_was_deleted_by_hand_is_logged_again(plan: Plan) -> None:
    import mlflow

    assert tracking.sync(plan) == RUNS
    client = mlflow.MlflowClient(tracking_uri=tracking.uri())
    for kind in ("stage", "configuration"):
        client.delete_run(next(r for r in logged(plan) if r.data.tags["kind"] == kind).info.run_id)
    assert tracking.sync(plan) == 2
    runs = {run.info.run_id: run for run in logged(plan)}
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs.values()]
    assert len(runs) == RUNS and all(parent in runs for parent in parents if parent)
    assert tracking.sync(plan) == 0


def test_what_finished_later_is_added(plan: Plan) -> None:
    keys = list(plan.instances)
    later = keys[0]
    aside = plan.instances[later].place.rename(paths.home() / "aside")
    assert tracking.sync(plan) == RUNS - 1 and tracking.is_logged(plan)
    aside.rename(plan.instances[later].place)
    assert not tracking.is_logged(plan) and tracking.sync(plan) == 1
    assert len(logged(replace(plan))) == RUNS


def test_a_stage_at_work_is_a_running_run_until_its_result_takes_its_place(plan: Plan) -> None:
    import mlflow

    key = next(iter(plan.instances))
    aside = plan.instances[key].place.rename(paths.home() / "aside")
    with store.working("w2s/4_student", key) as folder:
        for step in (10, 20):
            state = {"name": "train", "unit": "step", "step": step, "total": 40, "values": {"loss": f"{1 / step}"}}
            (folder / progress.FILE).write_text(json.dumps({**state, "seconds_left": 1.0}))
            tracking.sync(plan)
        client = mlflow.MlflowClient(tracking_uri=tracking.uri())
        experiment = client.get_experiment_by_name(plan.name).experiment_id
        (live,) = client.search_runs([experiment], "attributes.status = 'RUNNING'")
        (variant,) = client.search_runs([experiment], "tags.kind = 'variant'")
        assert live.data.tags["mlflow.parentRunId"] == variant.info.run_id
        curve = client.get_metric_history(live.info.run_id, "curve.train_loss")
        assert [(point.step, point.value) for point in curve] == [(10, 0.1), (20, 0.05)]
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS - 1, "a stage that was killed leaves no run"
    aside.rename(plan.instances[key].place)
    assert tracking.sync(plan) == 1 and len(logged(plan)) == RUNS


def test_tags_say_what_was_promoted_and_what_the_task_is(plan: Plan) -> None:
    promoted, plain = list(plan.instances.values())[:2]
    file = promoted.place / store.MANIFEST
    record = json.loads(file.read_text()) | {"promoted_from": "scratch/x"}
    file.unlink()
    store.write_manifest(promoted.place, record)
    tracking.sync(
        replace(plan, name="test/loop", variants=[{**plan.variants[0], "parameters": {"seed": 0, "epochs": 1}}])
    )
    runs = {run.data.tags["underseer.id"]: run.data.tags for run in logged(replace(plan, name="test/loop"))}
    assert runs[f"stage:{promoted.key}"]["promoted"] == "True" and "promoted" not in runs[f"stage:{plain.key}"]
    assert {tags["task"] for tags in runs.values()} == {"self-alignment"}


def test_a_stage_that_finishes_while_others_are_logged_is_logged_next(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = next(iter(plan.instances.values())).place
    aside, log = place.rename(paths.home() / "aside"), mlflow_runs.Copy.all

    def finishing(copy: mlflow_runs.Copy) -> int:
        logged = log(copy)
        aside.rename(place)
        return logged

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(mlflow_runs.Copy, "all", finishing)
        tracking.sync(plan)
    assert not tracking.is_logged(plan) and tracking.sync(plan) == 1 and len(logged(plan)) == RUNS


def test_a_look_that_fails_ends_no_others(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of reports cannot be written for a moment: the next look makes up for it."""
    looks: list[int] = []

    def publish(plans: list[Plan], *, ended: bool = False) -> set[str]:
        looks.append(len(looks))
        if len(looks) == 1:
            raise OSError(28, "No space left on device")
        return set()

    for name, value in (("publish", publish), ("FIRST", 0.0), ("PAUSE", 0.01)):
        monkeypatch.setattr(live, name, value)
    begun = time.monotonic()
    with live.beside([plan]):
        while not tracking.is_logged(plan):
            assert time.monotonic() - begun < 300
            time.sleep(0.1)
    assert len(looks) > 1


def test_runs_of_another_layout_are_logged_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("underseer.runs.mlflow_runs.LAYOUT", "1")
        tracking.sync(plan)
    assert tracking.sync(plan) == RUNS and len(logged(plan)) == RUNS


METRICS = {"student_f1": 0.5, "pgr_accuracy": 0.123456, "pgr_accuracy.ci95_low": 0.1, "pgr_accuracy.ci95_high": 0.2,
           "student_accuracy": 0.9, "n_seeds": 3.0}  # fmt: skip


def test_few_numbers_come_first_with_their_half_widths() -> None:
    first = mlflow_view.headline("w2s", "accuracy", METRICS)
    assert first == ["pgr_accuracy", "student_accuracy"]
    named = mlflow_view.arranged(METRICS, first)
    assert [name for name in named if "/" not in name] == [*first[:1], "pgr_accuracy.half_width", first[1], "n_seeds"]
    assert (named["pgr_accuracy"], named["pgr_accuracy.half_width"]) == (0.1235, 0.05)
    assert {name.removeprefix("all/"): v for name, v in named.items() if "/" in name} == METRICS


def test_headline_of_the_loop() -> None:
    names = [
        f"{model}_{metric}"
        for model in ("reset", "selfmoa", "selfmoa_iter1")
        for metric in (
            "unsafe_rate_x",
            "unsafe_rate_training_judge_x",
            "helpfulness_safe",
            "helpfulness_attack",
            "over_refusal_b",
        )
    ]
    expected = ["selfmoa_unsafe_rate_x", "selfmoa_helpfulness_safe", "selfmoa_over_refusal_b", "reset_unsafe_rate_x"]
    assert mlflow_view.headline("selfmoa", "safety_score", names) == expected


def test_the_view_of_an_experiment_names_its_axes_and_sorts_by_its_question(plan: Plan) -> None:
    tracking.sync(plan)
    tracking.sync(replace(plan, name="test/x@seed=3"))
    own, rerun, both = tracking.views("http://x").items()
    assert (
        own[0] == "test/x" and own[1].startswith("http://x/#/experiments/") and own[1].endswith(f"={mlflow_view.KEY}")
    )
    assert rerun[0] == "test/x@seed=3" and both[0] == "test/x@seed=3 beside test/x"
    assert "/#/compare-runs?runs=%5B" in both[1] and "experiments=%5B%221%22%2C+%222%22%5D" in both[1]
    for name in ("test/y@first", "test/y@a"):
        tracking.sync(replace(plan, name=name))
    assert [n for n in tracking.views("http://x") if " beside " in n] == [both[0], "test/y@a beside test/y@first"]
    voting = replace(plan, variants=[{**plan.variants[0], "values": {"seed": 0, "voting": "hard"}}])
    state = json.loads(mlflow_view.view(voting, ["pgr_accuracy"]))
    assert state["selectedColumns"][:2] == ["params.`voting`", "metrics.`pgr_accuracy`"]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`pgr_accuracy`", False)
    assert state["searchFilter"] == "tags.kind = 'configuration'"


def test_pages_say_what_still_runs_and_a_run_that_is_over_ends_what_looks(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = replace(plan, instances={**plan.instances, "0": replace(plan.report, key="0" * 16)})
    unfinished.instances.pop(plan.report.key)
    assert live.still(plan) == "" and live.still(unfinished) == f"test/x: {STAGES} of {STAGES + 1} stages done"
    page = paths.home() / "reports/test/index.html"
    assert live.publish([unfinished]) == set(), "no page before the first report"
    page.parent.mkdir(parents=True)
    page.write_text("")
    begun = time.monotonic()
    with live.beside([unfinished]):
        assert time.monotonic() - begun < live.FIRST
    assert page.read_text() == "" and time.monotonic() - begun < live.END, "a run of seconds is not looked at"
    monkeypatch.setattr(live, "FIRST", 0.0)
    with live.beside([unfinished]):
        while not tracking.is_logged(unfinished):
            assert time.monotonic() - begun < 600
            time.sleep(0.1)
        assert "Still running: test/x" in page.read_text()
    assert "Still running" not in page.read_text() and page.read_text()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("postgresql://me:secret@127.0.0.1:9/x", "127.0.0.1:9: "),
        ("mysql+nothing://me:secret@/x", "mysql"),
        ("http://127.0.0.1:9", "127.0.0.1:9: "),
        ("sqlite:////proc/none/x.db", "none"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://me:secret@[::1", "Invalid IPv6 URL"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("postgresql://me:secret/x@127.0.0.1:9/x", "Port could not be cast"),
        ("postgres://127.0.0.1/x?user=me&password=secret", "postgres"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_without_a_password(
    plan: Plan, address: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for use in (lambda: tracking.sync(plan), lambda: tracking.views("http://127.0.0.1:5000")):
        with pytest.raises(tracking.Unreachable) as error:
            use()
        line = str(error.value)
        assert why in line and "secret" not in line and "\n" not in line
    held = [f.read_text() for f in paths.plans().rglob("*") if f.is_file()]
    assert not any("secret" in text for text in held)


@pytest.mark.parametrize(
    "address",
    ["http://me:se%40cret@host", "mysql://host/x?user=me&passwd=se%40cret", "postgresql://h/x?sslpassword=se@cret&a=b"],
)
def test_no_error_shows_a_password_decoded_or_as_it_is_written(address: str) -> None:
    line = tracking._one_line(ValueError("no user me with se@cret or se%40cret at host\nmore"), address)
    assert line in ("no user me with *** or *** at host", "no user me with *** or se%40cret at host")


def test_a_broken_database_is_one_line_and_stays_as_it_is(plan: Plan) -> None:
    file = paths.home() / "mlflow.db"
    file.write_bytes(b"no database at all, but longer than its header " * 20)
    before = file.read_bytes()
    process = command()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1 and told.startswith("MLflow is away (") and len(told.splitlines()) == 1
    assert file.read_bytes() == before


def test_the_address_is_kept_only_as_a_hash(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.sync(plan) == RUNS
    note = (paths.plans() / plan.name / ".logged").read_text()
    assert str(paths.home()) not in note and tracking.is_logged(plan)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not tracking.is_logged(plan)
