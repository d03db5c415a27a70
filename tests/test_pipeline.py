"""The whole test experiment through the command line: what a user sees, and that its numbers can be trusted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import psutil
import pytest

from conftest import ROOT, TEST_PARAMS, outputs, underseer, warmed
from soak import processes
from underseer import paths, store
from underseer.errors import UserError
from underseer.maths import metrics
from underseer.runs import execute, keys, params, plan, publish, workflow


def test_an_unchanged_rerun_does_nothing(finished: Path) -> None:
    """But it removes what a run left that was killed when all its stages had ended."""
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = [paths.temporaries() / f"underseer-{killed.pid}-x", finished / f"runs/.plans/.work-local-a-{killed.pid}"]
    for folder in left:
        folder.mkdir()
    before = {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("manifest.json")}
    started = time.monotonic()
    done = underseer(finished, "run", TEST_PARAMS, cold=True)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert time.monotonic() - started < 10  # 3 s on a calm machine
    assert not any(folder.exists() for folder in left)
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("manifest.json")}


def test_verify_finds_nothing_wrong(finished: Path) -> None:
    done = underseer(finished, "verify")
    assert done.returncode == 0 and "13 stage outputs verified" in done.stdout


def test_status_and_plan(finished: Path) -> None:
    assert "test/w2s_safety  13 " in underseer(finished, "status").stdout
    assert "w2s/4_student" in underseer(finished, "status", "--stages").stdout
    rows = json.loads(underseer(finished, "plan", TEST_PARAMS, "--json").stdout)
    assert all(row["cached"] for row in rows) and set(rows[0]) == {"key", "stage", "parameters", "inputs", "cached"}
    more = json.loads(underseer(finished, "plan", TEST_PARAMS, "--json", "--set", "seed=[0, 1]").stdout)
    assert [r["cached"] for r in more].count(True) == 12  # all but the report


def test_a_rerun_with_other_results_overwrites_nothing(finished: Path, tmp_path: Path) -> None:
    """Its report, its MLflow experiment and its place on the index page are its own; what decides no result keeps the name."""
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    reports = home / "reports/test"
    before = (reports / "w2s_safety/results.json").read_bytes()
    done = underseer(home, "run", TEST_PARAMS, "--set", "voting=none")
    assert done.returncode == 0 and "reports/test/w2s_safety@voting=none/index.html" in done.stdout, done.stderr
    assert (reports / "w2s_safety/results.json").read_bytes() == before
    again = json.loads((reports / "w2s_safety@voting=none/results.json").read_text())
    assert again["name"] == "test/w2s_safety@voting=none" and len(again["rows"]) < len(json.loads(before)["rows"])
    seeds = {"set": "tuning", "values": [0], "tuned_on": list(range(10)), "choices": "docs/tuning.md"}
    assert again["provenance"]["seeds"] == json.loads(before)["provenance"]["seeds"] == seeds
    index = (reports / "index.html").read_text()
    assert "w2s_safety/index.html" in index and "w2s_safety@voting=none/index.html" in index
    stages = (reports / "w2s_safety@voting=none/stages/index.html").read_text()
    assert "underseer run params/test/w2s_safety.yaml --set voting=none" in stages
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    found = {e.name: e.experiment_id for e in client.search_experiments()}
    assert {"test/w2s_safety", "test/w2s_safety@voting=none"} <= set(found)
    (run,) = client.search_runs([found["test/w2s_safety@voting=none"]], "tags.kind = 'configuration'")
    assert "run params/test/w2s_safety.yaml --set voting=none`" in run.data.tags["mlflow.note.content"]
    done = underseer(home, "run", TEST_PARAMS, "--set", "eval_batch_size=7", "--set", "seeds=tuning", "--jobs", "1")
    assert "nothing to do" in done.stdout and "reports/test/w2s_safety/index.html" in done.stdout
    assert underseer(home, "report", "test/w2s_safety@voting=none").returncode == 0
    told = underseer(home, "report", "test/w2s_safety@voting=hard").stderr
    assert "underseer run params/test/w2s_safety.yaml" in told


@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="asks for a CPU with AVX2")
def test_another_instruction_set_computes_in_a_store_of_its_own(begun: Path) -> None:
    """Stages run under AVX2, warm kernels too, and are neither served from the store's cache nor put there."""
    home = begun
    before = sorted(p for p in (home / "runs").rglob("manifest.json"))
    sets = ("--set", "voting=none", "--until", "w2s/2_supervisors")
    done = underseer(home, "--cpu", "avx2", "run", TEST_PARAMS, *sets)
    assert done.returncode == 0 and "2 to run" in done.stdout, done.stdout + done.stderr
    held = {o.manifest["cpu_capability"] for o in store.outputs(home / "avx2/runs")}
    assert held == {"AVX2"} and sorted((home / "runs").rglob("manifest.json")) == before


def test_manifests_trace_every_result(finished: Path) -> None:
    for output in store.outputs(finished / "runs"):
        told = output.manifest
        assert told["marks"] == {"synthetic": True, "unsafe": False, "rehearsal": False}
        assert told["provenance"]["versions"]["torch"] and told["cost"]["seconds"] > 0
        assert told["cpu_capability"] and "notebook.ipynb" in told["files"] and told["checks"]
        assert not [f for f in told["files"] if f.endswith((".pkl", ".bin", ".pt", ".pth"))]
    students = outputs(finished, "w2s/4_student")
    assert all(o.manifest["cost"]["tokens_trained"] > 0 for o in students)


def test_no_truth_reaches_the_student(finished: Path) -> None:
    """The test labels stand in one table only, and the student's rows have none."""
    for output in outputs(finished, "w2s/1_data"):
        rows = output.table("rows")
        assert rows[rows.split == "test"].label.isna().all() and rows[rows.split != "test"].label.notna().all()
        assert set(output.table("test_labels").id) == set(rows[rows.split == "test"].id)


def test_every_reported_number_follows_from_stored_predictions(finished: Path) -> None:
    (report,) = outputs(finished, "w2s/5_report")
    results = json.loads(report.file("results.json").read_text())
    predictions = report.table("predictions")
    checked = 0
    for row in results["rows"]:
        same = predictions[(predictions.method == row["method"]) & (predictions.dataset == row["dataset"])]
        for seed, value in zip(row["seeds"], row["values"], strict=True):
            part = same[same.seed == seed]
            expected = metrics.classification_metrics(part.label.to_numpy(), part.p.to_numpy())[row["metric"]]
            assert value == pytest.approx(expected, nan_ok=True)
            checked += 1
    assert checked >= 5 * 3  # five methods, several metrics
    assert {r["method"] for r in results["rows"]} == {
        "weak",
        "w2s_naive",
        "w2s_hard_vote",
        "w2s_soft_vote",
        "strong_ceiling",
    }


def test_report_folder(finished: Path) -> None:
    folder = finished / "reports" / "test" / "w2s_safety"
    assert {"index.html", "results.json", "tables", "figures"} <= {p.name for p in folder.iterdir()}
    assert (finished / "reports" / "test" / "index.html").is_file()
    results = json.loads((folder / "results.json").read_text())
    assert results["schema"] == 1 and results["name"] == "test/w2s_safety" and results["synthetic"] is True
    before = (folder / "results.json").read_bytes()
    done = underseer(finished, "report", "test/w2s_safety")
    assert done.returncode == 0 and (folder / "results.json").read_bytes() == before
    missing = underseer(finished, "report", "test/w2s_safty")
    assert missing.returncode == 2 and "there are test/w2s_safety" in missing.stderr


def test_every_link_of_the_pages_leads_somewhere(finished: Path) -> None:
    """From the report to its rows and stages, from each row to the notebook that made it, and back."""
    folder = finished / "reports" / "test" / "w2s_safety"
    pages = [folder / "index.html", folder / "rows.html", *(folder / "stages").glob("*.html")]
    assert len(pages) > 8
    for page in pages:
        links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.read_text())
        files = {unquote(u.partition("#")[0]) for u in links if not u.startswith("data:")}
        assert files and [f for f in files if not (page.parent / f).is_file()] == [], page
    data = json.loads(re.search(r'id="data">(.*?)</script>', (folder / "rows.html").read_text(), re.S)[1])
    assert [p["id"] for p in data["parts"]] == ["test", "transfer"] and data["meta"]["redacted"] is False
    for stage in data["stages"]:
        assert (folder / stage["page"]).is_file()
        assert stage["command"].startswith(".venv/bin/underseer run params/test/")
    results = json.loads((folder / "results.json").read_text())
    row = next(r for r in results["rows"] if r["method"] == "weak" and r["metric"] == "accuracy")
    cells, models = data["parts"][0]["cells"], data["parts"][0]["models"]
    bit = [f["id"] for f in data["parts"][0]["filters"]].index("right")
    weak = [cell for cell, model in zip(cells["is"], cells["model"], strict=True) if models[model]["method"] == "weak"]
    assert sum(cell >> bit & 1 for cell in weak) / len(weak) == pytest.approx(row["mean"])
    done = underseer(finished, "rows", "test/w2s_safety", "--show-unsafe")
    texts = finished / "runs/.texts/test/w2s_safety.json"
    assert done.returncode == 0 and str(texts) in done.stdout and texts.stat().st_mode & 0o77 == 0
    assert json.loads(texts.read_text())["fingerprint"] == data["meta"]["fingerprint"]


def test_an_export_can_be_checked_and_holds_only_what_is_named(finished: Path, tmp_path: Path) -> None:
    student = next(o for o in outputs(finished, "w2s/4_student") if o.parameters["supervision"] == "weak")
    done = underseer(finished, "export", "test/w2s_safety", "--to", tmp_path / "out", "--with", student.name)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out"
    sums = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    assert set(sums) == files and all(store.sha256(folder / name) == digest for name, digest in sums.items())
    assert files >= {
        "results.json",
        "index.html",
        "tables/scores.tex",
        "figures/scores.pdf",
        "requirements.lock",
        "CITATION.cff",
    }
    assert {f.rsplit("/", 1)[0] for f in files if f.startswith("artefacts/") and f.endswith("manifest.json")} == {
        f"artefacts/{student.name}"
    }
    graph = {e["@id"]: e for e in json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]}
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    parts = {p["@id"] for p in graph["./"]["hasPart"]}
    assert parts == files - {"ro-crate-metadata.json"} and parts <= set(graph)
    parameters = json.loads((folder / "parameters.json").read_text())["stages"]
    assert {"w2s/1_data", "w2s/2_supervisors", "w2s/4_student"} <= {name.rpartition("/")[0] for name in parameters}
    assert parameters[student.name] == student.parameters
    assert "../" not in "".join(re.findall(r'href="([^"]*)"', (folder / "index.html").read_text()))
    assert not any(
        str(finished) in (folder / f).read_text() for f in files if f.startswith("stages/") or f.endswith(".md")
    )
    card = (folder / "MODEL_CARD.md").read_text()
    assert student.name in card and "Weak supervisor" in card and "Synthetic testbed" in card
    results = json.loads((folder / "results.json").read_text())
    own = {"none": "w2s_naive", "hard": "w2s_hard_vote", "soft": "w2s_soft_vote"}[student.parameters["voting"]]
    (accuracy,) = (
        r["values"][r["seeds"].index(student.parameters["seed"])]
        for r in results["rows"]
        if (r["method"], r["metric"]) == (own, "accuracy")
    )
    assert f"| Accuracy, % | {100 * accuracy:.1f} |" in card
    again = underseer(finished, "export", "test/w2s_safety", "--to", folder)
    assert again.returncode == 2 and "holds files already" in again.stderr
    unknown = underseer(finished, "export", "test/w2s_safety", "--to", tmp_path / "b", "--with", "w2s/4_student/none")
    assert unknown.returncode == 2 and "no such stage" in unknown.stderr and not (tmp_path / "b").exists()


def test_mlflow_holds_what_people_compare(finished: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test/w2s_safety")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = {kind: [r for r in runs if r.data.tags["kind"] == kind] for kind in ("configuration", "variant", "stage")}
    assert [len(kinds[k]) for k in ("configuration", "variant", "stage")] == [3, 3, 13]
    for run in kinds["variant"]:
        assert run.data.params["voting"] in ("none", "hard", "soft") and "student_accuracy" in run.data.metrics
        assert run.data.tags["synthetic"] == "True"
    for run in kinds["configuration"]:
        assert {"student_accuracy", "student_accuracy.half_width", "n_seeds"} <= set(run.data.metrics)
        assert run.data.metrics["all/student_accuracy.ci95_low"] <= run.data.metrics["student_accuracy"] <= 1
        assert run.data.tags["task"] == "safety" and "underseer run params/test" in run.data.tags["mlflow.note.content"]
        held = {
            f.path for folder in ("report", "report/figures") for f in client.list_artifacts(run.info.run_id, folder)
        }
        assert {"report/index.html", "report/figures/scores.png"} <= held
    student = next(r for r in kinds["stage"] if r.data.tags["mlflow.runName"] == "w2s/4_student")
    assert client.get_metric_history(student.info.run_id, "curve.train_loss")
    assert "notebook.ipynb" in {f.path for f in client.list_artifacts(student.info.run_id)}
    parents = {r.info.run_id for r in kinds["variant"]}
    assert student.data.tags["mlflow.parentRunId"] in parents


def test_sync_logs_once(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent server is told of in a line and loses nothing; sync logs it later, and only once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    away = underseer(finished, "sync")
    assert away.returncode == 1 and "everything is on disk" in away.stderr and "Traceback" not in away.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert "19 runs logged" in underseer(finished, "sync").stdout
    assert "runs logged" not in underseer(finished, "sync").stdout


def test_plain_papermill_and_its_missing_input(finished: Path, tmp_path: Path) -> None:
    """The same notebook without the workflow: it finds its inputs, or says in one line which command makes them."""

    def papermill(home: Path, *args: str, cold: bool = False) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "UNDERSEER_HOME": str(home), "PYTHONPATH": str(ROOT / "src" / "lib")}
        env |= {} if cold else warmed()  # cold: a kernel as JupyterLab has it
        notebook = str(ROOT / "notebooks/w2s/3_weak_labels.ipynb")
        command = [sys.executable, "-m", "papermill", notebook, str(tmp_path / "out.ipynb"), "-k", "python3", *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, timeout=300)

    experiment = ["-p", "experiment", "params/test/w2s_safety.yaml"]
    assert papermill(finished, *experiment, "-p", "seed", "0", "-p", "voting", "soft", cold=True).returncode == 0
    (made,) = (finished / "scratch" / "w2s" / "3_weak_labels").iterdir()
    assert store.Output(made).is_scratch and store.Output(made).parameters["voting"] == "soft"
    told = papermill(finished, *experiment, "-p", "votng", "soft")
    assert told.returncode != 0 and "votng: unknown parameter; did you mean 'voting'" in told.stderr
    told = papermill(tmp_path / "empty", *experiment, "-p", "seed", "3")
    assert told.returncode != 0
    sets = "--set seed=3 --set voting=none --until w2s/1_data,w2s/2_supervisors"
    assert f"Run: .venv/bin/underseer run params/test/w2s_safety.yaml {sets}" in told.stderr.strip().splitlines()[-1]


def results_of(home: Path) -> dict:
    found = json.loads((home / "reports/test/w2s_safety/results.json").read_text())
    return {"rows": found["rows"], "pgr": found["pgr"]}


def started(home: Path, *args: str, **env: str) -> subprocess.Popen:
    env = {**os.environ, "UNDERSEER_HOME": str(home), "NO_COLOR": "1", **env}
    command = [sys.executable, "-m", "underseer.runs.cli", "run", str(TEST_PARAMS), *args]
    return subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests run in the background inherit it ignored
    )  # fmt: skip


def test_a_run_that_is_ended_early_goes_on_to_the_same_results(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to the command alone, as a scheduler or a container sends it: nothing goes on computing behind its back. SIGKILL to
    every process, at two moments. The same command then ends in the same results, and leaves nothing."""
    home, temporary = tmp_path / "home", Path(tempfile.mkdtemp())  # sockets have short paths
    monkeypatch.setenv("TMPDIR", str(temporary))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = started(home)
        until_a_kernel_runs(home, process)
        process.send_signal(number)
        told = process.communicate(timeout=40)[1].decode()
        if number != signal.SIGKILL:
            assert process.returncode == 130 and told.strip() == "stopped; the same command continues"
        end = time.monotonic() + 15
        while (left := processes(home)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left
    for at_work in (False, True):
        process = started(home)
        if at_work:
            until_a_kernel_runs(home, process)
        time.sleep(4)
        for one in processes(home):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()
        assert store.verify(home / "runs")[1] == []
    done = underseer(home, "run", TEST_PARAMS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results_of(home) == results_of(finished)
    assert underseer(home, "verify").returncode == 0
    assert not list((home / "runs").rglob(".work-*"))
    assert not [p for p in temporary.iterdir() if p.name.startswith(("underseer", "snakemake", "tmp"))]
    shutil.rmtree(temporary)


def until_a_kernel_runs(home: Path, process: subprocess.Popen) -> None:
    """Wait for a kernel, which no signal to its stage reaches."""
    end = time.monotonic() + 180
    while not any("ipykernel_launcher" in command for command in processes(home).values()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def begun(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which nothing is left to do but what a test removes; MLflow is away."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    shutil.copytree(finished / "runs", tmp_path / "home/runs")
    return tmp_path / "home"


def test_two_runs_at_a_time_compute_each_stage_once(begun: Path) -> None:
    """The slower one comes to stages that the other has finished since it was planned; they stay as they are."""

    def supervisors() -> dict[Path, int]:
        return {o.path: (o.path / "manifest.json").stat().st_mtime_ns for o in outputs(begun, "w2s/2_supervisors")}

    shutil.rmtree(begun / "runs/w2s/2_supervisors")
    sets = ("--set", "voting=hard", "--until", "w2s/2_supervisors")
    fast, slow = (started(begun, *sets, "--jobs", jobs, **warmed()) for jobs in ("2", "1"))
    assert fast.wait(timeout=300) == 0, fast.communicate()
    before = supervisors()
    assert slow.wait(timeout=300) == 0, slow.communicate()
    assert len(before) == 4 and supervisors() == before


def test_a_failing_stage_is_named_and_its_notebook_kept(begun: Path) -> None:
    """Exit code 1; the executed notebook shows where it stopped. A huge learning rate turns all weights into NaN."""
    sets = ("--set", "voting=none", "--set", "weak_learning_rate=1e30", "--until", "w2s/2_supervisors")
    done = underseer(begun, "run", TEST_PARAMS, *sets)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert "failed: w2s/2_supervisors" in done.stderr and "training diverged" in done.stderr
    (notebook,) = (begun / "runs").glob("w2s/2_supervisors/failed/*.ipynb")
    cells = json.loads(notebook.read_text())["cells"]
    assert any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))
    assert str(notebook.name) in underseer(begun, "status").stdout


def damage(folder: Path, act: str) -> None:
    """Damage stored weak labels: all labels turned, one byte, the manifest emptied, the table removed."""
    file = folder / ("manifest.json" if act == "manifest" else "weak_labels.parquet")
    file.chmod(0o644)
    if act == "labels":
        table = pd.read_parquet(file)
        table.assign(weak_label=1 - table.weak_label).to_parquet(file, index=False)
    elif act == "byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif act == "manifest":
        file.write_text("")
    else:
        file.unlink()


def test_nothing_is_built_on_a_damaged_input(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The students are to be trained again; the weak labels that one of them reads were damaged."""
    monkeypatch.setenv("UNDERSEER_HOME", str(begun))
    for stage in ("w2s/4_student", "w2s/5_report"):
        shutil.rmtree(begun / "runs" / stage)
    made = plan.make(params.load(TEST_PARAMS, ["voting=soft"]))
    weak = {"stage": "w2s/4_student", "supervision": "weak"}
    (student,) = (i for i in made.instances.values() if weak.items() <= {"stage": i.stage, **i.parameters}.items())
    place = made.instances[student.inputs["weak_labels"][0]].place
    whole = shutil.copytree(place, begun / "whole")
    for act in ("gone", "manifest", "byte", "labels"):
        shutil.rmtree(place)
        shutil.copytree(whole, place)
        damage(place, act)
        assert execute.run(made, student) == 1
        (failure,) = workflow.failures()
        assert failure["key"] == student.key and failure["problem"].startswith("an input is damaged: ")
        assert str(place) in failure["problem"] and "rm -r" in failure["problem"]
    done = underseer(begun, "run", TEST_PARAMS, "--set", "voting=soft", "--until", "w2s/4_student")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "an input is damaged: " in done.stderr and "w2s/3_weak_labels/" in done.stderr and "rm -r" in done.stderr
    students = store.outputs(begun / "runs/w2s/4_student")
    assert [o.parameters["supervision"] for o in students] == ["truth"], "the ceiling reads no weak labels"


def test_no_result_stands_under_the_key_of_other_data(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are edited, or gone, after planning: before the stage begins, and while its notebook runs."""
    file, rows = tmp_path / "rows.csv", [f"please do task {i} of type {i * 7},{i % 2 == 0}\n" for i in range(400)]
    monkeypatch.setattr(execute, "_papermill", lambda _, folder: (folder / execute.PENDING).write_text("{}") and None)
    for moment in ("before", "gone", "while", "never"):
        file.write_text("prompt,is_safe\n" + "".join(rows))
        made = plan.make(params.load(TEST_PARAMS, ["dataset=wts-safety", f"dataset_path={file}"]))
        (data,) = (i for i in made.instances.values() if i.stage == "w2s/1_data")
        if moment == "before":
            file.write_text("prompt,is_safe\n" + "".join(rows[::-1]))
        elif moment == "gone":
            file.unlink()
        elif moment == "while":
            looks = iter([None, f"dataset_path = {file}"])
            monkeypatch.setattr(execute, "replaced", lambda *_, looks=looks: next(looks))
        assert execute.run(made, data) == int(moment != "never") and data.cached == (moment == "never")
        if moment != "never":
            (failure,) = workflow.failures()
            assert str(file) in failure["problem"] and "\n" not in failure["problem"]
            assert ("was edited after this run was planned" in failure["problem"]) == (moment != "gone")
        monkeypatch.setattr(execute, "replaced", keys.replaced)
        keys._files_hash.cache_clear()


def test_nothing_damaged_is_shown_or_handed_on(finished: Path, tmp_path: Path, monkeypatch) -> None:
    """Each command names the file and how it is made anew, and writes nothing."""
    home, name = tmp_path / "home", "test/w2s_safety"
    shutil.copytree(finished, home)
    (report,) = outputs(home, "w2s/5_report")
    student = next(o for o in outputs(home, "w2s/4_student") if o.parameters["supervision"] == "weak")
    published = home / "reports" / name

    def refused(file: Path, content: bytes, again: str, *commands: tuple[str, ...]) -> None:
        whole = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(content)
        for words in commands:
            done = underseer(home, *words)
            assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
            (line,) = done.stderr.strip().splitlines()[-1:]
            assert f"{file}: differs from its manifest; remove it (rm -r" in line and line.endswith(again), line
        file.write_bytes(whole)

    table = student.table("predictions")
    table.assign(p=1 - table.p).to_parquet(tmp_path / "turned.parquet", index=False)
    turned = (tmp_path / "turned.parquet").read_bytes()
    refused(student.file("predictions.parquet"), turned, "--until w2s/4_student", ("rows", name),
            ("export", name, "--with", student.name))  # fmt: skip
    results, run = report.file("results.json"), f"run {TEST_PARAMS.relative_to(ROOT)}"
    numbers = results.read_bytes().replace(b'"mean": 0.', b'"mean": 9.')
    refused(results, numbers, run, ("export", name), ("report", name), ("rows", name))
    refused(results, numbers[:99], run, ("report", name, "--show-unsafe"))
    assert not (home / "exports").exists()
    (published / "results.json").write_bytes(numbers)
    edited = underseer(home, "export", name)
    assert edited.returncode == 2 and "not the numbers of the newest report" in edited.stderr
    monkeypatch.setenv("UNDERSEER_HOME", str(home))
    figure = next(report.file("report").rglob("*.png"))
    aside = figure.rename(tmp_path / "aside")
    with pytest.raises(UserError, match=f"{figure.name}: missing; remove it"):
        publish.write(report, tmp_path / "for_mlflow")
    aside.rename(figure)
    shutil.rmtree(home / "reports")
    refused(results, numbers, run, ("run", str(TEST_PARAMS)))
    refused(report.file("notebook.ipynb"), b'{"cells": [', run, ("run", str(TEST_PARAMS)))
    assert not published.exists()
    assert underseer(home, "run", TEST_PARAMS).returncode == 0 and (published / "index.html").is_file()


def test_predictions_are_tables_by_id(finished: Path) -> None:
    for output in outputs(finished, "w2s/4_student"):
        table = pd.read_parquet(output.file("predictions.parquet"))
        assert list(table.columns) == ["id", "split", "p"] and table.id.is_unique
