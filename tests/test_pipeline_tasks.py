"""The legal and the toxicity task through the command line, on tiny settings: their numbers can be traced and recomputed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, outputs, underseer
from underseer import store
from underseer.maths import metrics

PARAMS = ROOT / "params" / "test"


@pytest.fixture(scope="module")
def home(legal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after a whole run of both experiments."""
    home = shutil.copytree(legal, tmp_path_factory.mktemp("tasks") / "home")
    done = underseer(home, "run", PARAMS / "w2s_toxicity.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def report(home: Path, name: str) -> tuple[dict, store.Output]:
    (output,) = [o for o in outputs(home, "w2s/5_report") if o.parameters["name"] == f"test/{name}"]
    return json.loads(output.file("results.json").read_text()), output


def test_no_question_leaks_and_the_report_counts_questions(home: Path) -> None:
    for data in (o for o in outputs(home, "w2s/1_data") if o.parameters["task"] == "legal"):
        assert data.table("rows").groupby("text").split.nunique().max() == 1
    results, output = report(home, "w2s_legal")
    rows = output.table("predictions")
    assert rows.cluster.nunique() < rows.id.nunique()
    assert results["primary_metric"] == "accuracy"
    assert {r["method"] for r in results["rows"]} == {"weak", "w2s_naive", "w2s_hard_vote", "strong_ceiling"}
    for row in results["rows"]:
        part = rows[rows.method == row["method"]]
        expected = metrics.classification_metrics(part.label.to_numpy(), part.p.to_numpy())[row["metric"]]
        assert row["values"][0] == pytest.approx(expected, nan_ok=True)


def test_toxicity_numbers_follow_from_stored_continuations(home: Path) -> None:
    """Every number of every method and bucket, recomputed with pandas alone."""
    results, output = report(home, "w2s_toxicity")
    rows = output.table("predictions")
    assert results["primary_metric"] == "toxicity" and results["synthetic"] is True
    checked = 0
    for row in results["rows"]:
        part = rows[rows.method == row["method"]]
        if "prompt toxicity" in row["dataset"]:
            low, high = (float(x) for x in row["dataset"].split("[")[1].rstrip(")]").split(","))
            part = part[(part.prompt_toxicity >= low) & (part.prompt_toxicity < (high if high < 1 else 2))]
        sampled = part[part.draw > 0]
        by_prompt = sampled.groupby("id").toxicity
        expected = {
            "toxicity": by_prompt.mean().mean(),
            "toxicity_greedy": part[part.draw == 0].toxicity.mean(),
            "toxic_share": (sampled.toxicity >= 0.5).groupby(sampled.id).mean().mean(),
            "expected_max_toxicity": by_prompt.max().mean(),
            "toxicity_probability": (by_prompt.max() >= 0.5).mean(),
            "perplexity": math.exp(sampled.nll.sum() / sampled.nll_tokens.sum()),
        }.get(row["metric"])
        if expected is not None and not part.toxicity.isna().any():
            assert row["values"][0] == pytest.approx(expected, rel=1e-6), (row["method"], row["metric"], row["dataset"])
            checked += 1
    assert checked >= 6 * 6  # six methods, six metrics


def test_continuations_are_kept_by_id_and_draw(home: Path) -> None:
    students = outputs(home, "w2s/4_student_continuation")
    assert len(students) == 4 + 1
    for student in students:
        table = student.table("predictions")
        test = table[table.split == "test"]
        assert sorted(test.draw.unique()) == [0, 1, 2, 3] and not table.duplicated(["id", "draw"]).any()
        assert (table.n_tokens <= 6).all() and set(table.finish) <= {"stop", "length"}


def test_the_judge_that_steers_is_not_the_one_that_reports(home: Path) -> None:
    results, _ = report(home, "w2s_toxicity")
    roles = {j["role"]: j["name"] for j in results["judges"]}
    assert roles["reporting"] == "oracle" and roles["training"].startswith("trained:scratch")
    calibration = next(j["calibration"] for j in results["judges"] if j["role"] == "training")
    assert calibration["n"] > 0 and len(calibration["bins"]["stored"]) == len(calibration["bins"]["count"])
    for scorer in outputs(home, "judges/scorer"):
        held = scorer.table("held_out")
        assert np.isfinite(held.score).all() and held.score.between(0, 1).all()


def test_only_civil_rows_are_learnt_from(home: Path) -> None:
    for data in (o for o in outputs(home, "w2s/1_data") if o.parameters["task"] == "toxicity"):
        rows = data.table("rows")
        learnt = rows[rows.split.isin(["supervise", "transfer", "validation"])]
        assert (learnt.toxicity < 0.5).all() and (learnt.prompt_toxicity < 0.5).all() and (learnt.label == 0).all()
        assert set(rows[rows.split == "judge"].label) == {0, 1}
        test = rows[rows.split == "test"]
        assert test[["label", "continuation", "toxicity", "prompt_toxicity"]].isna().all().all()


def test_reports_of_both(home: Path) -> None:
    for name in ("w2s_legal", "w2s_toxicity"):
        folder = home / "reports" / "test" / name
        assert {"index.html", "results.json", "tables", "figures"} <= {p.name for p in folder.iterdir()}
        assert (folder / "tables" / "case_study.md").is_file() and list((folder / "figures").glob("*.png"))
    index = (home / "reports" / "test" / "index.html").read_text()
    assert "w2s_legal" in index and "w2s_toxicity" in index


def test_mlflow_has_the_tasks_own_metrics(home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test/w2s_toxicity")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    variants = [r for r in runs if r.data.tags["kind"] == "variant"]
    assert len(variants) == 4
    for run in variants:
        assert {"weak_toxicity", "student_toxicity", "ceiling_toxicity", "all/student_perplexity"} <= set(
            run.data.metrics
        )
