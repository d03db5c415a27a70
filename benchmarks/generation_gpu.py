"""Generation on a GPU: vLLM against transformers, for GPT-2 medium and a model of 1.5 billion parameters.

    python benchmarks/generation_gpu.py            # says so and ends where no CUDA GPU is

Models are made from their configurations with random weights, bf16. Per way: new tokens per second (median, least and
most over the repeats), the share of the GPU's measured GEMM peak that the forward passes reach (2 FLOPs a parameter and
token; decoding is bound by memory, so this is small), and the peak of GPU memory in use. Starting vLLM is timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from underseer.engines import Engine, Inference, Sampling, open_engine
from underseer.models import loading

SHAPES = {
    "gpt2 medium": ("gpt2", {"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024}),
    "llama 1.5b": ("llama", {"num_hidden_layers": 28, "hidden_size": 2048, "intermediate_size": 5632,
                             "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 2048}),
}  # fmt: skip
PROMPT = "the river runs past the old mill and the children of the village "


def save(shape: tuple[str, dict], folder: str) -> int:
    """Save a random model; its number of parameters."""
    import transformers

    tokenizer = loading.train_tokenizer([PROMPT], vocab_size=50257, max_length=1024)
    tokens = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.AutoConfig.for_model(shape[0], vocab_size=50257, **tokens, **shape[1])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    loading.save(model, tokenizer, folder)
    return loading.n_parameters(model)


def gemm_peak() -> float:
    """FLOP/s of large bf16 products, the best of some."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = max(best, 2 * 8192**3 / (time.perf_counter() - start))
    return best


class MemoryPeak:
    """Most GPU memory in use, over all processes, while the context lasts; in GiB."""

    def __enter__(self) -> MemoryPeak:
        self.gib, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            free, total = torch.cuda.mem_get_info()
            self.gib = max(self.gib, (total - free) / 2**30)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def rates(engine: Engine, args: argparse.Namespace) -> tuple[list[float], float]:
    """New tokens per second over the repeats, and the memory peak."""
    prompts = [PROMPT * 4 + str(i) for i in range(args.prompts)]
    sampling = Sampling(max_new_tokens=args.new, temperature=1.0)
    engine.generate(prompts[:8], sampling)
    per_second = []
    with MemoryPeak() as peak:
        for _ in range(args.repeats):
            start = time.perf_counter()
            n = sum(answer.n_tokens for row in engine.generate(prompts, sampling) for answer in row)
            per_second.append(n / (time.perf_counter() - start))
    return per_second, peak.gib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/generation_gpu.json"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("generation_gpu: no CUDA GPU here; nothing measured")
        return
    names = ["transformers", *(["vllm"] if find_spec("vllm") else [])]
    peak, results = gemm_peak(), {}
    print(
        f"{torch.cuda.get_device_name()}, GEMM peak {peak / 1e12:.0f} TFLOP/s, {args.prompts} x {args.new} new tokens"
    )
    for shape in args.models:
        with tempfile.TemporaryDirectory() as folder:
            size = save(SHAPES[shape], folder)
            for name in names:
                start = time.perf_counter()
                engine = open_engine(name, folder, Inference("auto", "bf16", args.prompts), progress=False)
                starting = time.perf_counter() - start
                values, gib = rates(engine, args)
                engine.close()
                torch.cuda.empty_cache()
                rate = statistics.median(values)
                print(
                    f"{shape:12} {name:13} {rate:9.0f} tokens/s ({min(values):.0f} to {max(values):.0f}), "
                    f"{2 * size * rate / peak:.1%} of peak, {gib:.1f} GiB, starts in {starting:.0f} s"
                )
                results[f"{shape}, {name}"] = {
                    "values": values, "median": rate, "share_of_peak": 2 * size * rate / peak, "peak_gib": gib,
                    "start_seconds": starting,
                }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"benchmark": "generation_gpu", "gemm_peak": peak, "results": results}, indent=1))


if __name__ == "__main__":
    main()
