"""Generation: new tokens per second of ours on each engine, the released loop, bare ``generate`` and vLLM's own loop.

    python benchmarks/generation.py --dataset-path real_toxicity_prompts.jsonl
    python benchmarks/generation.py                     # that file in ../shared/data if it is there, else the testbed

All continue the same prompts by 20 tokens with the same randomly initialised models, greedily, and sampled
(temperature 0.7, top-p 0.95, top-k 50, no repeated bigram; vLLM's own loop knows no such ban, and goes without):

- ``released``: the loop released for arXiv 2410.12621 (yeruimeng/WTS, toxicity/generation.py): one prompt at a time
  through Hugging Face ``generate``, fp32. Some of the prompts suffice, since each costs alike.
- ``bare``: Hugging Face ``generate`` on all prompts as one batch, padded on the left; in bf16 the weights are bf16.
- ``ours``: ``engines.local.generate``, the whole call, from strings to answers; in bf16 under autocast.
  bf16 is measured where the machine multiplies it natively: elsewhere it is emulated, many times slower than fp32.
- ``vllm``: ``LLM.generate`` from strings to strings, and ``vllm ours``: our engine around the same ``LLM``. Only where
  vLLM is installed (``make test-vllm`` builds .venv-vllm). It runs after the others have ended: ours is slowed by a
  third or more in a process that holds a vLLM. Starting it is timed apart, with the number of new tokens past which it
  pays.

Greedy tokens of ours in fp32 must be those of the released loop. Runs alternate, so that a busy moment of the machine
hits all; medians, least and most over the repeats are shown. Where a GPU is, ``generation_gpu.py`` follows.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from shared import in_turns, medians, parser, precisions, public, spread, table, write

from underseer import data
from underseer.engines import Inference, Sampling, local, open_engine
from underseer.models import loading

NEW = 20
SHAPES = {
    "gpt2 4x256": {"n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 8192},
    "gpt2 small": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257},
}
GREEDY = Sampling(max_new_tokens=NEW)
SAMPLED = Sampling(max_new_tokens=NEW, temperature=0.7, top_p=0.95, top_k=50, no_repeat_ngram=2)
KINDS = {"greedy": GREEDY, "sampled": SAMPLED}


def prompts_of(path: Path | None, n: int) -> list[str]:
    """Prompts of RealToxicityPrompts, from a JSON Lines file as published; else the testbed's."""
    if path is None:
        return data.load("testbed-safety", None, n=n, seed=0).text.tolist()
    with path.open() as lines:
        return [json.loads(line)["prompt"]["text"] for line, _ in zip(lines, range(n), strict=False)]


def load(shape: dict[str, int], prompts: list[str]):
    """A GPT-2 with random weights, and a tokenizer trained on the prompts."""
    import transformers

    tokenizer = loading.train_tokenizer(prompts, vocab_size=shape["vocab_size"], max_length=1024)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    wide = {
        "initializer_range": 0.1,
        "tie_word_embeddings": False,
    }  # else a random model repeats the prompt's last token
    config = transformers.GPT2Config(**shape, **wide, bos_token_id=end, eos_token_id=end, pad_token_id=pad)
    return transformers.GPT2LMHeadModel(config).eval(), tokenizer


def settings(sampling: Sampling) -> dict:
    if sampling.temperature == 0:
        return {"max_new_tokens": NEW, "do_sample": False}
    names = {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "no_repeat_ngram": "no_repeat_ngram_size",
    }
    chosen = {theirs: getattr(sampling, ours) for ours, theirs in names.items()}
    return {"max_new_tokens": NEW, "do_sample": True, **chosen}


def new_tokens(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


def released(model, tokenizer, prompts: list[str], sampling: Sampling) -> list[list[int]]:
    answers = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**inputs, **settings(sampling))[0]
        tokenizer.decode(out, skip_special_tokens=True)
        answers.append(new_tokens(out[inputs["input_ids"].shape[1] :].tolist(), tokenizer.eos_token_id))
    return answers


def bare(model, tokenizer, prompts: list[str], sampling: Sampling) -> list[list[int]]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    out = model.generate(**inputs, **settings(sampling))
    tokenizer.batch_decode(out, skip_special_tokens=True)
    return [new_tokens(row, tokenizer.eos_token_id) for row in out[:, inputs["input_ids"].shape[1] :].tolist()]


def ours(model, tokenizer, prompts: list[str], sampling: Sampling, precision: str) -> list[list[int]]:
    answers = local.generate(
        model, tokenizer, prompts, sampling, Inference("cpu", precision, len(prompts), None), progress=False
    )
    return [answer.token_ids for (answer,) in answers]


class InVllm:
    """Our vLLM engine on a model, and vLLM's own loop on the same ``LLM``; ``seconds`` is what starting it took."""

    def __init__(self, model, tokenizer, precision: str, n: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            loading.save(model, tokenizer, folder)
            start = time.perf_counter()
            self.engine = open_engine("vllm", folder, Inference("auto", precision, n), progress=False)
            self.engine.generate(["a"], GREEDY)
            self.seconds = time.perf_counter() - start

    def own(self, prompts: list[str], sampling: Sampling) -> list[list[int]]:
        from vllm import SamplingParams

        chosen = SamplingParams(
            max_tokens=NEW, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, seed=0
        )
        outputs = self.engine._llm.generate(prompts, chosen, use_tqdm=False)
        end = self.engine.tokenizer.eos_token_id
        return [new_tokens(list(output.outputs[0].token_ids), end) for output in outputs]

    def ours(self, prompts: list[str], sampling: Sampling) -> list[list[int]]:
        return [answer.token_ids for (answer,) in self.engine.generate(prompts, sampling)]


def ways_of(model, tokenizer, prompts: list[str], sampling: Sampling, slow: int) -> dict[str, Callable]:
    ways = {
        "released fp32": lambda: released(model, tokenizer, prompts[:slow], sampling),
        "bare fp32": lambda: bare(model, tokenizer, prompts, sampling),
        "ours fp32": lambda: ours(model, tokenizer, prompts, sampling, "fp32"),
    }
    if "bf16" in precisions():
        narrow = copy.deepcopy(model).to(torch.bfloat16)
        ways["bare bf16"] = lambda: bare(narrow, tokenizer, prompts, sampling)
        ways["ours bf16"] = lambda: ours(model, tokenizer, prompts, sampling, "bf16")
    return ways


def measure(shape: dict[str, int], prompts: list[str], args: argparse.Namespace) -> dict:
    """New tokens per second of each way over the repeats, greedy and sampled; and what starting vLLM takes."""
    model, tokenizer = load(shape, prompts)
    bare(model, tokenizer, prompts[:4], SAMPLED), ours(model, tokenizer, prompts[:4], SAMPLED, "fp32")  # first calls
    measured = {}
    for kind, sampling in KINDS.items():
        measured[kind] = timed(ways_of(model, tokenizer, prompts, sampling, args.slow_prompts), args.repeats)
    if not args.vllm:
        return measured
    for precision in precisions():
        served = InVllm(model, tokenizer, precision, len(prompts))
        measured.setdefault("vllm_start_seconds", {})[precision] = served.seconds
        for kind, sampling in KINDS.items():
            ways = {
                f"vllm {precision}": partial(served.own, prompts, sampling),
                f"vllm ours {precision}": partial(served.ours, prompts, sampling),
            }
            new = timed(ways, args.repeats)
            measured[kind]["values"].update(new["values"])
            measured[kind]["tokens"].update(new["tokens"])
        served.engine.close()
    return measured


def timed(ways: dict[str, Callable], repeats: int) -> dict:
    """Rates of each way, the ways in turns, and the tokens of the last turn."""
    tokens = {}

    def rate(name: str) -> float:
        torch.manual_seed(0)
        start = time.perf_counter()
        tokens[name] = ways[name]()
        return sum(map(len, tokens[name])) / (time.perf_counter() - start)

    return {"values": in_turns({name: partial(rate, name) for name in ways}, repeats), "tokens": tokens}


def show(name: str, kind: str, measured: dict, starting: dict[str, float]) -> dict:
    """Print one table; the record for the JSON file."""
    middle = medians(measured["values"])
    tokens = measured.pop("tokens")
    reference = tokens["released fp32"]
    same = {way: np.mean([a == b for a, b in zip(reference, rows, strict=False)]) for way, rows in tokens.items()}
    ceilings = {f"ours {p}": f"bare {p}" for p in precisions()}
    ceilings |= {f"vllm ours {p}": f"vllm {p}" for p in starting}
    shares = {way: middle[way] / middle[ceiling] for way, ceiling in ceilings.items()}
    print(f"\n{name}, {kind}, {len({token for row in tokens['ours fp32'] for token in row})} different tokens")
    rows = []
    for way, values in measured["values"].items():
        share = format(shares[way], ".0%") if way in shares else ""
        equal = format(same[way], ".0%") if kind == "greedy" else ""
        rows.append([way, *spread(values, ".0f"), f"{middle[way] / middle['released fp32']:.1f}", share, equal])
    table(["", "tokens/s", "least", "most", "x released", "of ceiling", "same tokens"], rows)
    for precision, seconds in starting.items():
        pays = break_even(seconds, middle[f"ours {precision}"], middle[f"vllm ours {precision}"])
        print(f"vllm {precision} starts in {seconds:.0f} s; against ours it pays past {pays} new tokens")
    return {
        **measured,
        "median": middle,
        "times_released": {way: value / middle["released fp32"] for way, value in middle.items()},
        "share_of_ceiling": shares,
        "same_as_released": {way: float(value) for way, value in same.items()} if kind == "greedy" else None,
        "vllm_start_seconds": starting,
    }


def break_even(seconds: float, here: float, there: float) -> str:
    """New tokens past which an engine that starts in ``seconds`` and writes ``there`` a second beats ``here``."""
    return f"{seconds / (1 / here - 1 / there):,.0f}" if there > here else "no number of"


def main() -> None:
    made = parser(__doc__, "generation")
    made.add_argument("--dataset-path", type=Path, default=public("real_toxicity_prompts.jsonl"))
    made.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    made.add_argument("--prompts", type=int, default=128)
    made.add_argument("--slow-prompts", type=int, default=8, help="prompts of the released loop per repeat")
    made.add_argument("--no-vllm", dest="vllm", action="store_false", default=find_spec("vllm") is not None)
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    prompts = prompts_of(args.dataset_path, args.prompts)
    print(f"{len(prompts)} prompts, {NEW} new tokens, {args.threads} threads, {platform.machine()}")
    results = {}
    for name in args.models:
        measured = measure(SHAPES[name], prompts, args)
        starting = measured.pop("vllm_start_seconds", {})
        results[name] = {kind: show(name, kind, one, starting) for kind, one in measured.items()}
    write(
        args, "generation", unit="new tokens per second", data="file" if args.dataset_path else "testbed",
        prompts=len(prompts), new_tokens=NEW, results=results,
    )  # fmt: skip


if __name__ == "__main__":
    main()
