"""Training on a GPU: GPT-2 medium by ``fit_language_model``, tokens a second and the share of the GPU's peak that they are.

    python benchmarks/training_gpu.py            # says so and ends where no CUDA GPU is

The model is made from its configuration with random weights; blocks of ``--length`` tokens without padding, bf16 autocast.
The share is the model FLOPs (6 a weight and token, 12 a layer, width and pair of tokens in attention) of the whole call,
from texts to the trained model, and of its steps alone, against large bf16 matrix products measured in the same run.
"""

from __future__ import annotations

import statistics
import tempfile

import torch
from classifier_training import step_marks
from generation_gpu import PROMPT, SHAPES, MemoryPeak, gemm_peak, save
from shared import clocked, parser, write

from underseer.models import loading
from underseer.training import finetune
from underseer.training.settings import TrainSettings


def main() -> None:
    made = parser(__doc__, "training_gpu")
    made.add_argument("--blocks", type=int, default=1024, help="rows of --length tokens")
    made.add_argument("--length", type=int, default=512)
    made.add_argument("--batch", type=int, default=32)
    args = made.parse_args()
    if not torch.cuda.is_available():
        print("training_gpu: no CUDA GPU here; nothing measured")
        return
    _, shape = SHAPES["gpt2 medium"]
    peak, fits, calls, steps = gemm_peak(), [], [], []
    settings = TrainSettings(
        epochs=1, batch_size=args.batch, learning_rate=1e-4, max_length=args.length, device="cuda", precision="bf16", progress=False
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, MemoryPeak() as memory:
        save(SHAPES["gpt2 medium"], folder)
        tokens_of = len(loading.load_language_model(folder)[1](PROMPT)["input_ids"])
        texts = [PROMPT * (args.length // tokens_of + 1)] * args.blocks

        def train() -> None:
            fits.append(finetune.fit_language_model(*loaded, texts, None, settings))
            torch.cuda.synchronize()

        for _ in range(args.repeats + 1):  # the first warms up
            fits.clear()
            loaded = loading.load_language_model(folder)
            calls.append(clocked(lambda: steps.append(step_marks(train))))
    fit = fits[0]
    weights = sum(p.numel() for n, p in fit.model.named_parameters() if "wte" not in n and "wpe" not in n)
    weights += shape["n_embd"] * fit.model.config.vocab_size  # the head, tied to the embedding
    per_token = 6 * weights + 12 * shape["n_layer"] * shape["n_embd"] * args.length
    rates = {
        "call": fit.tokens_trained / statistics.median(calls[1:]),
        "steps": args.batch * args.length / statistics.median((ends[-1] - ends[1]) / (len(ends) - 2) for ends in steps[1:]),
    }  # fmt: skip
    shares = {name: rate * per_token / peak for name, rate in rates.items()}
    print(
        f"{torch.cuda.get_device_name()}, GEMM peak {peak / 1e12:.0f} TFLOP/s: GPT-2 medium, {args.batch} x {args.length} tokens a step: "
        f"{rates['call']:.0f} tokens/s, {shares['call']:.1%} of peak ({shares['steps']:.1%} in steps), {memory.gib:.1f} GiB"
    )
    write(args, "training_gpu", gemm_peak=peak, shares=shares, rates=rates, peak_gib=memory.gib)


if __name__ == "__main__":
    main()
