"""What a GPU computes beside what the CPU does: the same in fp32 but for rounding. ``make test-gpu`` on a machine with one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import underseer
from test_modpo import FULL, LORA, PAIRS
from test_modpo import _model as chat
from test_train import PLAIN, VALIDATION, _fit, _model
from tiny import TEXTS, cpu, save_model
from underseer import store
from underseer.engines import Sampling, gpus, open_engine
from underseer.training import finetune
from underseer.training.align import align

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus.visible(), reason="needs a CUDA GPU: make test-gpu")]

PLACES = ("cpu", "cuda")


def test_a_classifier_trained_there_is_the_one_trained_here():
    fits = {place: _fit(options=PLAIN, device=place) for place in PLACES}
    first, second = (fits[place].curves.pivot(index="step", columns="metric", values="value") for place in PLACES)
    pd.testing.assert_frame_equal(first, second, atol=2e-3, rtol=1e-2)
    model, tokenizer = fits["cuda"].model, _model(options=PLAIN)[1]
    read = {"max_length": 32, "precision": "fp32"}
    here, there = (finetune.predict_proba(model, tokenizer, VALIDATION, device=place, **read) for place in PLACES)
    assert np.allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_alignment_there_is_alignment_here(settings):
    curves = []
    for place in PLACES:
        found = align(*chat(), PAIRS, replace(settings, train=replace(settings.train, device=place)))
        curves.append(found.curves.pivot(index="step", columns="metric", values="value"))
    shared = ["train_loss", "chosen_logp", "rejected_logp"]
    pd.testing.assert_frame_equal(curves[0][shared], curves[1][shared], atol=5e-2, rtol=1e-2)


def test_the_same_answers_and_the_same_log_probabilities(tmp_path):
    folder = save_model(tmp_path / "base")
    found = {}
    for place in PLACES:
        engine = open_engine("transformers", str(folder), **cpu(device=place, max_length=64))
        found[place] = [engine.generate(TEXTS, Sampling(max_new_tokens=8)), engine.score(TEXTS)]
        engine.close()
    assert found["cpu"][0] == found["cuda"][0]
    assert np.allclose(found["cpu"][1][0], found["cuda"][1][0], rtol=1e-4)


@pytest.mark.parametrize("file", ["w2s_safety", "selfmoa"])
def test_a_whole_run(home, file):
    command = ("run", f"params/test/{file}.yaml", "--set", "device=cuda", "--jobs", "4")
    ran = underseer(home, *command)
    assert ran.returncode == 0, ran.stderr
    assert "cuda" in {output.manifest["runtime"].get("device") for output in store.readable()}
    assert "nothing to do" in underseer(home, *command).stdout
