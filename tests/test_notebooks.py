"""Every notebook keeps the contract of a stage."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from conftest import ROOT
from underseer.errors import UserError
from underseer.runs import by_hand, params, plan
from underseer.runs.params import KNOWN, RUNTIME
from underseer.runs.pipelines import DECIDED, REPORTS, STEERS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/*.ipynb"))
STAGES = [f"{p.parent.name}/{p.stem}" for p in NOTEBOOKS]


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def parameters(path: Path) -> list[str]:
    """The lines of the cell of parameters."""
    cell = next(c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", []))
    return "".join(cell["source"]).splitlines()


def experiment_of(stage: str) -> str:
    path = ROOT / f"notebooks/{stage}.ipynb"
    return next(line for line in parameters(path) if line.startswith("experiment")).split('"')[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STAGES)
def test_thin_and_clean(path: Path) -> None:
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for cell in code_cells(path):
        source = "".join(cell["source"])
        assert not cell["outputs"] and cell["execution_count"] is None, "outputs are not committed"
        assert cell in tagged or len(source.splitlines()) <= 20, source
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.walk(ast.parse(source)))
    assert "run.finish()" in "".join(code_cells(path)[-1]["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STAGES)
def test_parameters_are_explained_and_stages_lead_to_each_other(path: Path) -> None:
    """Each parameter has a unit, its choices or its meaning beside it; the first cell links the stages around it and the report."""
    assert [line for line in parameters(path) if " = " in line and "  # " not in line] == []
    head = "".join(json.loads(path.read_text())["cells"][0]["source"])
    targets = re.findall(r"\]\(([\w./]+\.ipynb)\)", head)
    assert "Before: [" in head or path.stem == "pretrain"
    assert "Next: [" in head or path.stem in ("5_report", "6_report")
    assert all((path.parent / target).is_file() for target in targets)
    reports = {(ROOT / f"notebooks/{report}.ipynb").resolve() for report in REPORTS.values()}
    assert path in reports or reports & {(path.parent / target).resolve() for target in targets}


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_are_the_demos(stage: str) -> None:
    """Run All in JupyterLab does what the first variant of the experiment does that the notebook names."""
    experiment = experiment_of(stage)
    assert experiment.startswith("params/demo/")
    first = next(iter(params.load(ROOT / experiment).resolved()))
    for name, default in plan.read_notebook(stage).defaults.items():
        if (stage, name) == ("selfmoa/0_supervised", "supervised_dataset"):  # the demo names none: its model refuses
            assert default == "testbed-chat" and first[name] is None
        elif name in KNOWN:
            trained = "trained:" if (stage, name) == ("judges/fluency", "fluency_model") else ""  # the demo trains none
            assert default == (f"{trained}{first[name]}" if trained else first[name]), name
        else:
            assert name in DECIDED | {"name"}


@pytest.mark.parametrize("stage", STAGES)
def test_run_all_has_an_instance_of_its_experiment(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of stages that the demo itself leaves out."""
    monkeypatch.setattr(by_hand, "_check_made", lambda choice: None)
    choice = by_hand.choose(stage, dict(plan.read_notebook(stage).defaults), experiment_of(stage), None)
    assert choice.planned.stage == stage and choice.plan.instances[choice.planned.key] is choice.planned


def test_every_parameter_is_read_by_some_notebook() -> None:
    declared = {n for s in STAGES for n in plan.read_notebook(s).defaults}
    assert set(KNOWN) - RUNTIME <= declared | set().union(*STEERS.values())


def test_papermill_reads_every_parameter() -> None:
    """papermill's own parser must see the names, or it warns of unknown parameters."""
    from papermill.inspection import _infer_parameters
    from papermill.iorw import load_notebook_node

    for path, stage in zip(NOTEBOOKS, STAGES, strict=True):
        seen = {p.name for p in _infer_parameters(load_notebook_node(str(path)))}
        assert seen >= set(plan.read_notebook(stage).defaults), stage


def test_only_the_report_opens_the_test_labels() -> None:
    opening = [
        s for s, p in zip(STAGES, NOTEBOOKS, strict=True) if 'table("test_labels")' in p.read_text().replace('\\"', '"')
    ]
    assert opening == []  # no notebook by itself: report.collect_w2s does, and 5_report alone calls it
    assert [s for s in STAGES if "report.collect_w2s" in plan.read_notebook(s).reached] == ["w2s/5_report"]


def test_only_scoring_asks_the_oracle_and_the_reporting_judge() -> None:
    """What trains, labels or selects cannot reach them, by any import."""
    for stage in STAGES:
        assert ("judges.scoring" in plan.read_notebook(stage).reached) == (stage == "judges/score"), stage


@pytest.mark.parametrize(
    ("tags", "source", "expected"),
    [
        ([[], []], "seed = 0", "0 cells tagged 'parameters'"),
        ([["parameters"], ["parameters"]], "seed = 0", "2 cells tagged"),
        ([["parameters"], []], "sed = 0", "sed: unknown; did you mean 'seed'"),
        ([["parameters"], []], "seed = int(3)", "expected NAME = a flat scalar"),
        ([["parameters"], []], "seed = = 0", "not Python"),
    ],
)
def test_broken_notebooks(tmp_path: Path, monkeypatch, tags, source: str, expected: str) -> None:
    cells = [{"cell_type": "code", "metadata": {"tags": t}, "source": [source], "outputs": []} for t in tags]
    (tmp_path / "notebooks" / "w2s").mkdir(parents=True)
    (tmp_path / "notebooks" / "w2s" / "broken.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr("underseer.paths.ROOT", tmp_path)
    with pytest.raises(UserError, match=expected.replace("'", ".")):
        plan.read_notebook("w2s/broken")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STAGES)
def test_a_check_that_says_finite_refuses_infinity(path: Path) -> None:
    lines = [line for cell in code_cells(path) for line in cell["source"]]
    said = [line for line in lines if "run.check(" in line and re.search(r"(is|are) finite", line)]
    assert all("isfinite" in line or "are_finite" in line for line in said), said
