"""Where the width of an interval comes from, and what narrowing it costs: W2S classification tasks of the testbed.

    python benchmarks/power.py                                  # safety and legal, after make demo
    python benchmarks/power.py --tasks safety --seeds 0,1,2,3 --home /path/to/store

Of each seed two supervisors are trained on the same rows, and three naive students on each one's labels. A balanced nested
analysis of variance divides the variance of (accuracy of the naive student - accuracy of its supervisor) into what belongs to a seed
(its rows, shared by both supervisors), a supervisor's training, a student's training, and the held-out items. The table then says
for each way of spending one more unit by how many points the half-width of the demo's interval changes for 100 core-seconds.

Settings are those of params/demo; seeds are tuning seeds; accuracy is on 1,500 rows of a split that no training sees and that is not the
test split. Base models are read from the store of a finished demo.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shared import ROOT, parser, table, write

SUPERVISORS, STUDENTS = 2, 3
"""Trainings of each seed: supervisors, and students of each supervisor."""


class Parts(NamedTuple):
    """Variances of the difference of accuracies, in squared fractions: of seeds, supervisors, students, and of one item."""

    seed: float
    supervisor: float
    student: float
    item: float

    def half_width(self, seeds: int, supervisors: int, students: int, items: int) -> float:
        """Half of the 95 % interval of the mean over ``seeds``: Student's t, each seed being a mean over its trainings and items.

        Items are counted once a seed: the same ones are asked of all trainings of a seed.
        """
        from scipy import stats

        one = self.seed + self.supervisor / supervisors + self.student / (supervisors * students) + self.item / items
        return float(stats.t.ppf(0.975, seeds - 1) * np.sqrt(one / seeds))


def parts(differences: np.ndarray, item: float, items: int) -> Parts:
    """Variance components by the mean squares of a balanced nested design, not below 0 (Searle, Casella and McCulloch 1992, 3.5).

    differences: (seeds, supervisors, students), fractions. item: variance of one item's difference; the mean square of seeds holds
    item / items as well, which is taken off there.
    """
    _, supervisors, students = differences.shape
    within = differences.var(axis=2, ddof=1).mean()
    between = differences.mean(axis=2).var(axis=1, ddof=1).mean() - within / students
    seed = differences.mean(axis=(1, 2)).var(ddof=1) - max(between, 0) / supervisors - within / (supervisors * students)
    return Parts(max(seed - item / items, 0.0), max(between, 0.0), float(within), item)


def measured(task: str, seed: int, p: dict[str, Any], home: Path) -> dict[str, Any]:
    """Train all of one seed; differences (supervisors, students), the variance of an item, and seconds of each kind of work."""
    import pandas as pd

    from underseer import data
    from underseer.maths import losses, votes
    from underseer.models import loading
    from underseer.training import finetune
    from underseer.training.settings import TrainSettings
    from underseer.w2s import frames, tasks

    seconds: dict[str, list[float]] = {"rows": [], "supervisor": [], "student": [], "asked": []}
    start = time.process_time()
    labels = tasks.task(task)
    rows, _ = data.clean_rows(data.load(p["dataset"], None, None, seed=seed))
    sizes = data.Sizes(p["n_supervise"], p["n_transfer"], p["n_validation"], n_test=100, n_judge=1500)
    rows = data.split(rows, sizes, seed=seed, train_labels=labels.train_labels, clean=True, near_threshold=None)
    by_name = {name: part for name, part in rows.groupby("split")}
    held = by_name["judge"]
    seconds["rows"].append(time.process_time() - start)

    def trained(model: str, kind: str, run_seed: int, taught, check, epochs: int, rate: float):
        began = time.process_time()
        net, tokenizer = loading.load_classifier(
            model, labels=labels.labels, texts=frames.texts(by_name["transfer"]), base=base(model, home), seed=run_seed,
            max_length=p["max_length"],
        )  # fmt: skip
        settings = TrainSettings(
            epochs=epochs, learning_rate=rate, seed=run_seed, progress=False,
            **{n: p[n] for n in ("batch_size", "weight_decay", "warmup_steps", "eval_steps", "patience", "max_length")},
        )  # fmt: skip
        fit = finetune.fit_classifier(net, tokenizer, taught, check, settings, loss=losses.hard_ce)
        seconds[kind].append(time.process_time() - began)
        return lambda asked: finetune.predict_proba(fit.model, tokenizer, asked, max_length=p["max_length"])[:, 1]

    def right(probabilities) -> np.ndarray:
        return ((probabilities >= 0.5) == held.label.to_numpy(bool)).astype(float)

    labelled = pd.concat([by_name["transfer"], by_name["validation"]])
    differences, items = [], []
    for k in range(SUPERVISORS):
        weak = trained(p["weak_model"], "supervisor", seed * 1000 + 500 * k, by_name["supervise"], by_name["validation"],
                       p["weak_epochs"], p["weak_learning_rate"])  # fmt: skip
        answers = labelled[["id", "split"]].assign(p=weak(labelled))
        taught = frames.teach(rows, frames.label(frames.align([answers]), votes.hard_vote))
        transfer, check = (taught[taught.split == name] for name in ("transfer", "validation"))
        began = time.process_time()
        by_weak = right(weak(held))
        seconds["asked"].append(time.process_time() - began)
        for j in range(STUDENTS):
            student = trained(p["strong_model"], "student", seed + 100 * j, transfer, check, p["epochs"], p["learning_rate"])  # fmt: skip
            apart = right(student(held)) - by_weak
            differences.append(apart.mean())
            items.append(apart.var())
    return {
        "differences": np.reshape(differences, (SUPERVISORS, STUDENTS)).tolist(),
        "item": float(np.mean(items)),
        "items": len(held),
        "seconds": {kind: float(np.median(all_)) for kind, all_ in seconds.items()},
    }


def base(model: str, home: Path) -> str:
    """The folder of a base model that a demo has pre-trained. Raises SystemExit where there is none."""
    from underseer import store

    name = model.removeprefix("testbed:")
    made = [o for o in store.outputs(home / "runs/testbed/pretrain") if o.parameters["base_model"] == name]
    if not made:
        raise SystemExit(
            f"{home / 'runs'} has no base model {name}; run make demo first, or give --home the store of a demo"
        )
    return str(made[-1].path / "model")


def spendings(variances: Parts, seconds: dict[str, float], seeds: int, n_test: int) -> list[list[str]]:
    """A line for each way to spend more: the half-width that it gives, its cost, and the points gained for 100 core-seconds."""
    one = seconds["rows"] + seconds["supervisor"] + seconds["student"]
    ways = {
        "as it is": ((seeds, 1, 1, n_test), 0.0),
        "two seeds more": ((seeds + 2, 1, 1, n_test), 2 * one),
        "a second supervisor a seed, with its student": ((seeds, 2, 1, n_test), seeds * (seconds["supervisor"] + seconds["student"])),
        "a second student a seed": ((seeds, 1, 2, n_test), seeds * seconds["student"]),
        "twice the test items": ((seeds, 1, 1, 2 * n_test), 2 * seeds * seconds["asked"] * n_test / 1500),
    }  # fmt: skip
    now = variances.half_width(*ways["as it is"][0])
    lines = []
    for name, (counts, cost) in ways.items():
        width = variances.half_width(*counts)
        gain = f"{100 * (now - width) * 100 / cost:.2f}" if cost else ""
        lines.append([name, f"{100 * width:.2f}", f"{cost:.0f}", gain])
    return lines


def main() -> None:
    options = parser(__doc__, "power")
    options.add_argument("--tasks", default="safety,legal")
    options.add_argument("--seeds", default="0,1,2,3,4,5", help="tuning seeds")
    options.add_argument("--home", type=Path, default=ROOT, help="the store of a finished demo")
    args = options.parse_args()
    import torch

    from underseer.runs import params

    torch.set_num_threads(args.threads)
    facts = {}
    for task in args.tasks.split(","):
        experiment = params.load(ROOT / f"params/demo/w2s_{task}.yaml")
        p = next(experiment.resolved())
        runs = [measured(task, int(seed), p, args.home) for seed in args.seeds.split(",")]
        seconds = {kind: float(np.median([r["seconds"][kind] for r in runs])) for kind in runs[0]["seconds"]}
        items = runs[0]["items"]
        variances = parts(np.array([r["differences"] for r in runs]), float(np.mean([r["item"] for r in runs])), items)
        n_seeds = len({v["seed"] for v in experiment.resolved()})
        print(f"\n{task}: standard deviations in points: "
              + ", ".join(f"{n} {100 * v**0.5:.1f}" for n, v in variances._asdict().items() if n != "item")
              + f", items {100 * (variances.item / p['n_test']) ** 0.5:.1f} ({p['n_test']} of them)")  # fmt: skip
        table(
            ["naive - weak", "half-width, points", "core-seconds", "points for 100"],
            spendings(variances, seconds, n_seeds, p["n_test"]),
        )
        facts[task] = {"runs": runs, "variances": variances._asdict(), "seconds": seconds}
    write(args, "power", tasks=facts)


if __name__ == "__main__":
    main()
