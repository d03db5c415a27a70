"""What ends an engine half-way, for real: SIGKILL to the process of a stage, to its kernel, and memory that runs out."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import nbformat
import psutil
import pytest

from tiny import cpu, save_model
from underseer import paths, store
from underseer.engines import Sampling, open_engine
from underseer.runs import execute, keys, plan, workflow

STAGE, KEY = "selfmoa/3_preferences", "0123456789abcdef"
PROMPTS = 24
BLOCK = 4  # prompts that are kept together where a batch holds one

STAGE_AT_WORK = f"""
import json, sys, time
from types import SimpleNamespace
from underseer import paths, store
from underseer.cost import Ledger
from underseer.engines import Sampling, local
from underseer.engines.base import Inference
from underseer.selfmoa import targets

model, log, pause = sys.argv[1], open(sys.argv[2], "a", buffering=1), float(sys.argv[3])
generate = local.generate

def logged(model, tokenizer, prompts, *args, **named):
    answers = generate(model, tokenizer, prompts, *args, **named)
    log.write("".join(prompt + "\\n" for prompt in prompts))
    time.sleep(pause)
    return answers

local.generate = logged
instance = SimpleNamespace(parameters={{"engine": "transformers"}}, runtime={{}})
with store.working("{STAGE}", "{KEY}") as work:
    run = SimpleNamespace(instance=instance, cost=Ledger(), checkpoints=work / store.CHECKPOINTS, used=lambda engine: None)
    inference = Inference(device="cpu", precision="fp32", batch_size=1, max_length=64)
    engine = targets.engine(run, "auto", targets.Target(model), inference)
    sampling = Sampling(max_new_tokens=6, temperature=0.9, n=2, seed=3)
    answers = engine.generate([f"a lamp {{i}}" for i in range({PROMPTS})], sampling)
    engine.close()
    (work / "answers.json").write_text(json.dumps([[a.token_ids for a in row] for row in answers]))
    store.seal(work, paths.place("{STAGE}", "{KEY}"), {{"schema": 1}})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "llama")


def at_work(home: Path, model: Path, log: Path, pause: float) -> subprocess.Popen:
    env = {**os.environ, "UNDERSEER_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", STAGE_AT_WORK, str(model), str(log), str(pause)], env=env)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.is_file() else []


def test_a_stage_killed_while_it_generates_asks_for_the_rest_only(home: Path, model: Path, tmp_path: Path) -> None:
    killed = at_work(home, model, first := tmp_path / "first.log", 0.15)
    end = time.monotonic() + 120
    while len(lines(first)) < 3 * BLOCK:
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 3 * BLOCK <= len(lines(first)) < PROMPTS and not paths.place(STAGE, KEY).exists()
    with closing(sqlite3.connect(paths.work(STAGE, KEY) / store.CHECKPOINTS / "answers.sqlite")) as kept:
        (n_kept,) = kept.execute("SELECT count(*) FROM kept").fetchone()
    assert n_kept >= len(lines(first)) - BLOCK  # what was answered in the very last moment may be asked anew

    assert at_work(home, model, again := tmp_path / "again.log", 0).wait() == 0
    assert len(lines(again)) == PROMPTS - n_kept and not set(lines(first)[:n_kept]) & set(lines(again))
    answers = json.loads((paths.place(STAGE, KEY) / "answers.json").read_text())
    with closing(open_engine("transformers", str(model), **cpu(max_length=64))) as engine:
        sampling = Sampling(max_new_tokens=6, temperature=0.9, n=2, seed=3)
        whole = engine.generate([f"a lamp {i}" for i in range(PROMPTS)], sampling)
    assert answers == [[answer.token_ids for answer in row] for row in whole]
    assert {p.name for p in paths.place(STAGE, KEY).iterdir()} == {"answers.json", "manifest.json"}


def test_a_kernel_that_is_killed_fails_its_stage_in_one_line(home: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    cells = [nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    path = tmp_path / "dies.ipynb"
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    nbformat.write(notebook, path)
    read = keys.Notebook(STAGE, path, {"seed": 0}, "", ())
    monkeypatch.setattr(execute, "read_notebook", lambda stage: read)
    hashes = {"notebook": read.code, "modules": read.modules({})}
    instance = plan.Instance(STAGE, KEY, {"seed": 0}, {"threads": 1}, {}, hashes)
    made = plan.Plan("x", "x", "selfmoa", "", {KEY: instance}, [])
    assert execute.run(made, instance) == 1
    (failed,) = workflow.failures()
    assert failed["problem"] == "the notebook's kernel died: out of memory, or killed"
    assert failed["problem"] in capsys.readouterr().err and not paths.place(STAGE, KEY).exists()


SHORT_OF_MEMORY = """
import json, resource, sys
from underseer.engines import Inference, Sampling, decoding, open_engine

sizes, run = [], decoding.Decoder.run
decoding.Decoder.run = lambda self, prompts, which, keys: sizes.append(len(which)) or run(self, prompts, which, keys)
engine = open_engine("transformers", sys.argv[1], Inference("cpu", "fp32", 128, 256), progress=False)
prompts = [f"{i} " + "a lamp and a river " * 40 for i in range(128)]
sampling = Sampling(max_new_tokens=2, temperature=1.0)
before = engine.generate(prompts, sampling)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * 2**20,) * 2)
print(json.dumps([sizes, before == engine.generate(prompts, sampling)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")
def test_memory_that_runs_out_costs_a_smaller_batch_and_no_answer(tmp_path: Path) -> None:
    large = save_model(tmp_path / "large", "scratch:llama?n_layer=2&n_embd=64&n_head=2&n_positions=256&vocab_size=280")

    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(large)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (whole, *tries), same = json.loads(done.stdout)
    assert same and whole == tries[0] == 128 and tries[-1] < 128 < sum(tries)


@pytest.mark.parametrize("cut", [False, True])
def test_what_an_engine_started_ends_with_the_process_that_started_it(cut: bool) -> None:
    """And not where the engine was closed in order: by then its number may be another process's."""
    script = (
        "import subprocess, sys, time; from underseer.engines.lifelines import Lifeline;"
        "worker = subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL);"
        f"line = Lifeline([worker.pid]); {'line.cut();' if cut else ''}"
        "print(worker.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs([worker], timeout=2 if cut else 30)
    assert bool(alive) == cut
    for one in alive:
        one.kill()
