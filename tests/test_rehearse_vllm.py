"""A paper's experiment rehearsed through vLLM on a CPU: target and adapters, red team, and judges that write verdicts.

``make test-vllm``. Minutes: each model of each stage is one start of vLLM.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from conftest import ROOT, underseer
from underseer import store

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="needs vllm: make test-vllm")]

PARAMS = ROOT / "params/paper/selfmoa_qwen2.5-1.5b.yaml"
# As it is written but for what costs starts of vLLM and shows nothing more of it: one round instead of two, no reset, no
# baselines, and a classifier as the judge that steers (the guard and the rubric that report write their verdicts in vLLM).
# That classifier is a random one, which may call every answer unsafe.
SETS = {
    "engine": "vllm",
    "seed": 0,
    "iterations": 1,
    "reset": "false",
    "baselines": "false",
    "training_judge": "classifier:unitary/toxic-bert",
    "drop_both_unsafe": "false",
    "batch_size": 4,  # several steps, so that what a few pairs teach is to be seen
    "learning_rate": 0.01,
}
MODEL_STAGES = {"selfmoa/2_red_team", "selfmoa/3_preferences", "selfmoa/5_evaluate"}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("rehearsed")
    sets = [part for name, value in SETS.items() for part in ("--set", f"{name}={value}")]
    done = underseer(home, "run", PARAMS, "--rehearse", "--jobs", 1, *sets, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def test_every_stage_that_answers_did_so_through_vllm_and_says_so(rehearsed: Path) -> None:
    found = [o.manifest for o in store.outputs(rehearsed / "runs") if o.manifest["stage"] in MODEL_STAGES]
    assert {m["stage"] for m in found} == MODEL_STAGES
    for manifest in found:
        assert manifest["parameters"]["engine"] == "vllm" and manifest["hashes"]["engine"].startswith("vllm: vllm")
        assert manifest["engines"] and all(name.startswith("vllm: vllm") for name in manifest["engines"])


def test_the_iterate_is_an_adapter_that_vllm_applied(rehearsed: Path) -> None:
    (aligned,) = store.outputs(rehearsed / "runs/selfmoa/4_align")
    weights = load_file(aligned.file("adapter") / "adapter_model.safetensors")
    assert max(abs(value).max() for name, value in weights.items() if "lora_B" in name) > 0.005
    tables = {
        o.parameters["method"]: o.table("evaluation") for o in store.outputs(rehearsed / "runs/selfmoa/5_evaluate")
    }
    assert set(tables) == {"aligned", "selfmoa_iter1"}
    for table in tables.values():
        assert table.answer.str.len().gt(0).mean() > 0.5 and table.failure.isna().mean() > 0.5
        assert table.unsafe.notna().any() and table.helpful.notna().any()
    perplexities = {o.json("utility")["perplexity"] for o in store.outputs(rehearsed / "runs/selfmoa/5_evaluate")}
    assert len(perplexities) == 2  # of the same texts, by the same weights, without the adapter and with it


def test_its_report_stands_and_means_nothing(rehearsed: Path) -> None:
    report = rehearsed / "reports/rehearsal/paper_selfmoa_qwen2.5-1.5b"
    assert json.loads((report / "results.json").read_text())["provenance"]["rehearsal"] is True
    assert "These numbers mean nothing" in (report / "index.html").read_text()
