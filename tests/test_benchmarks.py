"""What the benchmarks compute from their timings. The timings themselves are measured by ``make bench``."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from underseer.runs import params, plan
from underseer.training import finetune


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("shared", monkeypatch)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("pipeline", monkeypatch)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_a_power_law(shared: ModuleType, power: float) -> None:
    found = shared.exponent({n: [3.0 * n**power] for n in (1, 2, 4, 8, 16)})
    assert found.value == pytest.approx(power)
    assert found.low == pytest.approx(power) and found.high == pytest.approx(power)


def test_interval_of_an_exponent_holds_the_truth_as_often_as_it_says(shared: ModuleType) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        points = {n: (n * rng.lognormal(0, 0.1, 3)).tolist() for n in (1, 2, 4, 8, 16)}
        found = shared.exponent(points)
        held += found.low <= 1 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_fixed_cost_shows_as_an_exponent_below_one(shared: ModuleType) -> None:
    assert shared.exponent({n: [5.0 + n] for n in (1, 2, 4, 8)}).high < 0.9


@pytest.mark.parametrize("points", [{4: [1.0, 2.0, 3.0]}, {1: [1.0], 2: [2.0]}, {1: [1.0], 2: [0.0], 4: [4.0]}])
def test_no_exponent_from_too_little(shared: ModuleType, points: dict) -> None:
    with pytest.raises(ValueError, match="exponent needs"):
        shared.exponent(points)


def test_ways_alternate(shared: ModuleType) -> None:
    order: list[str] = []
    found = shared.in_turns({"a": lambda: order.append("a") or 1, "b": lambda: order.append("b") or 2}, 3)
    assert order == ["a", "b"] * 3 and found == {"a": [1, 1, 1], "b": [2, 2, 2]}
    assert shared.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_records_hold_no_nan(shared: ModuleType, tmp_path) -> None:
    args = shared.parser("A title\n\nmore", "x").parse_args(["--out", str(tmp_path / "x.json"), "--threads", "3"])
    shared.write(args, "x", values={1: [float("nan"), 2.0]}, exponent=shared.Exponent(1.0, 0.9, float("inf")))
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["benchmark"] == "x" and told["threads"] == 3 and set(told["versions"]) >= {"torch", "trl"}
    assert told["values"] == {"1": [None, 2.0]} and told["exponent"] == [1.0, 0.9, None]


def test_a_table_is_aligned(shared: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    shared.table(["", "n", "seconds"], [["a", 1, "0.50"], ["long", 20, "1.00"]])
    assert capsys.readouterr().out.splitlines() == ["       n  seconds", "a      1     0.50", "long  20     1.00"]


def test_stages_saved(pipeline: ModuleType) -> None:
    """One seed: data, a supervisor, its labels, student and ceiling for no vote; three voters, labels and a student more
    for each vote; what the votes share with each other, and the ceiling with all, is planned once."""
    made = plan.make(params.load(ROOT / "params/test/w2s_safety.yaml"))
    alone = (5 + 1) + 2 * (5 + 3 + 1)  # a vote needs the single supervisor too; the report is each variant's own
    planned = 1 + (1 + 3) + 3 + (3 + 1) + 1
    assert pipeline.stages_saved(made) == {"variants": 3, "alone": alone, "planned": planned, "new": planned}
    held = frozenset(made.instances)
    assert pipeline.stages_saved(made, held)["new"] == 0


def test_parts_of_a_stage(pipeline: ModuleType) -> None:
    def at(second: float) -> str:
        return f"2026-01-01T00:00:{second:06.3f}+00:00"

    def cell(start: float, end: float) -> dict:
        return {"cell_type": "code", "metadata": {"papermill": {"start_time": at(start), "end_time": at(end)}}}

    notebook = {
        "cells": [{"cell_type": "markdown", "metadata": {}}, cell(3, 4), cell(4, 9)],
        "metadata": {"papermill": {"start_time": at(2), "end_time": at(9.5)}},
    }
    stored = pipeline.moment(at(10))
    found = pipeline.parts({"cost": {"seconds": 5.5}}, notebook, stored, before=pipeline.moment(at(0.5)))
    assert found == pytest.approx({"own": 5.5, "kernel": 1, "cells": 0.5, "close": 1, "schedule": 1.5})
    assert pipeline.overhead(found) == pytest.approx(10 - 0.5 - 5.5)
    alone = pipeline.parts({"cost": {"seconds": 5.5}}, notebook, stored, before=None)
    assert "schedule" not in alone and pipeline.overhead(alone) == pytest.approx(2.5)


def test_the_grid_for_plan_times_has_enough_stages(pipeline: ModuleType, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pipeline, "INSTANCES", 150)
    for file in pipeline.GRIDS.values():
        made = plan.make(params.load(pipeline.grid(file, tmp_path)))
        assert 150 <= len(made.instances) < 250


def test_a_trained_judge_of_refusals_is_measured_on_what_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every completion is scored once, by the model that learnt from the other half; no contrast stands in both."""
    refusals = benchmark("refusals", monkeypatch)
    kinds = [f"{'contrast_' * k}{name}" for name in ("homonyms", "definitions") for k in (0, 1)]
    rows = pd.DataFrame([(k, name) for name in kinds for k in range(25)], columns=["place", "category"])
    rows["label"] = rows.category.str.startswith("contrast_").astype(int)
    rows["group"] = rows.category.str.removeprefix("contrast_") + ":" + rows.place.astype(str)
    rows["prompt"] = "question " + rows.group
    rows["answer"] = ["no never" if label else "sure here it is" for label in rows.label]
    learnt, held = [], []
    scores = refusals._scores

    def watched(spec, learn, rest, *how):
        learnt.append(set(learn.group))
        held.append(set(rest.group))
        return scores(spec, learn, rest, *how)

    monkeypatch.setattr(refusals, "_scores", watched)
    monkeypatch.setattr(refusals, "settings", lambda seed, length: finetune.TrainSettings(
        epochs=4, batch_size=8, learning_rate=5e-3, eval_steps=20, max_length=length, device="cpu", progress=False, seed=seed))  # fmt: skip
    tiny = "trained:scratch:gpt2?n_layer=1&n_embd=32&n_head=2&n_positions=64&vocab_size=400"
    found = refusals.card_of(tiny, rows, seed=0, max_length=32)
    assert found["n"] == 100 and found["failures"] == 0 and found["accuracy"]["value"] > 0.9
    assert all(not a & b for a, b in zip(learnt, held, strict=True)) and len(held[0] | held[1]) == 50
    assert refusals.card_of("strings", rows, seed=0, max_length=32)["counts"]["tp"] == 0
