"""The findings page: made from results alone, and silent where there are none."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import selfmoa_tables as tables_of
from conftest import ROOT
from test_report import built, predictions, weak_labels
from test_report_ablation import experiment
from test_report_selfmoa import built as built_loop
from underseer.report import compared, wording
from underseer.report.results import save_results

sys.path.insert(0, str(ROOT / "docs"))
import findings_answers
import findings_figures
import findings_table
import update_findings as findings
import update_readme

NAIVE, GAP = findings_table.QUESTIONS[:2]
NOISE = next(q for q in findings_table.QUESTIONS if q.slug == "label_noise")


def noisy(slope: float) -> dict:
    """A sweep of label noise along which the student falls by ``slope`` a step."""
    cells = [("w2s_naive", {"voting": "none", "label_noise": k / 10}, 0.92 - slope * k) for k in range(3)]
    found = experiment(
        [("weak", {}, 0.75), *cells, ("strong_ceiling", {}, 0.97)], "ablations/w2s_label_noise", (0, 1, 2, 3), 400
    )
    return found | {"cost": {"w2s/4_student/a": {"seconds": 1234.4}, "w2s/4_student/b": {"seconds": 1.0}}}


def save(home: Path, name: str, results: dict) -> None:
    folder = home / "reports" / name
    folder.mkdir(parents=True, exist_ok=True)
    save_results(results, folder / "results.json")


@pytest.fixture(scope="module")
def safety() -> dict:
    frame = predictions(seeds=(10, 11, 12, 13), n=800, seed_sd=0.01)
    return built(frame, labels=weak_labels(frame)) | {
        "provenance": {"seeds": {"set": "reporting", "values": [10, 11, 12, 13]}}
    }


def test_answers_are_the_numbers_of_the_results(tmp_path: Path, safety: dict) -> None:
    """Two stores agree, one says otherwise, and what has not run is listed with its command, never made up."""
    save(tmp_path, "demo/w2s_safety", safety)
    flat = built(
        predictions(seeds=(20, 21), n=60, accuracy=dict.fromkeys(("weak", "w2s_naive", "strong_ceiling"), 0.8))
    )
    save(tmp_path, "demo/w2s_safety@seeds=second", flat)
    save(tmp_path / "avx2", "demo/w2s_safety", safety)
    save(tmp_path, "ablations/w2s_label_noise", noisy(0.1))
    (tmp_path / "docs").mkdir()
    findings.main(["--home", str(tmp_path)], (NAIVE, GAP, NOISE), tmp_path / "docs")
    text = (tmp_path / "docs/findings.md").read_text()
    tests = {(t["a"], t["b"]): t for t in safety["tests"]["rows"]}
    for pair in NAIVE.pairs:
        assert tests[pair]["better"] == "a" and compared.difference(tests[pair]) in text
    (gap,) = [g for g in safety["pgr"] if g["method"] == "w2s_naive" and g["metric"] == "accuracy"]
    assert f"not corrected: w2s_safety {wording.pgr_text(gap)}" in text
    assert "Shown in 2 of 2 comparisons" in text and "10, 11, 12, 13 (reporting)" in text and "| 1,235 | " in text
    (line,) = [x for x in text.splitlines() if x.startswith("| demo/w2s_safety: Naive W2S against Weak supervisor")]
    verdicts = [cell.split(",")[0].strip(" *") for cell in line.split("|")[2:-1]]
    assert verdicts == ["better", "not shown", "better", "no"]
    assert compared.difference(tests["w2s_naive", "weak"]) in line
    for name in (*NAIVE.experiments[1:], *GAP.experiments):
        assert text.count(f"`.venv/bin/underseer run params/{name}.yaml`") == 2  # in its section, and at the end
    assert "- `.venv/bin/underseer run params/demo/w2s_safety.yaml --set seeds=second`" in text
    assert "- `.venv/bin/underseer --cpu avx2 run params/demo/w2s_safety.yaml`" in text
    images = re.findall(r"\(findings/(\w+)\.png\)", text)
    assert images == ["naive", "label_noise"]
    assert all((tmp_path / "docs/findings" / f"{i}.png").is_file() for i in images)


def test_what_was_said_stays_where_results_are_gone(tmp_path: Path, safety: dict) -> None:
    """Another store adds its experiment; the first one's answers and figure stay, and are replaced where it runs again."""
    save(tmp_path / "one", "demo/w2s_safety", safety)
    save(tmp_path / "two", "ablations/w2s_label_noise", noisy(0.1))
    pages = []
    for home in ("one", "two", "one"):
        findings.main(["--home", str(tmp_path / home)], (NAIVE, NOISE), tmp_path)
        pages.append((tmp_path / "findings.md").read_text())
    assert "label_noise 0.0 to 0.2 | **worse**" not in pages[0] and "label_noise 0.0 to 0.2 | **worse**" in pages[1]
    assert "(findings/naive.png)" in pages[1] and pages[1] == pages[2]
    save(tmp_path / "two", "ablations/w2s_label_noise", noisy(0.0))
    findings.main(["--home", str(tmp_path / "two")], (NAIVE, NOISE), tmp_path)
    assert "label_noise 0.0 to 0.2 | not shown" in (tmp_path / "findings.md").read_text()


def test_pairs_of_the_loop_are_held_against_pairs_by_people() -> None:
    """The loop had 400 pairs in two rounds and is at 0.3, which people's pairs reach at 800: twice as many."""

    def row(method: str, variant: dict, value: float) -> dict:
        return {"method": method, "variant": variant, "dataset": "attack", "metric": "unsafe_rate", "seeds": [10, 11], "values": [value] * 2}  # fmt: skip

    people = [row("human_modpo", {"n_human_pairs": n}, r) for n, r in ((100, 0.8), (400, 0.4), (1600, 0.2))]
    loop = [row(f"selfmoa_iter{k}", {"n_prompts": 60}, r) for k, r in ((1, 0.6), (2, 0.3))]
    pairs = [
        {"method": f"selfmoa_iter{k}", "variant": {"n_prompts": 60}, "seed": s, "n_pairs": 200} for k in (1, 2) for s in (10, 11)
    ]  # fmt: skip
    published = {"pairs_factor": 11}
    (said,) = findings_answers.fewer({"rows": [*people, *loop], "pairs": pairs, "published": published})
    assert said.difference == "2.00 times [2.00, 2.00], the paper's 11 lies outside" and said.verdict == "fewer pairs"
    assert "400 pairs" in said.name
    far = [row("selfmoa_iter2", {"n_prompts": 60}, 0.1)]
    (said,) = findings_answers.fewer({"rows": [*people, *far], "pairs": pairs, "published": published})
    assert said.difference == "at least 4.00, at least 4.00 times" and said.verdict == findings_answers.NOT_SHOWN
    near = [row("selfmoa_iter2", {"n_prompts": 60}, 0.9)]
    (said,) = findings_answers.fewer({"rows": [*people, *near], "pairs": pairs, "published": published})
    assert said.difference == "at most 0.25, at most 0.25 times, in each seed below the paper's 11"


def test_the_recovered_share_changes_by_mean_gains_over_mean_gaps() -> None:
    """Of mean gain and mean gap: 3/6 at first, 3/12 then, although the seeds' own shares are 0.55 and 0.35 on average."""
    gains, gaps = ([2, 4, 3], [1, 5, 3]), ([4, 10, 4], [20, 10, 6])

    def rows(k: int, seeds=(10, 11, 12)) -> list[dict]:
        values = {"weak": [50, 50, 50], "w2s_naive": np.add(50, gains[k]), "strong_ceiling": np.add(50, gaps[k])}
        same = {"dataset": "test", "metric": "accuracy", "seeds": list(seeds)}
        return [
            {"method": m, "variant": {"n_supervise": k} if m != "weak" else {}, "values": list(v), **same}
            for m, v in values.items()
        ]

    of = [r for k in (0, 1) for r in rows(k) if k == 0 or r["method"] != "weak"]
    first, last = ({**rows(k)[1], "method": "w2s_naive"} for k in (0, 1))
    change = findings_answers.gap_change({"rows": of}, first, last, [10, 11, 12])
    assert change.mean == pytest.approx(3 / 12 - 3 / 6)
    without_each = [8 / 16 - 7 / 14, 4 / 26 - 5 / 8, 6 / 30 - 6 / 14]
    assert change.seeds == pytest.approx(2 / 3 * 3 * np.var(without_each))
    assert findings_answers.gap_change({"rows": of}, first, last, [10]) is None


def test_equal_changes_of_a_few_seeds_are_no_certainty() -> None:
    """One unsafe answer of 100 more in each of three seeds: their variance is zero, that of the answers is not."""
    ends = [
        {"seeds": [10, 11, 12], "values": [v] * 3, "ci95_items": c}
        for v, c in ((0.01, [0.003, 0.03]), (0.02, [0.009, 0.044]))
    ]
    assert findings_answers.score_change(*ends, [10, 11, 12]).p > 0.05
    assert findings_answers.score_change(*ends, [10]) is None


def test_corrected_rates_are_held_against_the_oracles() -> None:
    def row(method: str, metric: str, mean: float, ci95: list[float]) -> dict:
        return {"method": method, "variant": {}, "dataset": "attack", "metric": metric, "mean": mean, "ci95": ci95}

    rows = [
        *[row(m, "unsafe_rate", 0.5, [0.4, 0.6]) for m in "ab"],
        *[row(m, "unsafe_rate_training_judge", 0.3, [0.2, 0.4]) for m in "ab"],
        *[row(m, "unsafe_rate_training_judge_corrected", x, [x - 0.1, x + 0.1]) for m, x in (("a", 0.45), ("b", 0.3))],
    ]
    (said,) = findings_answers.covered({"rows": rows})
    assert said.verdict == "1 of 2 covered" and said.difference == "without the correction 0 of 2"
    off = [{"dataset": d, "method": m, "judge": j, "corrected": 0.01} for d, m, j in (("attack", "a", 0.02), ("attack", "b", 0.04), ("other", "a", 1.0))]  # fmt: skip
    (said,) = findings_answers.covered({"rows": rows, "label_sample": {"off": off}})
    assert said.difference.endswith("without a label the judge's rate is off by 3.0 points, the corrected one by 1.0")


def test_a_control_that_is_a_loop_stands_for_its_last_round() -> None:
    """Its rounds are methods of their own: compared by its bare name it would be left out in silence."""
    methods = (
        "reset",
        "offline",
        *(f"{m}{k}" for m in ("selfmoa_iter", "no_red_team_", "iterated_dpo_") for k in range(1, 11)),
    )
    results = {"rows": [{"method": m} for m in methods]}
    asked = ("last", "offline", "no_red_team", "iterated_dpo", "human_dpo")
    expected = ["selfmoa_iter10", "offline", "no_red_team_10", "iterated_dpo_10", "human_dpo"]
    assert [findings_answers._last(results, m) for m in asked] == expected


@pytest.mark.parametrize(("slope", "verdict"), [(0.1, "worse"), (0.0, findings_answers.NOT_SHOWN)])
def test_a_change_is_shown_by_seeds_that_agree(slope: float, verdict: str) -> None:
    results = noisy(slope)
    (said,) = findings_answers.answers(results, NOISE)
    assert said.verdict == verdict and said.name.endswith("label_noise 0.0 to 0.2"), said
    ends = [
        r["values"]
        for r in results["rows"]
        if r["metric"] == "accuracy" and r["variant"].get("label_noise") in (0.0, 0.2)
    ]
    change = 100 * (np.array(ends[1]) - ends[0])
    assert said.difference.startswith(f"{change.mean():+.1f} points [") and said.smallest.endswith(" points")


def test_parameters_that_change_together_are_one() -> None:
    """As the two judges of the loop that start from the same model: both are named."""
    ends = [
        ("w2s_naive", {"voting": "none", "weak_model": m, "fluency_model": m}, a) for m, a in (("x", 0.6), ("y", 0.9))
    ]
    rest = [("weak", {}, 0.55), ("strong_ceiling", {}, 0.97)]
    (said,) = findings_answers.answers(experiment([*rest, *ends], seeds=(0, 1, 2, 3), n=300), NOISE)
    assert said.name == "Naive W2S, accuracy, weak_model and fluency_model x to y" and said.verdict == "better"


def test_parameters_that_vary_by_themselves_stay_two() -> None:
    cells = [("w2s_naive", {"voting": "none", "a": a, "b": b}, 0.8) for a in (1, 2) for b in (1, 2)]
    results = experiment([("weak", {}, 0.6), *cells, ("strong_ceiling", {}, 0.9)])
    assert findings_figures.sweep(results).key == "a"
    different = [("w2s_naive", {"voting": "none", "a": a, "b": b}, 0.8) for a, b in ((1, "x"), (2, "y"))]
    swept = findings_figures.sweep(experiment([("weak", {}, 0.6), *different, ("strong_ceiling", {}, 0.9)]))
    assert swept.key == "a and b" and swept.values == ["1 and x", "2 and y"]


def question(slug: str) -> findings_table.Question:
    return next(q for q in findings_table.QUESTIONS if q.slug == slug)


def names(ax) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def test_votes_are_drawn_with_their_labels_and_their_own_seeds() -> None:
    frame = predictions(seeds=(10, 11, 12, 13), n=100)
    few = frame[~(frame["method"].str.endswith("_vote") & (frame["seed"] > 11))]
    results = built(few, labels=weak_labels(few))
    fig = findings_figures._figure(question("votes"), {"demo/w2s_safety": results})
    students, labels = fig.axes
    assert names(students) == ["Naive W2S (4 seeds)", "W2S hard vote (2 seeds)", "W2S soft vote (2 seeds)"]
    assert names(labels) == ["Single supervisor (4 seeds)", "Hard vote (2 seeds)", "Soft vote (2 seeds)"]
    assert labels.get_xlabel() == "Weak labels: accuracy (%)"
    titles = [ax.get_title("left").splitlines()[-1] for ax in fig.axes]
    assert titles == [f"2 to 4 seeds, 200 to 400 {noun} items" for noun in ("test", "transfer")]
    naive = findings_figures._figure(NAIVE, {"demo/w2s_safety": results})
    assert "4 seeds, 400 test items" in naive.get_supxlabel() and names(naive.axes[0])[0] == "Weak supervisor"


def test_a_share_of_the_gap_beyond_the_axis_is_said_in_the_figure() -> None:
    cells = [("w2s_naive", {"voting": "none", "n_supervise": k}, a) for k, a in ((250, 0.9), (500, 0.55))]
    ends = [("weak", {}, 0.85), ("strong_ceiling", {}, 0.9)]
    results = experiment([*ends, *cells], "ablations/a", (0, 1, 2, 3), 1000)
    fig = findings_figures._figure(GAP, {"ablations/a": results, "ablations/b": results})
    assert [ax.get_title("left") for ax in fig.axes] == [f"ablations/{x}: Naive W2S, by n_supervise" for x in "ab"]
    (row,) = [r for r in results["pgr"] if r["metric"] == "accuracy" and r["variant"]["n_supervise"] == 500]
    assert row["mean"] < -1.5, "the student falls far below its supervisor"
    ax = fig.axes[0]
    assert names(ax) == ["250", "500"]
    assert f"{wording.pgr_text(row)}\n4 of 4 seeds beyond" in [t.get_text() for t in ax.texts]
    means = [x for line in ax.get_lines() if line.get_markersize() == 7 for x in line.get_xdata()]
    assert len(means) == 1 and means[0] > -1.5
    foot = " ".join(fig.get_supxlabel().split())
    assert "filled arrow: goes on beyond the axis" in foot and "4 seeds, 4,000 test items" in foot


@pytest.fixture(scope="module")
def loop() -> dict:
    levels = {m: tables_of.LEVELS[m] for m in (*tables_of.LOOP, "human_dpo", "human_modpo")}
    return built_loop(tables_of.answers(levels, n=60, draws=1), judges=tables_of.judges())


def test_a_loop_is_shown_by_safety_helpfulness_and_refusals(loop: dict) -> None:
    fig = findings_figures._figure(question("people"), {"demo/selfmoa": loop})
    assert [ax.get_xlabel().splitlines()[-1] for ax in fig.axes] == ["attacks", "safe prompts", "borderline prompts"]
    assert [ax.get_xlabel().split(" (")[0] for ax in fig.axes] == ["Unsafe rate", "Helpfulness", "Over-refusal"]
    assert names(fig.axes[0])[-1] == "MODPO, human pairs" and names(fig.axes[1]) == []


def test_corrected_rates_stand_beside_the_oracles(loop: dict) -> None:
    fig = findings_figures._figure(question("corrected"), {"demo/selfmoa": loop})
    found, left, attacks, held_out = fig.axes
    assert (found.get_title("left"), attacks.get_title("left")) == ("Unsafe answers that it finds", "Attacks")
    assert held_out.get_title("left") == "Held-out attacks"
    said = {t.get_text() for t in attacks.get_legend().get_texts()}
    assert said == {"Oracle, all answers", "Training judge, corrected", "Training judge, as it is"}
    for metric, (_, ink) in findings_figures.RATES.items():
        rows = [r for r in loop["rows"] if (r["dataset"], r["metric"]) == ("attack", metric)]
        drawn = [
            x
            for a in attacks.get_lines()
            if a.get_markersize() == 7 and a.get_markerfacecolor() == ink
            for x in a.get_xdata()
        ]
        assert sorted(drawn) == pytest.approx(sorted(100 * r["mean"] for r in rows)) and rows
    assert "corrected by 50 labelled answers" in " ".join(fig.get_supxlabel().split())


def test_pairs_of_the_loop_and_by_people_share_an_axis_without_bands() -> None:
    answers, _, made = tables_of.human()
    fig = findings_figures._figure(question("pairs"), {"ablations/selfmoa_pairs": built_loop(answers, pairs=made)})
    assert [ax.get_ylabel().split(" (")[0] for ax in fig.axes] == ["Unsafe rate", "Helpfulness", "Over-refusal"]
    assert all(ax.get_xscale() == "log" and not ax.patches for ax in fig.axes)
    legend = [t.get_text() for t in fig.legends[0].get_texts()]
    assert legend == [
        "Self-MOA, iteration 3",
        "DPO, human pairs",
        "MODPO, human pairs",
        "Aligned model",
        "Safety reset",
    ]


def test_values_of_judges_that_change_together_are_named_in_the_figure() -> None:
    cells = {m: tables_of.LEVELS[m] for m in tables_of.LOOP}
    parts = [tables_of.answers({m: cells.pop(m) for m in ("aligned", "reset")}, n=20, draws=1)]
    for judge in ("trained:x", "trained:y"):
        both = {"helpfulness_judge": judge, "training_judge": judge}
        parts.append(tables_of.answers(cells, n=20, draws=1, variant=both))
    results = built_loop(pd.concat(parts, ignore_index=True))
    fig = findings_figures._figure(question("judges"), {f"ablations/{k}": results for k in "ab"})
    title = "ablations/a: Self-MOA, iteration 3, by helpfulness_judge and training_judge"
    assert fig.axes[0].get_title("left") == title and len(fig.axes) == 6
    assert names(fig.axes[0]) == ["Aligned model", "Safety reset", "x", "y"]


def test_this_machine_is_held_against_readme() -> None:
    def row(name: str, mean: float, ci95: list[float] | None) -> dict:
        return {"name": name, "metric": "accuracy", "mean": mean, "ci95": ci95}

    readme = [row("a", 0.8, [0.7, 0.9]), row("b", 0.5, [0.4, 0.6]), row("c", 0.5, None)]
    here = [row("a", 0.95, [0.89, 0.97]), row("b", 0.7, [0.65, 0.8]), row("c", 0.5, [0.4, 0.6]), row("new", 0.1, None)]
    lines = update_readme.compared(here, readme)
    assert [re.split(r"\s{2,}", line)[-1] for line in lines] == ["agree", "differ", "cannot be said"]
    assert "README 80.0 [70.0, 90.0]" in lines[0] and "here 95.0 [89.0, 97.0]" in lines[0]


def test_an_empty_store_answers_nothing(tmp_path: Path) -> None:
    findings.main(["--home", str(tmp_path)], folder=tmp_path)
    text = (tmp_path / "findings.md").read_text()
    sections = text.split("## ")[1:-2]
    assert len(sections) == len(findings_table.QUESTIONS)
    assert all("Not run yet: `" in s and "**" not in s and "![" not in s for s in sections)
    assert len(text.split("## Not run yet")[1].strip().splitlines()) == len(
        {e for q in findings_table.QUESTIONS for e in q.experiments}
    )


def test_every_experiment_of_a_question_is_shipped_and_sweeps_something() -> None:
    for question in findings_table.QUESTIONS:
        for name in question.experiments:
            file = ROOT / "params" / f"{name}.yaml"
            assert file.is_file(), name
            compares = question.pairs or question.scored == findings_table.CORRECTED
            assert compares or yaml.safe_load(file.read_text())["variants"], name


def test_lines_that_start_from_a_common_value_are_compared_with_it_and_named_by_what_tells_them_apart() -> None:
    """Labels without an error have no kind of error: their row is the first of both kinds, and stands in the figure once."""
    kinds = [("w2s_naive", {"voting": "none", "kind": k, "noise": n}, 0.9 - f * n) for k, f in (("flips", 1.0), ("blind_spot", 0.0)) for n in (0.1, 0.2)]  # fmt: skip
    cells = [
        ("weak", {}, 0.75),
        ("w2s_naive", {"voting": "none", "noise": 0.0}, 0.9),
        *kinds,
        ("strong_ceiling", {}, 0.97),
    ]
    results = experiment(cells, "ablations/x", (0, 1, 2, 3), 400)
    flips, spots = findings_answers.trends(results, "scores")
    assert flips.name.endswith("noise 0.0 to 0.2") and flips.verdict == "worse"
    assert flips.difference.startswith("-19.6 points")
    assert spots.name.endswith("noise 0.0 to 0.2") and spots.verdict == findings_answers.NOT_SHOWN
    title, (panel,) = findings_figures.along("x", findings_figures.sweep(results), gap=False)
    assert title == "x: Naive W2S, by kind and noise"
    expected = [
        "Weak supervisor",
        "0.0",
        "flips, 0.1",
        "flips, 0.2",
        "blind spot, 0.1",
        "blind spot, 0.2",
        "Strong ceiling",
    ]
    assert panel.rows["name"].tolist() == expected
