"""Training on a GPU: GPT-2 medium by ``fit_language_model``, tokens a second and the share of the GPU's peak that they are.

    python benchmarks/training_gpu.py            # says so and ends where no CUDA GPU is

The model is made from its configuration with random weights; blocks of ``--length`` tokens without padding, bf16 autocast.
The share is the model FLOPs (6 a weight and token, 12 a layer, width and pair of tokens in attention) of the whole call,
from texts to the trained model, and of its steps alone, against large bf16 matrix products measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from generation_gpu import PROMPT, SHAPES, MemoryPeak, gemm_peak, save

from underseer.models import loading
from underseer.training import finetune, loop
from underseer.training.settings import TrainSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=1024, help="rows of --length tokens")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training_gpu.json"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("training_gpu: no CUDA GPU here; nothing measured")
        return
    _, shape = SHAPES["gpt2 medium"]
    peak, steps, calls = gemm_peak(), [], []
    settings = TrainSettings(
        epochs=1, batch_size=args.batch, learning_rate=1e-4, max_length=args.length, device="cuda", precision="bf16", progress=False
    )  # fmt: skip
    train = loop.fit

    def timed(*given, **options):  # the training itself, apart from reading the texts
        start = time.perf_counter()
        result = train(*given, **options)
        torch.cuda.synchronize()
        steps.append(time.perf_counter() - start)
        return result

    with tempfile.TemporaryDirectory() as folder:
        save(SHAPES["gpt2 medium"], folder)
        tokens_of = len(loading.load_language_model(folder)[1](PROMPT)["input_ids"])
        texts = [PROMPT * (args.length // tokens_of + 1)] * args.blocks
        loop.fit = timed
        with MemoryPeak() as memory:
            for _ in range(args.repeats + 1):  # the first warms up
                model, tokenizer = loading.load_language_model(folder)
                start = time.perf_counter()
                fit = finetune.fit_language_model(model, tokenizer, texts, None, settings)
                torch.cuda.synchronize()
                calls.append(time.perf_counter() - start)
        loop.fit = train
    weights = sum(p.numel() for n, p in fit.model.named_parameters() if "wte" not in n and "wpe" not in n)
    weights += shape["n_embd"] * fit.model.config.vocab_size  # the head, tied to the embedding
    flops = fit.tokens_trained * (6 * weights + 12 * shape["n_layer"] * shape["n_embd"] * args.length)
    shares = {
        name: flops / statistics.median(seconds[1:]) / peak for name, seconds in (("call", calls), ("steps", steps))
    }
    rate = fit.tokens_trained / statistics.median(calls[1:])
    print(
        f"{torch.cuda.get_device_name()}, GEMM peak {peak / 1e12:.0f} TFLOP/s: GPT-2 medium, {args.batch} x {args.length} tokens a step: "
        f"{rate:.0f} tokens/s, {shares['call']:.1%} of peak ({shares['steps']:.1%} in steps), {memory.gib:.1f} GiB"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"benchmark": "training_gpu", "gemm_peak": peak, "shares": shares, "rate": rate}, indent=1)
    )


if __name__ == "__main__":
    main()
