"""Training one classifier: examples per second of ours, of what others run, and of a bare loop as the ceiling.

    python benchmarks/classifier_training.py --dataset-path safety.csv
    python benchmarks/classifier_training.py            # the testbed's prompts

All four train the same model from the same weights on the same rows with AdamW and gradient clipping:

- ``released``: the recipe released for arXiv 2410.12621 (yeruimeng/WTS, safety/train.py): fp32, batch 16, every row
  padded to 512 tokens. A few steps suffice, since every step costs the same.
- ``minibatch``: the style of openai/weak-to-strong: fp32, minibatches of 8 accumulated to 16 rows, padded to their own
  longest row, rows in random order.
- ``bare``: a hand-written loop over batches of 16 of like length, bf16 autocast, fused AdamW: the ceiling.
- ``ours``: ``train.fit_classifier``, the whole call, from strings to the trained model; ``ours, steps``: its loop.

Runs alternate, so that a busy moment of the machine hits all; medians, least and most over the repeats are shown.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from underseer import batches, data, models, train, trainer

BATCH, LENGTH, RATE = 16, 512, 5e-5


def rows_of(path: str | None, n: int):
    """Safety prompts: a CSV in the released format (prompt, is_safe), cleaned; else the testbed's."""
    df = data.load("wts-safety" if path else "testbed-safety", path, n=None if path else n, seed=0)
    df, _ = data.clean_rows(df)
    return df.sample(min(n, len(df)), random_state=0).reset_index(drop=True)


def loop(model, batch_stream, *, bf16: bool, fused: bool, accumulate: int = 1) -> list[float]:
    """Train on a stream of padded batches; gives the seconds of each optimiser step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=fused)
    model.train()
    seconds, start = [], time.perf_counter()
    for i, batch in enumerate(batch_stream, 1):
        labels = batch.pop("labels").long()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(**batch).logits
        (torch.nn.functional.cross_entropy(logits.float(), labels) / accumulate).backward()
        if i % accumulate == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
    return seconds


def token_rows(tokenizer, df) -> batches.TokenRows:
    ids, _ = batches.tokenise(tokenizer, df.text, max_length=LENGTH)
    return batches.TokenRows(ids, tokenizer.pad_token_id, targets=df.label.to_numpy(dtype=np.float32))


def released(model, tokenizer, df, steps: int) -> float:
    rows = token_rows(tokenizer, df[: BATCH * steps])
    rows.multiple = LENGTH
    stream = (rows.__getitems__(range(i, i + BATCH)) for i in range(0, len(rows), BATCH))
    return BATCH / statistics.median(loop(model, stream, bf16=False, fused=False))


def minibatch(model, tokenizer, df, steps: int) -> float:
    rows = token_rows(tokenizer, df)
    order = np.random.default_rng(0).permutation(len(rows))[: BATCH * steps]
    stream = (rows.__getitems__(order[i : i + BATCH // 2]) for i in range(0, len(order), BATCH // 2))
    seconds = loop(model, stream, bf16=False, fused=False, accumulate=2)
    return BATCH * len(seconds) / sum(seconds)


def bare(model, tokenizer, df, epochs: int) -> float:
    rows = token_rows(tokenizer, df)
    sampler = batches.LengthGroupedBatches(rows.lengths, BATCH, seed=0)
    stream = (rows.__getitems__(batch) for epoch in range(epochs) for batch in sampler.batches(epoch))
    seconds = loop(model, stream, bf16=train.native_bf16(torch.device("cpu")), fused=True)
    return epochs * len(rows) / sum(seconds)


def ours(model, tokenizer, df, epochs: int) -> tuple[float, float]:
    """Examples per second of the whole call, and of its steps alone."""
    settings = train.TrainSettings(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, max_length=LENGTH, device="cpu", progress=False
    )
    marks: list[float] = []

    class Timed(trainer.Steering):
        def on_step_end(self, *args, **kwargs):
            marks.append(time.perf_counter())
            super().on_step_end(*args, **kwargs)

    original, trainer.Steering = trainer.Steering, Timed
    try:
        start = time.perf_counter()
        train.fit_classifier(model, tokenizer, df, None, replace(settings))
        whole = time.perf_counter() - start
    finally:
        trainer.Steering = original
    return epochs * len(df) / whole, BATCH * (len(marks) - 1) / (marks[-1] - marks[0])


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    df = rows_of(args.dataset_path, args.rows)

    def fresh():
        return models.load_classifier(args.model, labels=["safe", "unsafe"], texts=df.text, max_length=LENGTH)

    rates: dict[str, list[float]] = {name: [] for name in ("released", "minibatch", "bare", "ours", "ours, steps")}
    ours(*fresh(), df[:64], 1)  # imports and first-call costs, once, for all
    for _ in range(args.repeats):
        rates["released"].append(released(*fresh(), df, args.slow_steps))
        rates["minibatch"].append(minibatch(*fresh(), df, args.slow_steps * 10))
        rates["bare"].append(bare(*fresh(), df, args.epochs))
        whole, steps = ours(*fresh(), df, args.epochs)
        rates["ours"].append(whole)
        rates["ours, steps"].append(steps)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset-path", help="CSV with prompt and is_safe; default: the testbed's prompts")
    parser.add_argument("--model", default="scratch:gpt2?n_layer=4&n_embd=256", help="any model specification")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slow-steps", type=int, default=3, help="steps of the released recipe per repeat")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/classifier_training.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rates = measure(args)
    medians = {name: statistics.median(values) for name, values in rates.items()}

    print(f"\n{args.model}, {args.threads} threads, {platform.processor() or platform.machine()}")
    print(f"{'':12} {'examples/s':>10} {'least':>8} {'most':>8} {'x released':>11} {'x minibatch':>12} {'of bare':>8}")
    for name, values in rates.items():
        m = medians[name]
        print(
            f"{name:12} {m:10.1f} {min(values):8.1f} {max(values):8.1f} {m / medians['released']:11.1f} "
            f"{m / medians['minibatch']:12.2f} {m / medians['bare']:8.0%}"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "classifier_training",
        "model": args.model,
        "data": "file" if args.dataset_path else "testbed",
        "rows": args.rows,
        "epochs": args.epochs,
        "threads": args.threads,
        "torch": torch.__version__,
        "unit": "examples per second",
        "values": rates,
        "median": medians,
        "times_released": medians["ours"] / medians["released"],
        "times_minibatch": medians["ours"] / medians["minibatch"],
        "share_of_bare": medians["ours"] / medians["bare"],
    }
    args.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
