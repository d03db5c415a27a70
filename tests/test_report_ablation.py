"""Ablations: which key is swept, what is drawn against it, and that methods it does not decide stay constant."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri

from underseer.report import ablation, figures, names, tables, wording
from underseer.report.results import Experiment, build_results

SCRATCH = ["scratch:gpt2?n_layer=1&n_embd=32", "scratch:gpt2?n_layer=2&n_embd=64"]


def experiment(cells, name: str = "ablations/x", seeds=(0, 1), n: int = 120) -> dict:
    """Results of (method, variant, accuracy) cells, all on the same items."""
    rng, parts = np.random.default_rng(0), []
    for seed in seeds:
        ids = [hashlib.sha256(f"{seed}-{i}".encode()).hexdigest()[:16] for i in range(n)]
        y, difficulty = rng.integers(0, 2, n), rng.normal(0, 0.7, n)
        for method, variant, accuracy in cells:
            skill = ndtri(accuracy) + difficulty + rng.normal(0, 0.71, n)
            p = ndtr(np.where(y == 1, skill, -skill))
            rows = {"method": method, "variant": json.dumps(variant), "seed": seed, "dataset": "test", "id": ids}
            parts.append(pd.DataFrame({**rows, "label": y, "p": p}))
    experiment = Experiment(name=name, pipeline="w2s", task="safety", synthetic=True)
    return build_results(experiment, pd.concat(parts, ignore_index=True), n_boot=60)


def supervisors() -> dict:
    votes = [(f"w2s_{v}_vote", {"voting": v, "bootstraps": b}, 0.84) for v in ("hard", "soft") for b in (9, 1, 3)]
    rest = [("weak", {}, 0.75), ("w2s_naive", {"voting": "none"}, 0.8), *votes, ("strong_ceiling", {}, 0.95)]
    return experiment(rest)


def models() -> dict:
    cells = [(m, {"weak_model": s}, a) for m, a in (("weak", 0.75), ("w2s_naive", 0.8)) for s in SCRATCH]
    return experiment([*cells, ("strong_ceiling", {}, 0.95)])


def constant(found: ablation.Sweep, by: str = "line") -> dict[str, bool]:
    """Series -> whether the swept key leaves it as it is."""
    return found.scores["accuracy"].groupby(by, sort=False)["place"].apply(lambda p: bool(p.isna().all())).to_dict()


def test_a_swept_number_is_ordered_and_what_it_does_not_decide_is_constant():
    found = ablation.sweep(supervisors())
    assert (found.key, found.values, found.ticks) == ("bootstraps", [1, 3, 9], ["1", "3", "9"])
    rows = found.scores["accuracy"]
    assert set(rows.loc[rows["place"].isna(), "method"]) == {"weak", "w2s_naive", "strong_ceiling"}
    moving = rows.dropna(subset="place").groupby("line")["place"].apply(sorted)
    assert moving.tolist() == [[0, 1, 2]] * 2
    assert set(found.gaps["line"]) == {"Naive W2S", "W2S hard vote", "W2S soft vote"}


def test_table_and_figure_hold_the_rows_of_the_results():
    results = supervisors()
    table = ablation.table(results)
    assert table.shown["Supervisors"].tolist() == ["1"] * 2 + ["3"] * 2 + ["9"] * 2 + ["any"] * 3
    row = next(r for r in results["rows"] if r["variant"].get("bootstraps") == 3 and r["method"] == "w2s_soft_vote")
    line = table.shown[(table.shown["Supervisors"] == "3") & (table.shown["Method"] == "W2S soft vote")].iloc[0]
    pgr = next(r for r in results["pgr"] if r["variant"] == row["variant"] and r["metric"] == "accuracy")
    assert line["Accuracy, %"] == wording.with_interval(row, "accuracy") and line["PGR"] == wording.pgr_text(pgr)
    assert table.data["mean"].notna().all() and "bootstraps" in table.data
    found = ablation.sweep(results)
    fig = figures.sweep(found.panels, found.head)
    assert [t.get_text() for t in fig.axes[1].get_xticklabels()] == ["1", "3", "9"]
    labels = {t.get_text() for t in fig.legends[0].get_texts()}
    assert labels == {"Weak supervisor", "Naive W2S", "W2S hard vote", "W2S soft vote", "Strong ceiling"}
    means = [100 * r["mean"] for r in results["rows"] if r["method"] == row["method"] and r["metric"] == "accuracy"]
    drawn = [sorted(line.get_ydata()) for line in fig.axes[0].get_lines() if len(line.get_ydata()) == 3]
    assert pytest.approx(sorted(means)) in drawn
    assert "bootstraps" in ablation.caption(results) and table.caption.count("2 seeds") == 1
    assert "2 seeds" not in ablation.caption(results), "the foot of the figure says it"


def test_models_are_listed_in_their_order_with_short_names():
    found = ablation.sweep(models())
    assert found.key == "weak_model" and found.ticks == ["1 x 32", "2 x 64"]
    assert constant(found, "method") == {"weak": False, "w2s_naive": False, "strong_ceiling": True}
    assert "Weak supervisor (weak_model = 1 x 32)" in tables.scores(models()).shown["Method"].tolist()


def test_a_swept_loss_is_one_series_by_vote():
    losses = {"hard_ce": "w2s_hard_vote", "soft_ce": "w2s_hard_vote_soft_ce", "aux_conf": "w2s_hard_vote_aux_conf"}
    cells = [(m, {"student_loss": loss}, 0.85) for loss, m in losses.items()]
    found = ablation.sweep(experiment([("weak", {}, 0.75), *cells, ("strong_ceiling", {}, 0.95)]))
    assert found.key == "student_loss" and found.values == list(losses)
    assert list(constant(found)) == ["Weak supervisor", "W2S hard vote", "Strong ceiling"]


def test_voting_counts_as_an_ablation_only_where_it_is_called_one():
    cells = [("weak", {"voting": "none"}, 0.75), ("w2s_naive", {"voting": "none"}, 0.8), ("strong_ceiling", {}, 0.95)]
    cells += [("w2s_hard_vote", {"voting": "hard"}, 0.82), ("w2s_soft_vote", {"voting": "soft"}, 0.83)]
    found = ablation.sweep(experiment(cells))
    assert found.ticks == ["single", "hard vote", "soft vote"]
    assert constant(found) == {"Weak supervisor": True, "W2S student": False, "Strong ceiling": True}
    usual = experiment(cells, name="demo/w2s_safety")
    assert ablation.sweep(usual) is None and ablation.table(usual) is None and ablation.caption(usual) == ""


def test_votes_with_their_own_number_of_supervisors_are_no_sweep():
    cells = [("w2s_naive", {"voting": "none", "bootstraps": 1}, 0.8), ("strong_ceiling", {}, 0.95)]
    cells += [("w2s_hard_vote", {"voting": "hard", "bootstraps": 5}, 0.82), ("weak", {}, 0.75)]
    assert ablation.sweep(experiment(cells, name="demo/x")) is None


def test_data_that_every_method_depends_on_moves_every_series():
    cells = [(m, {"clean": c}, a) for c in (True, False) for m, a in (("weak", 0.75), ("w2s_naive", 0.8))]
    cells += [("strong_ceiling", {"clean": c}, 0.95) for c in (True, False)]
    found = ablation.sweep(experiment(cells))
    assert found.ticks == ["cleaned", "raw"] and set(found.scores["accuracy"].groupby("line").size()) == {2}


def test_an_undefined_gap_leaves_its_place_empty():
    cells = [("weak", {"n_supervise": k}, a) for k, a in ((50, 0.7), (500, 0.95))]
    cells += [("w2s_naive", {"n_supervise": k}, 0.85) for k in (50, 500)] + [("strong_ceiling", {}, 0.9)]
    results = experiment(cells)
    assert ablation.table(results).shown["PGR"].tolist()[-2:] == ["undefined", ""]
    found = ablation.sweep(results)
    assert figures.sweep(found.panels, found.head) is not None


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("testbed:gpt2-xs", "gpt2-xs"),
        ("scratch:gpt2?n_layer=2&n_embd=64", "2 x 64"),
        ("scratch:gpt2?n_layer=2", "gpt2 (n_layer=2)"),
        ("openai-community/gpt2-medium@abc", "gpt2-medium"),
        ("/models/MiniLM/", "MiniLM"),
        (5, "5"),
        (False, "False"),
    ],
)
def test_short_labels(value, label):
    assert names.short(value) == label


def test_labels_that_would_read_alike_are_given_in_full():
    assert names.labels(["a/gpt2", "b/gpt2"]) == ["a/gpt2", "b/gpt2"]
