"""Training one classifier: examples per second of ours, of what others run, and of a bare loop as the ceiling.

    python benchmarks/classifier_training.py --dataset-path safety.csv
    python benchmarks/classifier_training.py            # that file in ../shared/data if it is there, else the testbed

All four train the same model, a GPT-2 of 4 layers of width 256 and GPT-2 small, from the same weights on the same rows
with AdamW and gradient clipping:

- ``released``: the recipe released for arXiv 2410.12621 (yeruimeng/WTS, safety/train.py): fp32, batch 16, every row
  padded to 512 tokens. A few steps suffice, since every step costs the same.
- ``minibatch``: the style of openai/weak-to-strong: fp32, minibatches of 8 accumulated to 16 rows, padded to their own
  longest row, rows in random order.
- ``bare``: a hand-written loop over batches of 16 of like length, fused AdamW, bf16 autocast where the machine multiplies
  bf16 natively: the ceiling.
- ``ours``: ``finetune.fit_classifier``, the whole call, from strings to the trained model; ``ours, steps``: its loop.

Beside them, why our loop is not the Trainer alone: CPU seconds of a training of the demo's student with looks at validation
rows, ``ours`` and ``stock``, transformers' Trainer with its compute_loss_func, grouping by length, early stopping and best state.

Runs alternate, so that a busy moment of the machine hits all; medians, least and most over the repeats are shown.
``of peak`` is the model FLOPs of the rate (6 a weight of the layers and real token, 12 a layer, width and pair of tokens in
attention) against large matrix products, measured in the same run in fp32, and in bf16 where that is what trains.
``--profile`` also shows where the time of the bare loop and of the released recipe goes, by operation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from shared import clocked, in_turns, medians, parser, public, spread, table, write
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from underseer import data
from underseer.maths.losses import hard_ce
from underseer.models import batches, loading
from underseer.training import finetune, precision
from underseer.training import loop as training_loop

BATCH, LENGTH, RATE = 16, 512, 5e-5
SIZES = {
    "gpt2 4x256": {"model": "scratch:gpt2?n_layer=4&n_embd=256", "rows": 1024, "epochs": 1, "slow_steps": 2},
    "gpt2 small": {"model": "scratch:gpt2?n_layer=12&n_embd=768&n_head=12", "rows": 512, "epochs": 1, "slow_steps": 1},
}
WAYS = ("released", "minibatch", "bare", "ours", "ours, steps")


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


def bare(model, tokenizer, df, epochs: int, bf16: bool) -> float:
    rows = token_rows(tokenizer, df)
    sampler = batches.LengthGroupedBatches(rows.lengths, BATCH, seed=0)
    stream = (rows.__getitems__(batch) for epoch in range(epochs) for batch in sampler.batches(epoch))
    seconds = loop(model, stream, bf16=bf16, fused=True)
    return epochs * len(rows) / sum(seconds)


def step_marks(call: Callable[[], object]) -> list[float]:
    """The moments at which the first step of a training of ours began and at which each step ended."""
    marks: list[float] = []

    class Timed(training_loop.Steering):
        def on_step_begin(self, *args, **kwargs):
            if not marks:
                marks.append(time.perf_counter())

        def on_step_end(self, *args, **kwargs):
            marks.append(time.perf_counter())
            super().on_step_end(*args, **kwargs)

    original, training_loop.Steering = training_loop.Steering, Timed
    try:
        call()
    finally:
        training_loop.Steering = original
    return marks


def ours(model, tokenizer, df, epochs: int) -> tuple[float, float]:
    """Examples per second of the whole call, and of its steps alone."""
    settings = finetune.TrainSettings(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, max_length=LENGTH, device="cpu", progress=False
    )
    start = time.perf_counter()
    _, *ends = step_marks(lambda: finetune.fit_classifier(model, tokenizer, df, None, settings))
    whole = time.perf_counter() - start
    return epochs * len(df) / whole, BATCH * (len(ends) - 1) / (ends[-1] - ends[0])


DEMO = finetune.TrainSettings(
    epochs=2, batch_size=16, learning_rate=1e-3, eval_steps=25, patience=10, max_length=64, device="cpu", progress=False
)


def stock(model, tokenizer, df, held_out) -> None:
    """The Trainer as it comes, on the same token rows; it pads each batch to its longest row."""

    def rows(part) -> list[dict]:
        ids, _ = batches.tokenise(tokenizer, part.text, max_length=DEMO.max_length)
        return [{"input_ids": i, "labels": float(label)} for i, label in zip(ids, part.label, strict=True)]

    def collate(examples: list[dict]) -> dict:
        ids, mask = batches.pad([e["input_ids"] for e in examples], tokenizer.pad_token_id)
        labels = torch.tensor([e["labels"] for e in examples])
        return {"input_ids": torch.as_tensor(ids), "attention_mask": torch.as_tensor(mask), "labels": labels}

    def loss(outputs, labels, num_items_in_batch=None):
        return hard_ce(outputs.logits.float(), labels) * len(labels) / (num_items_in_batch or len(labels))

    with tempfile.TemporaryDirectory() as folder, loading.quiet():
        looks = {
            "eval_strategy": "steps",
            "eval_steps": DEMO.eval_steps,
            "save_strategy": "steps",
            "save_steps": DEMO.eval_steps,
        }
        arguments = TrainingArguments(
            folder, num_train_epochs=DEMO.epochs, per_device_train_batch_size=DEMO.batch_size, per_device_eval_batch_size=32,
            learning_rate=DEMO.learning_rate, weight_decay=0.01, optim="adamw_torch_fused", use_cpu=True, logging_steps=10,
            train_sampling_strategy="group_by_length", load_best_model_at_end=True, metric_for_best_model="loss",
            save_total_limit=1, report_to="none", disable_tqdm=True, remove_unused_columns=False, **looks,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, data_collator=collate, train_dataset=rows(df), eval_dataset=rows(held_out),
            compute_loss_func=loss, callbacks=[EarlyStoppingCallback(DEMO.patience)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def against_stock(repeats: int) -> dict[str, list[float]]:
    """CPU seconds of both ways on the demo's rows, in turns."""
    df = data.load("testbed-safety", seed=0, n=1800)
    train, held_out = df[:1500].reset_index(drop=True), df[1500:].reset_index(drop=True)

    def fresh():
        small = "scratch:gpt2?n_layer=3&n_embd=80&n_head=2&vocab_size=2500"
        return loading.load_classifier(small, labels=["safe", "unsafe"], texts=df.text, max_length=DEMO.max_length)

    def spent(call: Callable[..., object]) -> float:
        model, tokenizer = fresh()
        start = time.process_time()
        call(model, tokenizer, train, held_out)
        return time.process_time() - start

    ways = {"ours": partial(finetune.fit_classifier, settings=DEMO), "stock": stock}
    return in_turns({name: partial(spent, call) for name, call in ways.items()}, repeats + 1)


def gemm_peak(bf16: bool) -> float:
    """FLOP/s of large matrix products, the best of some."""
    n, kind = 2048, torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(n, n, dtype=kind) for _ in range(2))
    return 2 * n**3 / min(clocked(lambda: a @ b) for _ in range(5))


def flops(model, tokenizer, df) -> float:
    """Floating-point operations of training on an example, in the mean, without padding and embeddings."""
    lengths = token_rows(tokenizer, df).lengths.astype(float)
    weights = loading.n_parameters(model) - sum(
        p.numel() for p in (model.transformer.wte.weight, model.transformer.wpe.weight)
    )
    attention = 12 * model.config.n_layer * model.config.n_embd * np.square(lengths)
    return float(np.mean(6 * weights * lengths + attention))


def profile(call: Callable[[], object]) -> dict[str, float]:
    """Share of a call's time by torch's operation, those of 2 % or more, without what they call."""
    with torch.profiler.profile() as profile:
        call()
    own = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    whole = sum(own.values())
    return {key: one / whole for key, one in sorted(own.items(), key=lambda kv: -kv[1]) if one >= 0.02 * whole}


def measure(args: argparse.Namespace, size: dict) -> dict:
    df = rows_of(args.dataset_path, args.rows or size["rows"])
    slow, epochs = size["slow_steps"], size["epochs"]

    def fresh():
        return loading.load_classifier(size["model"], labels=["safe", "unsafe"], texts=df.text, max_length=LENGTH)

    bf16 = precision.use_bf16(fresh()[0], torch.device("cpu"))
    ways = {
        "released": lambda: released(*fresh(), df, slow),
        "minibatch": lambda: minibatch(*fresh(), df, min(slow * 10, len(df) // BATCH)),
        "bare": lambda: bare(*fresh(), df, epochs, bf16),
        "ours": lambda: ours(*fresh(), df, epochs),
        "peak": partial(gemm_peak, bf16),
    }
    ours(*fresh(), df[:64], 1)  # imports and first-call costs, once, for all
    measured = in_turns(ways, args.repeats)
    peak, each = statistics.median(measured.pop("peak")), flops(*fresh(), df)
    both = measured.pop("ours")
    rates = {**measured, "ours": [whole for whole, _ in both], "ours, steps": [steps for _, steps in both]}
    middle = medians(rates)
    profiles = {way: profile(ways[way]) for way in ("bare", "released")} if args.profile else {}
    return {
        "profiles": profiles,
        "model": size["model"],
        "rows": len(df),
        "epochs": epochs,
        "precision": "bf16" if bf16 else "fp32",
        "values": rates,
        "median": middle,
        "times_released": middle["ours"] / middle["released"],
        "times_minibatch": middle["ours"] / middle["minibatch"],
        "share_of_bare": middle["ours"] / middle["bare"],
        "gemm_peak": peak,
        "share_of_peak": {way: rate * each / peak for way, rate in middle.items()},
    }


def show(name: str, measured: dict) -> None:
    print(
        f"\n{name}, {measured['rows']} rows, {measured['precision']}, GEMM peak {measured['gemm_peak'] / 1e9:.0f} GFLOP/s"
    )
    middle = measured["median"]
    rows = [
        [way, *spread(measured["values"][way], ".1f"), f"{middle[way] / middle['released']:.1f}",
         f"{middle[way] / middle['minibatch']:.2f}", f"{middle[way] / middle['bare']:.0%}", f"{measured['share_of_peak'][way]:.0%}"]
        for way in WAYS
    ]  # fmt: skip
    table(["", "examples/s", "least", "most", "x released", "x minibatch", "of bare", "of peak"], rows)
    for way, shares in measured["profiles"].items():
        print(f"{way}, by operation: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))


def main() -> None:
    made = parser(__doc__, "classifier_training")
    made.add_argument("--dataset-path", default=public("wts_safety.csv"), help="CSV with prompt and is_safe")
    made.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    made.add_argument("--rows", type=int, help="default: 1024, of GPT-2 small 512")
    made.add_argument("--profile", action="store_true", help="show where the time goes, by operation")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    results = {}
    for name in args.models:
        results[name] = measure(args, SIZES[name])
        show(name, results[name])
    demo = {way: seconds[1:] for way, seconds in against_stock(args.repeats).items()}  # the first of each is a warm-up
    ratio = medians(demo)["stock"] / medians(demo)["ours"]
    print(
        "\nthe demo's student, CPU seconds: "
        + ", ".join(f"{w} {s:.2f}" for w, s in medians(demo).items())
        + f"; stock {ratio:.2f} times"
    )
    results["demo's student"] = {"cpu_seconds": demo, "stock_to_ours": ratio}
    source = "file" if args.dataset_path else "testbed"
    write(args, "classifier_training", unit="examples per second", data=source, results=results)


if __name__ == "__main__":
    main()
