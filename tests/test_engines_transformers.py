"""The transformers engine: one base in memory, adapters applied without merging, mistakes named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tiny import TINY, cpu, language_model, save_adapter, save_model
from underseer import engines
from underseer.engines import Sampling, gpus, local, open_engine
from underseer.engines.keeping import KeepingEngine
from underseer.engines.kept import Kept
from underseer.errors import StageError, UserError

TEXTS = ["the river runs", "a lamp", "bread and stone and song", "who knows"]
CPU = cpu(max_length=64)
SAMPLED = Sampling(max_new_tokens=8, temperature=0.8, n=2, seed=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, two adapters, and both merged."""
    root = tmp_path_factory.mktemp("world")
    base = save_model(root / "base")
    merged = [save_adapter(root / f"adapter{i}", base, seed=i) for i in (1, 2)]
    return root, merged


def test_adapters_are_applied_without_merging_and_taken_off_again(world):
    root, merged = world
    engine = open_engine("transformers", str(root / "base"), **CPU)
    plain = engine.generate(TEXTS, SAMPLED)
    expected = [local.generate(*pair, TEXTS, SAMPLED, **CPU) for pair in merged]
    assert plain != expected[0] != expected[1]
    for i in (1, 2, 1):
        assert engine.generate(TEXTS, SAMPLED, adapter=root / f"adapter{i}") == expected[i - 1]
        assert engine.generate(TEXTS, SAMPLED) == plain
    sums, counts = engine.score(TEXTS, adapter=root / "adapter2")
    theirs = local.log_probs(*merged[1], TEXTS, **CPU)
    assert np.allclose(sums, theirs[0], rtol=1e-5) and (counts == theirs[1]).all()
    assert engine.name == "transformers" and "fp32" in engine.version
    engine.close()


def test_an_adapter_is_read_once_and_again_when_it_was_saved_anew(world, tmp_path, monkeypatch):
    from peft import PeftModel

    root, merged = world
    calls = []
    read = PeftModel.load_adapter
    monkeypatch.setattr(PeftModel, "load_adapter", lambda *a, **k: calls.append(1) or read(*a, **k))
    folder = shutil.copytree(root / "adapter1", tmp_path / "adapter")
    engine = open_engine("transformers", str(root / "base"), **CPU)
    first = engine.generate(TEXTS, SAMPLED, adapter=folder)
    assert engine.generate(TEXTS, SAMPLED, adapter=folder) == first and len(calls) == 1
    shutil.copy(root / "adapter2" / "adapter_model.safetensors", folder)
    assert engine.generate(TEXTS, SAMPLED, adapter=folder) == local.generate(*merged[1], TEXTS, SAMPLED, **CPU)
    assert len(calls) == 2


def test_an_adapter_of_another_base_is_refused_and_leaves_the_model_as_it_was(world, tmp_path):
    root, merged = world
    others = {
        "weights": save_model(tmp_path / "weights", seed=9),
        "wider": save_model(tmp_path / "wider", f"scratch:llama?{TINY.replace('n_embd=16', 'n_embd=32')}"),
        "deeper": save_model(tmp_path / "deeper", f"scratch:llama?{TINY.replace('n_layer=2', 'n_layer=3')}"),
        "shallower": save_model(tmp_path / "shallower", f"scratch:llama?{TINY.replace('n_layer=2', 'n_layer=1')}"),
    }
    engine = open_engine("transformers", str(root / "base"), **CPU)
    plain = engine.generate(TEXTS, SAMPLED)
    for name, base in others.items():
        folder = tmp_path / f"adapter_{name}"
        save_adapter(folder, base)
        with pytest.raises(UserError, match=f"was made for '.*{name}' and does not fit"):
            engine.generate(TEXTS, SAMPLED, adapter=folder)
        if name == "weights":
            continue  # the sizes fit: only the recorded base tells
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/gone"}))
        with pytest.raises(UserError, match="does not fit"):
            engine.generate(TEXTS, SAMPLED, adapter=folder)
        assert engine.generate(TEXTS, SAMPLED) == plain
        assert engine.generate(TEXTS, SAMPLED, adapter=root / "adapter1") == local.generate(
            *merged[0], TEXTS, SAMPLED, **CPU
        )
    fresh = open_engine("transformers", str(root / "base"), **CPU)
    with pytest.raises(UserError, match="does not fit"):
        fresh.generate(TEXTS, SAMPLED, adapter=tmp_path / "adapter_shallower")
    assert fresh.generate(TEXTS, SAMPLED) == plain
    moved = shutil.copytree(root / "base", tmp_path / "moved")  # the same weights elsewhere are the same base
    engine = open_engine("transformers", str(moved), **CPU)
    assert engine.generate(TEXTS, SAMPLED, adapter=root / "adapter1")


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: (folder / CONFIG).unlink(), "has no adapter_config.json; save it"),
        (lambda folder: (folder / CONFIG).rename(folder / "config.json"), "holds a whole model"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "only safetensors"),
        (lambda folder: (folder / CONFIG).write_text("{"), "is not an adapter's configuration"),
        (lambda folder: (folder / CONFIG).write_text('{"peft_type": "IA3"}'), "kind IA3; allowed is LORA"),
    ],
)
def test_broken_adapter_folders(world, tmp_path, broken, message):
    folder = shutil.copytree(world[0] / "adapter1", tmp_path / "adapter")
    broken(folder)
    engine = open_engine("transformers", str(world[0] / "base"), **CPU)
    with pytest.raises(UserError, match=message):
        engine.generate(TEXTS, SAMPLED, adapter=folder)


def test_mistakes_in_opening(world):
    with pytest.raises(UserError, match="engine 'transformer' is unknown.*did you mean 'transformers'"):
        open_engine("transformer", str(world[0] / "base"))
    with pytest.raises(UserError, match="no option 'tensor_paralel'.*did you mean 'tensor_parallel'"):
        open_engine("transformers", str(world[0] / "base"), tensor_paralel=2)
    with pytest.raises(UserError, match="does not exist"):
        open_engine("transformers", "/nowhere/at/all")
    with pytest.raises(UserError, match="run testbed/pretrain first"):
        open_engine("transformers", "testbed:gpt2-xs")


# ------------------------------------------------------------------------------------------- kept answers, which engine


class _Dying:
    """An engine that is killed after so many calls."""

    def __init__(self, engine, calls):
        self.name, self.version, self.engine, self.calls, self.asked = engine.name, engine.version, engine, calls, []

    def generate(self, prompts, sampling, **how):
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        self.asked += prompts
        return self.engine.generate(prompts, sampling, **how)

    def close(self):
        self.engine.close()


def test_an_engine_killed_half_way_repeats_nothing(world, tmp_path):
    root, _ = world
    prompts = [f"{text} {i}" for i in range(3) for text in TEXTS]
    engine = open_engine("transformers", str(root / "base"), **CPU)
    expected = engine.generate(prompts, SAMPLED)
    first = _Dying(engine, 2)
    with pytest.raises(KeyboardInterrupt):
        KeepingEngine(first, Kept(tmp_path / "kept"), "base", block=4).generate(prompts, SAMPLED)
    assert len(first.asked) == 8
    second = _Dying(engine, 9)
    again = KeepingEngine(second, Kept(tmp_path / "kept"), "base", block=4)
    assert again.generate(prompts, SAMPLED) == expected
    assert len(second.asked) == 4 and not {*first.asked} & {*second.asked}
    assert again.generate(prompts[::-1], SAMPLED) == expected[::-1] and len(second.asked) == 4
    again.generate(prompts, replace(SAMPLED, seed=9))  # another question
    again.generate(prompts[:1], SAMPLED, adapter=root / "adapter1")
    assert len(second.asked) == 4 + 12 + 1


def test_answers_are_kept_by_open_engine_and_belong_to_a_model(world, tmp_path, monkeypatch):
    root, _ = world
    kept = {"keep": tmp_path / "kept", **CPU}
    found = open_engine("transformers", str(root / "base"), **kept).generate(TEXTS, SAMPLED)
    asked = []
    monkeypatch.setattr(local, "generate", lambda model, tokenizer, prompts, *a, **k: asked.append(prompts) or [])
    assert open_engine("transformers", str(root / "base"), **kept).generate(TEXTS, SAMPLED) == found and not asked
    other = save_model(tmp_path / "other", seed=5)
    with pytest.raises(ValueError):  # it asks: the answers of another model are not its own
        open_engine("transformers", str(other), **kept).generate(TEXTS, SAMPLED)
    assert sorted(asked[0]) == sorted(TEXTS)


def test_auto_takes_vllm_where_it_and_a_gpu_are(monkeypatch):
    assert engines.resolve("openai") == "openai"
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    monkeypatch.setattr(gpus, "_count", lambda: 2)
    assert engines.resolve("auto") == "vllm"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert engines.resolve("auto") == "transformers"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engines.resolve("auto") == "transformers"


def test_visible_gpus(monkeypatch):
    monkeypatch.setattr(gpus, "_count", lambda: 4)
    for chosen, found in {"2,3": ["2", "3"], "0,-1,2": ["0"], "": [], "GPU-1a, GPU-2b": ["GPU-1a", "GPU-2b"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert gpus.visible() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.visible() == ["0", "1", "2", "3"]


def test_an_engine_that_is_not_installed(monkeypatch, world):
    from underseer.engines import on_vllm

    monkeypatch.setattr(on_vllm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed here; install the extra vllm"):
        open_engine("vllm", str(world[0] / "base"), tensor_parallel=1)
    with pytest.raises(UserError, match="must be at least 1"):
        open_engine("vllm", str(world[0] / "base"), data_parallel=0)
    opened = open_engine("transformers", str(world[0] / "base"), tensor_parallel=2, url="http://h", **CPU)
    opened.close()  # what only other engines take is left aside
    with pytest.raises(RuntimeError, match="closed"):
        opened.generate(["a"], Sampling())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=8), SAMPLED, replace(SAMPLED, top_k=3)])
def test_a_model_that_diverged_makes_no_answers_up(value, sampling):
    import torch

    model, tokenizer = language_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(value)
    with pytest.raises(
        StageError, match="the model diverged: its logits are no finite numbers in . of . answers; train"
    ):
        local.generate(model, tokenizer, TEXTS, sampling, **CPU)
