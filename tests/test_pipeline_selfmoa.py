"""A whole run of the loop on tiny settings: every notebook, the report, and what must stay inside the store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, underseer
from underseer import store

PARAMS = ROOT / "params" / "test" / "selfmoa.yaml"
METHODS = {
    "aligned", "reset", "selfmoa_iter1", "selfmoa_iter2", "human_dpo", "human_modpo", "dpo_helpful_only", "dpo_safety_only",
    "dpo_weighted_sum", "sft",
}  # fmt: skip


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after a run of the test experiment, and of a loop beside it that begins with answers by people and in which no
    attack succeeds."""
    home = tmp_path_factory.mktemp("loop")
    nothing = home / "test/nothing.yaml"
    nothing.parent.mkdir()
    changes = "unsafe_threshold: 0.999\nmin_new_successes: 1\nbaselines: false\nsupervised_dataset: testbed-chat\nn_supervised: 24\n"
    nothing.write_text(f"extends: {PARAMS}\n{changes}")
    done = underseer(home, "run", PARAMS, nothing)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def outputs(home: Path, stage: str, *, finds: bool = True) -> list[store.Output]:
    """The outputs of a stage: of the loop in which attacks succeed, or of the other."""
    held = store.outputs(home / "runs" / stage)
    return [o for o in held if (o.parameters.get("unsafe_threshold") != 0.999) is finds]


def test_every_method_is_reported(loop: Path) -> None:
    results = json.loads((loop / "reports/test/selfmoa/results.json").read_text())
    assert results["pipeline"] == "selfmoa" and results["synthetic"] and results["pgr"] == []
    assert {r["method"] for r in results["rows"]} >= METHODS
    sets = {r["dataset"] for r in results["rows"] if r["metric"] == "unsafe_rate"}
    assert sets >= {"attack", "held_out_attack", "safe", "borderline"}
    assert (loop / "reports/test/selfmoa/index.html").is_file()


def test_the_reset_begins_with_what_people_taught(loop: Path) -> None:
    [taught] = store.outputs(loop / "runs/selfmoa/0_supervised")
    resets = list(store.outputs(loop / "runs/selfmoa/1_reset"))
    assert sorted("supervised" in reset.manifest["inputs"] for reset in resets) == [False, True]
    assert 0 < taught.metrics["n_answers"] <= 24
    [aligned] = [o for o in outputs(loop, "selfmoa/5_evaluate", finds=False) if o.parameters["method"] == "aligned"]
    assert taught.key in aligned.inputs
    results = json.loads((loop / "reports/test/nothing/results.json").read_text())
    assert any(note.endswith("answers that were called safe or chosen (testbed-chat).") for note in results["notes"])


def test_labels_behind_the_judges_are_counted(loop: Path) -> None:
    """Of 60 judged exchanges 48 are learnt from, by each of two judges; refusals are told by their opening phrases."""
    results = json.loads((loop / "reports/test/selfmoa/results.json").read_text())
    behind = {r["method"]: (r["ordered_by"], r["judge_labels"]) for r in results["pairs"]}
    assert behind.pop("human_dpo") == behind.pop("human_modpo") == ("people", 0)
    assert set(behind.values()) == {("judges", 96)}
    goals = {r["method"]: (r["ordering"], r["objective_weights"]) for r in results["pairs"]}
    assert goals["selfmoa_iter2"] == ("helpfulness", "helpfulness:0.5,safety:0.5") and goals["sft"] == (None, None)
    assert goals["dpo_safety_only"] == ("safety", "safety:1")
    spent = {c.get("role"): c["labels"] for c in results["cost"].values()}
    assert spent["training_judge"] == spent["helpfulness_judge"] == 48 and spent["refusal_judge"] == 0
    assert {j["measure"]: j["card"]["n_labels"] for j in results["judges"] if j["card"]} == {"unsafe": 48, "helpful": 48, "refusal": None}  # fmt: skip


@pytest.mark.slow
def test_controls_stand_beside_the_loop(loop: Path) -> None:
    """One iteration, so that the round with all budgets is the loop's first and most is there already."""
    sets = ["iterations=1", "baselines=offline+no_red_team+iterated_dpo", "baseline_pairs=loop"]
    done = underseer(
        loop, "run", PARAMS, "--name", "controls", *(part for change in sets for part in ("--set", change))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((loop / "reports/test/selfmoa@controls/results.json").read_text())
    controls = {"offline", "no_red_team_1", "iterated_dpo_1"}
    assert {r["method"] for r in results["rows"]} == {"aligned", "reset", "selfmoa_iter1"} | controls
    assert {t["b"] for t in results["tests"]["rows"] if t["a"] == "selfmoa_iter1"} == {"aligned", "reset"} | controls
    pairs = {r["method"]: r["n_pairs"] for r in results["pairs"]}
    assert set(pairs) == {"selfmoa_iter1"} | controls and pairs["offline"] == pairs["selfmoa_iter1"]
    assert (loop / "reports/test/selfmoa@controls/index.html").is_file()


def test_what_can_answer_unsafely_is_fenced(loop: Path) -> None:
    """Marked in the manifest; no notebook, answer or attack of these stages goes to MLflow."""
    for output in store.outputs(loop / "runs"):
        fenced = output.manifest["stage"].startswith("selfmoa/") and output.manifest["stage"] != "selfmoa/6_report"
        assert output.manifest["marks"]["unsafe"] == fenced, output.manifest["stage"]
    names = {p.name for p in (loop / "mlartifacts").rglob("*") if p.is_file()}
    page = {"index.html", "tuning.html", *(p.name for p in (loop / "reports/test").glob("*/figures/*"))}  # redacted
    assert names <= {"notebook.ipynb", "manifest.json", "results.json"} | page


def test_each_iteration_learns_from_its_own_attacks_and_answers(loop: Path) -> None:
    found = {o.parameters["iteration"]: o for o in outputs(loop, "selfmoa/3_preferences")}
    assert set(found) == {1, 2}
    for k, output in found.items():
        pairs = output.table("pairs")
        assert (pairs.iteration == k).all() and (pairs.helpful_chosen >= pairs.helpful_rejected).all()
        assert (pairs.safety_difference == pairs.unsafe_chosen - pairs.unsafe_rejected).all()
    archives = {o.parameters["iteration"]: o.table("attacks") for o in outputs(loop, "selfmoa/2_red_team")}
    assert set(archives[1].id) < set(archives[2].id)


def test_a_rerun_does_nothing(loop: Path) -> None:
    done = underseer(loop, "run", PARAMS)
    assert done.returncode == 0 and "nothing to do" in done.stdout


@pytest.mark.usefixtures("warm_kernels")
def test_the_tour_runs_beside_finished_runs(
    loop: Path, legal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its student with the demo's vote and loss is the stored one; those of its own vote and loss are trained too."""
    import papermill

    shutil.copytree(legal / "runs/w2s", loop / "runs/w2s")
    file = "params/test/w2s_legal.yaml"
    done = underseer(loop, "run", file)
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stdout + done.stderr
    monkeypatch.setenv("UNDERSEER_HOME", str(loop))
    values = {"experiment": file, "loop": "params/test/selfmoa.yaml", "seed": 0}
    tour = ROOT / "notebooks" / "tour.ipynb"
    done = papermill.execute_notebook(tour, tmp_path / "tour.ipynb", values, cwd=ROOT, progress_bar=False)
    printed = [o.text for cell in done.cells for o in cell.get("outputs", []) if "text" in o]
    (again,) = [text.split()[-1] for text in printed if "trained again, and as stored" in text]
    assert float(again) < 1e-6  # the same weights; other rows stand in the batches that are answered
    compared = next(cell for cell in done.cells if cell.source.startswith("seen.compared("))
    words = compared.outputs[0].data["text/markdown"]
    assert "weighted vote, focal loss: " in words and words.count(" rows, against ") == 4
    reports = list((loop / "scratch/w2s/5_report").glob("*/results.json"))
    assert len(json.loads(reports[0].read_text())["provenance"]["in_place_of"]) == 2 and len(reports) == 1
    assert any("Exploratory: " in str(o) for cell in done.cells for o in cell.get("outputs", []))
    fates = next(cell for cell in done.cells if 'attacks["fate"] =' in cell.source).outputs[0].data["text/plain"]
    assert "answered safely" in fates or "success" in fates
    asked = next(cell for cell in done.cells if cell.source.startswith("def ask(")).outputs[0].data["text/html"]
    assert all(f">{name}</th>" in asked for name in ("aligned", "reset", "iteration 2"))
    assert store.verify(loop / "runs")[1] == []


def test_a_loop_that_finds_and_learns_nothing_ends_properly(loop: Path) -> None:
    """No attack succeeds: rounds stop, and pairs are of other prompts. No two answers that differ enough: it ends, and says so."""
    results = json.loads((loop / "reports/test/nothing/results.json").read_text())
    assert {r["method"] for r in results["rows"]} == {"aligned", "reset", "selfmoa_iter1", "selfmoa_iter2"}
    attacks, aligned = (outputs(loop, stage, finds=False) for stage in ("selfmoa/2_red_team", "selfmoa/4_align"))
    assert len(attacks) == len(aligned) == 2
    assert not any(o.table("attacks").success.any() for o in attacks)
    alike = ("--set", "min_margin=1.0", "--set", "iterations=1", "--until", "selfmoa/3_preferences")
    done = underseer(loop, "run", PARAMS, *alike)
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "give another judge, or a smaller min_margin" in told, told
