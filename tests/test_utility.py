"""Perplexity by hand, and lm-evaluation-harness on a task and a random model made here."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tiny import cpu, save_adapter
from underseer.engines import Inference, open_engine
from underseer.errors import UserError
from underseer.models import loading
from underseer.selfmoa import utility
from underseer.selfmoa.targets import Target

TEXTS = ["the cat sat on the mat", "a dog ran to the big house", "the bird sang and the cat ran"]
INFERENCE = Inference("cpu", "fp32", 8, 64)
needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random GPT-2 in Hugging Face format."""
    spec = "scratch:gpt2?n_layer=1&n_embd=16&n_head=2&vocab_size=300"
    model, tokenizer = loading.load_language_model(spec, texts=TEXTS, max_length=64)
    path = tmp_path_factory.mktemp("model")
    loading.save(model, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Path:
    """A LoRA folder that changes what the model says."""
    path = tmp_path_factory.mktemp("adapter")
    save_adapter(path, folder, target_modules=["c_attn"], fan_in_fan_out=True)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    with_model = open_engine("transformers", str(folder), **cpu(max_length=64))
    yield with_model
    with_model.close()


def test_perplexity_is_exp_of_the_mean_token_loss(folder, engine):
    import torch

    model, tokenizer = loading.load_language_model(str(folder))
    total, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            loss = model(ids, labels=ids).loss
        total, tokens = total + float(loss) * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
    found = utility.perplexity(engine, TEXTS)
    assert found["n_tokens"] == tokens and found["n_texts"] == 3
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_perplexity_of_answers_counts_no_context(engine):
    alone, after = (
        utility.perplexity(engine, ["the mat"]),
        utility.perplexity(engine, ["the mat"], contexts=["the cat"]),
    )
    assert alone["n_tokens"] == after["n_tokens"] and alone["perplexity"] != after["perplexity"]
    with pytest.raises(UserError, match="none of the 1 held-out texts has a token"):
        utility.perplexity(engine, [""])


def test_a_perplexity_too_large_is_infinite():
    class Broken:
        def score(self, texts, *, contexts=None, adapter=None):
            return np.array([-1e6]), np.array([10])

    assert utility.perplexity(Broken(), ["x"])["perplexity"] == math.inf


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_extra_the_command_is_named(folder):
    with pytest.raises(UserError, match=r'pip install "underseer\[lm-eval\]"'):
        utility.harness(Target(str(folder)))


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """A folder with a multiple-choice task over a local file: which word follows."""
    root = tmp_path_factory.mktemp("task")
    rows = [{"start": f"the cat {k} sat on the", "ends": [" mat", " dog house"], "right": k % 2} for k in range(12)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("endings", "endings_again"):
        (root / f"{name}.yaml").write_text(
            f"""task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {root / "rows.jsonl"}
output_type: multiple_choice
test_split: test
doc_to_text: start
doc_to_choice: ends
doc_to_target: right
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm
"""
        )
    both = "group: both\ntask: [endings, endings_again]\naggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
    (root / "both.yaml").write_text(both)
    return root


@needs_harness
def test_harness_scores_a_task_as_the_model_does(folder, task, engine):
    """The accuracy is that of picking the likelier ending, by the library's own log-probabilities."""
    options = {"task_folders": [task], "inference": INFERENCE}
    found = utility.harness(Target(str(folder)), ["endings"], **options)["endings"]
    rows = [json.loads(line) for line in (task / "rows.jsonl").read_text().splitlines()]
    right = 0
    for row in rows:
        sums, _ = engine.score(row["ends"], contexts=[row["start"]] * 2)
        right += int(np.argmax(sums)) == row["right"]
    assert found["acc"] == pytest.approx(right / len(rows)) and found["n"] == 12
    assert 0 < found["stderr"] < 0.5 and "acc_norm" in found
    both = utility.harness(Target(str(folder)), ["both"], **options)["both"]  # a group, as MMLU is
    assert both["acc"] == pytest.approx(found["acc"]) and both["n"] == 24
    with pytest.raises(UserError, match="tasks = endings, both: one stands in another"):
        utility.harness(Target(str(folder)), ["endings", "both"], **options)


@needs_harness
def test_harness_applies_an_adapter_and_a_limit(folder, task, adapter, engine):
    some = [json.loads(line) for line in (task / "rows.jsonl").read_text().splitlines()][:5]
    picked = [
        int(np.argmax(engine.score(row["ends"], contexts=[row["start"]] * 2, adapter=adapter)[0])) for row in some
    ]
    target = Target(str(folder), adapter=adapter)
    found = utility.harness(target, ["endings"], INFERENCE, task_folders=[task], limit=5)["endings"]
    assert found["n"] == 5
    assert found["acc"] == pytest.approx(np.mean([p == row["right"] for p, row in zip(picked, some, strict=True)]))


@needs_harness
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["helaswag"]}, "tasks: 'helaswag' is unknown; did you mean 'hellaswag'?"),
        ({"tasks": []}, "tasks: none given"),
        ({"limit": 0}, "limit = 0: it must be at least 1"),
        ({"inference": Inference(precision="fp8")}, "precision = 'fp8': allowed are fp32, bf16"),
        ({"chat": True}, "has no chat template"),
    ],
)
def test_harness_refuses_what_it_cannot_do(folder, options, message):
    with pytest.raises(UserError) as error:
        utility.harness(Target(str(folder)), **{"tasks": ["winogrande"], **options})
    assert message in str(error.value)


@needs_harness
def test_a_benchmark_that_cannot_be_downloaded_says_so(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="tasks = winogrande: the data of a task cannot be read here"):
        utility.harness(Target(str(folder)), ["winogrande"], INFERENCE, limit=1)


@needs_harness
def test_all_benchmarks_are_tasks_of_the_harness():
    assert set(utility.BENCHMARKS.values()) <= set(utility._known_tasks(()).all_tasks)


def test_an_adapter_that_does_not_fit_is_refused(folder, tmp_path):
    model, _ = loading.load_language_model(str(folder))
    with pytest.raises(UserError, match=r"has no adapter_config\.json"):
        utility._adapted(model, tmp_path)


def test_perplexity_with_an_adapter_is_another(engine, adapter):
    assert (
        utility.perplexity(engine, TEXTS, adapter=adapter)["perplexity"]
        != utility.perplexity(engine, TEXTS)["perplexity"]
    )
