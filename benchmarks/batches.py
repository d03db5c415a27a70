"""Batches of like length: what they cost in accuracy where length tells the class, and what their mend costs in time.

    python benchmarks/batches.py                                    # ../shared/data/wts_safety.csv
    python benchmarks/batches.py --dataset-path safety.csv --seeds 8

On the W2S paper's safety prompts the class correlates with the length, so batches that are sorted by length alone hold mostly
one class. One GPT-2 from scratch learns the same rows from the same weights in three ways:

- ``shuffled``: batches of any rows; each is padded to its longest;
- ``length``: rows of like length together;
- ``class``: rows of like length together within each class, so that a batch has the class shares of its pool. This is what the
  library does.

``sd`` is the standard deviation of a batch's class share, ``padded`` the padded tokens over the real ones. Accuracy is on rows that
no training and no stopping saw. Differences are paired by seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from shared import parser, public, table, write

WAYS = ("shuffled", "length", "class")
MODEL = "scratch:gpt2?n_layer=2&n_embd=64&n_head=2"


def sampler(way: str):
    """The batch sampler of a way, with the signature that the training loop calls."""
    from underseer.models.batches import LengthGroupedBatches

    def made(lengths, size, seed, classes=None):
        pool = 1 if way == "shuffled" else 64
        return LengthGroupedBatches(lengths, size, seed, pool=pool, classes=classes if way == "class" else None)

    return made


def trained(way: str, loss_name: str, seed: int, rows) -> dict[str, float]:
    """Train once; accuracy on the held-out rows, the batches' statistics and the seconds of training."""
    from underseer.maths import losses
    from underseer.models import loading
    from underseer.training import finetune, loop
    from underseer.training.settings import TrainSettings

    original = loop.LengthGroupedBatches
    loop.LengthGroupedBatches = sampler(way)
    try:
        parts = {name: part for name, part in rows.groupby("split")}
        model, tokenizer = loading.load_classifier(
            MODEL,
            labels=("safe", "unsafe"),
            texts=parts["transfer"].text.tolist(),
            base=None,
            seed=seed,
            max_length=128,
        )
        settings = TrainSettings(
            epochs=3,
            batch_size=16,
            learning_rate=5e-4,
            max_length=128,
            eval_steps=40,
            patience=5,
            seed=seed,
            progress=False,
        )
        target = "p" if loss_name == "aux_conf" else "label"
        start = time.process_time()
        fit = finetune.fit_classifier(
            model, tokenizer, parts["transfer"], parts["validation"], settings,
            loss=getattr(losses, loss_name), target=target,
        )  # fmt: skip
        seconds = time.process_time() - start
        test = parts["test"]
        p = finetune.predict_proba(fit.model, tokenizer, test, max_length=128)[:, 1]
    finally:
        loop.LengthGroupedBatches = original
    return {"accuracy": float(((p >= 0.5) == test.label.astype(bool)).mean()), "seconds": seconds}


def shape(way: str, lengths: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """How the batches of one epoch look."""
    batches = sampler(way)(lengths, 16, 0, classes=classes).batches(0)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return {"sd": float(np.std([classes[b].mean() for b in batches])), "padded": padded / int(lengths.sum())}


def main() -> None:
    options = parser(__doc__, "batches")
    options.add_argument("--dataset-path", default=public("wts_safety.csv"))
    options.add_argument("--seeds", type=int, default=6)
    args = options.parse_args()
    if args.dataset_path is None:
        options.error("no data: give --dataset-path, the W2S paper's safety.csv (prompt,is_safe)")
    import torch

    from underseer import data
    from underseer.maths.stats import mean_ci

    torch.set_num_threads(args.threads)
    published = data.load("wts-safety", str(args.dataset_path), None, seed=0)
    cleaned, _ = data.clean_rows(published)
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        rows = split(cleaned, seed)
        for loss_name in ("hard_ce", "aux_conf"):
            for way in WAYS:
                runs.setdefault((loss_name, way), []).append(trained(way, loss_name, seed, rows))
    transfer = rows[rows.split == "transfer"]
    lengths = transfer.text.str.split().str.len().to_numpy().clip(1, 128)
    shapes = {way: shape(way, lengths, transfer.label.to_numpy(dtype=int)) for way in WAYS}
    report(args, runs, shapes, mean_ci)


def split(cleaned, seed: int):
    """1,500 rows to learn from, 250 to stop by, the rest to measure on; ``p`` are the labels themselves."""
    rows = cleaned.sample(frac=1, random_state=seed).reset_index(drop=True)
    cuts = np.select([rows.index < 1500, rows.index < 1750], ["transfer", "validation"], "test")
    return rows.assign(split=cuts, label=rows.label.astype(int), p=rows.label.astype(float))


def report(args, runs, shapes, mean_ci: Callable) -> None:
    """Print the table and write the record."""
    lines, facts = [], []
    for (loss_name, way), made in runs.items():
        accuracy = np.array([one["accuracy"] for one in made])
        apart = accuracy - np.array([one["accuracy"] for one in runs[loss_name, "shuffled"]])
        seconds = float(np.median([one["seconds"] for one in made]))
        _, low, high = mean_ci(apart)
        facts.append({"loss": loss_name, "way": way, "accuracy": accuracy.tolist(), "seconds": seconds, **shapes[way]})
        lines.append(
            [f"{loss_name}, {way}", f"{shapes[way]['sd']:.3f}", f"{shapes[way]['padded']:.2f}", f"{accuracy.mean():.3f}",
             "" if way == "shuffled" else f"{100 * apart.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]", f"{seconds:.1f}"]
        )  # fmt: skip
    table(["", "sd", "padded", "accuracy", "against shuffled (points)", "CPU s"], lines)
    write(args, "batches", runs=facts)


if __name__ == "__main__":
    main()
