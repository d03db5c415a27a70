"""Aligning by preference pairs: pairs per second and peak memory of ours, of TRL's DPO, and of a bare loop as the ceiling.

    python benchmarks/modpo.py --dataset-path hh_harmless_base.jsonl
    python benchmarks/modpo.py                     # random tokens, lengths like those of HH-RLHF's harmless-base
    python benchmarks/modpo.py --testbed --rows 300 --batch 16 --lora-rank 16 --model "scratch:gpt2?n_layer=4&n_embd=96&n_head=4"  # as the demo aligns

All train the same model from the same weights on the same token ids, AdamW, gradient clipping, 1 epoch:

- ``online``: TRL's DPOTrainer with the reference model beside the policy, as its defaults are but for CPU needs;
- ``precomputed``: TRL's DPOTrainer with ``precompute_ref_log_probs``;
- ``bare``: a hand-written loop over batches of like length, reference log-probabilities given, logits of the answers' tokens only: the ceiling;
- ``ours``: ``training.align.align``, MODPO with one extra objective.

Every run is a process of its own, forked once libraries are imported, so that its peak memory is its own; runs alternate, so
that a busy moment of the machine hits all. ``steps`` is the rate of the training loop after the first steps; ``whole`` counts everything from strings to the
trained model once libraries are imported: tokenising, the reference pass where there is one, set-up. Rates of ``bare`` are of its loop alone.
``cpu`` are steps per second of processor time, all threads together: what a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from shared import in_turns, medians, parser, precisions, public, table, write

LENGTH, RATE, BETA, WARM = 512, 5e-5, 0.1, 1
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VARIANTS = ("online", "precomputed", "bare", "ours")
MEASURED = ("steps", "steps_cpu", "whole", "memory_mb")


def pairs_of(path: str | Path | None, n: int) -> pd.DataFrame:
    """Pairs with scores: HH-RLHF dialogues (the answers are the last turns), or random words of like lengths."""
    rng = np.random.default_rng(0)
    if path:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        split = [[row[side].strip().rpartition("\n\nAssistant:") for side in ("chosen", "rejected")] for row in rows]
        texts = [(c[0].removeprefix("Human:").strip(), c[2].strip(), r[2].strip()) for c, r in split if c[0] == r[0]]
    else:
        words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(4000)]

        def text(median: float) -> str:
            return " ".join(rng.choice(words, max(1, int(median * rng.lognormal(0, 0.8)))))

        texts = [(text(50), text(25), text(25)) for _ in range(4 * n)]
    frame = pd.DataFrame(texts, columns=["prompt", "chosen", "rejected"])
    frame = frame[frame.prompt.str.len().lt(1200) & frame.chosen.ne(frame.rejected)].sample(frac=1, random_state=0)[:n]
    frame.insert(0, "id", [str(i) for i in range(len(frame))])
    return frame.assign(unsafe_chosen=rng.random(len(frame)), unsafe_rejected=rng.random(len(frame)))


def testbed_pairs(n: int) -> pd.DataFrame:
    """Pairs of the testbed's dialogues, in lengths like those that the demo aligns by; scores and preferences are random."""
    from underseer.testbed import chat

    rows = chat.target_dialogues(2 * n, 0)
    first, second = rows[:n].reset_index(drop=True), rows[n:].reset_index(drop=True)
    frame = pd.DataFrame({"prompt": first.prompt, "chosen": first.answer, "rejected": second.answer})
    frame = frame[frame.chosen != frame.rejected].reset_index(drop=True)
    frame.insert(0, "id", [str(i) for i in range(len(frame))])
    rng = np.random.default_rng(0)
    return frame.assign(unsafe_chosen=rng.random(len(frame)), unsafe_rejected=rng.random(len(frame)))


def adapter(args: argparse.Namespace):
    """TRL's ``peft_config``; None where the whole model is trained."""
    from peft import LoraConfig

    if not args.lora_rank:
        return None
    return LoraConfig(
        r=args.lora_rank, lora_alpha=32, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM"
    )


def fresh(spec: str, pairs: pd.DataFrame):
    from underseer.models import loading

    texts = [*pairs.prompt, *pairs.chosen, *pairs.rejected, "<|user|> <|assistant|>"]
    model, tokenizer = loading.load_language_model(spec, texts=texts, max_length=LENGTH)
    tokenizer.chat_template = TURNS
    return model, tokenizer


def clocked(kind):
    """The trainer class with the moment of each step's end in ``marks``."""

    class Clocked(kind):
        marks: list[tuple[float, float]] = []

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.marks.append((time.perf_counter(), time.process_time()))
            return loss

    return Clocked


def rates(marks: list[tuple[float, float]], batch: int) -> dict[str, float]:
    """Pairs per second of the loop, by the wall clock and by the processor's (of all threads)."""
    pairs = batch * (len(marks) - 1 - WARM)
    return {name: pairs / (marks[-1][i] - marks[WARM][i]) for i, name in enumerate(("steps", "steps_cpu"))}


def stock(args, pairs: pd.DataFrame, variant: str, precision: str) -> dict[str, float]:
    import copy

    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    online = variant == "online"
    start = time.perf_counter()
    model, tokenizer = fresh(args.model, pairs)
    columns = {
        name: [[{"role": role, "content": text}] for text in pairs[name]]
        for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
    }
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, beta=BETA, max_length=LENGTH, bf16=precision == "bf16", use_cpu=True,
            gradient_checkpointing=False, precompute_ref_log_probs=not online, per_device_train_batch_size=args.batch,
            num_train_epochs=1, learning_rate=RATE, report_to="none", disable_tqdm=True, save_strategy="no", seed=0,
        )  # fmt: skip
        trainer = clocked(DPOTrainer)(
            model=model, ref_model=copy.deepcopy(model) if online and not args.lora_rank else None, args=config,
            train_dataset=Dataset.from_dict(columns), processing_class=tokenizer, peft_config=adapter(args),
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return {**rates(trainer.marks, args.batch), "whole": len(pairs) / (time.perf_counter() - start)}


def ours(args, pairs: pd.DataFrame, precision: str) -> dict[str, float]:
    from underseer.maths import modpo
    from underseer.models.adapters import LoraSettings
    from underseer.training import pair_trainer
    from underseer.training.align import AlignSettings, align
    from underseer.training.settings import TrainSettings

    pair_trainer.PairTrainer = clocked(pair_trainer.PairTrainer)
    start = time.perf_counter()
    model, tokenizer = fresh(args.model, pairs)
    train = TrainSettings(
        epochs=1, batch_size=args.batch, learning_rate=RATE, max_length=LENGTH, device="cpu", precision=precision,
        progress=False,
    )  # fmt: skip
    margins = modpo.margins(pairs, {"safety": 0.5})
    temperature, shift = modpo.dpo_equivalent(margins, BETA, 0.5)
    lora = LoraSettings(args.lora_rank, 32) if args.lora_rank else None
    settings = AlignSettings(train, temperature=temperature, beta=BETA, lora=lora)
    aligned = align(model, tokenizer, pairs.assign(shift=shift), settings)
    assert aligned.pairs_trained == len(pairs)
    marks = pair_trainer.PairTrainer.marks
    return {**rates(marks, args.batch), "whole": len(pairs) / (time.perf_counter() - start)}


def bare(args, pairs: pd.DataFrame, precision: str) -> dict[str, float]:
    import torch

    from underseer.models.batches import LengthGroupedBatches, pad
    from underseer.training.pair_rows import pair_rows

    model, tokenizer = fresh(args.model, pairs)
    rows = pair_rows(tokenizer, pairs, "benchmark", length=LENGTH)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as TRL does
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    reference = torch.zeros(len(rows))
    marks = []
    for batch in LengthGroupedBatches(rows.longest, args.batch, seed=0):
        sequences = [np.concatenate([rows.prompts[i], side[i]]) for side in (rows.chosen, rows.rejected) for i in batch]
        begins = np.asarray([len(rows.prompts[i]) for i in batch] * 2)
        ids, mask = pad(sequences, tokenizer.pad_token_id)
        learnt = torch.from_numpy(mask * (np.arange(ids.shape[1]) >= begins[:, None]))[:, 1:].bool()
        ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[learnt])
        each = -torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][learnt], reduction="none")
        sums = torch.zeros(learnt.shape).masked_scatter(learnt, each).sum(1)
        delta = sums[: len(batch)] - sums[len(batch) :] - reference[batch]
        (-torch.nn.functional.logsigmoid(BETA * delta)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        marks.append((time.perf_counter(), time.process_time()))
    return {**rates(marks, args.batch), "whole": float("nan")}


def one(args: argparse.Namespace, pairs: pd.DataFrame, variant: str, precision: str) -> dict[str, float]:
    """One run, in this process."""
    import torch

    torch.set_num_threads(args.threads)
    run = {"bare": bare, "ours": ours}.get(variant) or partial(stock, variant=variant)
    measured = run(args, pairs, precision=precision)
    return {**measured, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def forked(*args) -> dict[str, float]:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(one, args)


def main() -> None:
    made = parser(__doc__, "modpo")
    made.add_argument(
        "--dataset-path",
        type=Path,
        default=public("hh_harmless_base.jsonl"),
        help="HH-RLHF dialogues (chosen, rejected)",
    )
    made.add_argument("--model", default="scratch:gpt2?n_layer=4&n_embd=256", help="any causal model specification")
    made.add_argument("--testbed", action="store_true", help="pairs of the testbed's dialogues")
    made.add_argument("--lora-rank", type=int, default=0, help="0: the whole model, and the bare loop beside it")
    made.add_argument("--rows", type=int, default=64, help="pairs")
    made.add_argument("--batch", type=int, default=8, help="pairs per step")
    made.add_argument(
        "--precisions", nargs="+", help="default: fp32, and bf16 where the machine multiplies it natively"
    )
    args = made.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import underseer.training.pair_trainer  # noqa: F401  (before the clocks start, as everything else)

    pairs = testbed_pairs(args.rows) if args.testbed else pairs_of(args.dataset_path, args.rows)
    variants = [variant for variant in VARIANTS if variant != "bare" or not args.lora_rank]
    runs = [(precision, variant) for precision in args.precisions or precisions() for variant in variants]
    trials = in_turns({(p, v): partial(forked, args, pairs, v, p) for p, v in runs}, args.repeats)
    measured = {run: {name: [one[name] for one in many] for name in MEASURED} for run, many in trials.items()}
    show(args, measured)


def show(args: argparse.Namespace, measured: dict[tuple[str, str], dict[str, list[float]]]) -> None:
    middle = {run: medians(values) for run, values in measured.items()}
    base = middle[next(iter(measured))]  # TRL's online reference, in fp32 where that is measured
    print(f"\n{args.model}, {args.rows} pairs, {args.batch} a step, {args.threads} threads")
    print("pairs per second; x: times TRL's online reference in fp32")
    rows = []
    for (precision, variant), values in measured.items():
        m = middle[precision, variant]
        times = {name: format(m[name] / base[name], ".2f") for name in MEASURED}
        rows.append(
            [f"{precision} {variant}", f"{m['steps']:.2f}", f"{min(values['steps']):.2f}", f"{max(values['steps']):.2f}",
             times["steps"], f"{m['steps_cpu']:.2f}", times["steps_cpu"], f"{m['whole']:.2f}", times["whole"], f"{m['memory_mb']:.0f}"]
        )  # fmt: skip
    table(["", "steps", "least", "most", "x", "cpu", "x", "whole", "x", "peak MB"], rows)
    ours = {p: m["steps"] for (p, variant), m in middle.items() if variant == "ours"}
    write(
        args, "modpo", unit="pairs per second", model=args.model, data="file" if args.dataset_path else "random words",
        rows=args.rows, batch=args.batch, values={" ".join(run): values for run, values in measured.items()},
        median={" ".join(run): m for run, m in middle.items()},
        times_online={p: rate / base["steps"] for p, rate in ours.items()},
        share_of_bare={p: rate / middle[p, "bare"]["steps"] for p, rate in ours.items() if (p, "bare") in middle},
    )  # fmt: skip


if __name__ == "__main__":
    main()
