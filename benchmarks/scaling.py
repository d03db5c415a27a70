"""Scaling: time against rows (x1 to x16) and variants (1 to 64); exponents of log-log fits with 95 % intervals.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --lanes planning generation

An exponent of 1 is linear. Work is measured, start-up apart: models are loaded, libraries imported and caches of code warm
before the clock starts. Rows (repeats alternate over the sizes):

- ``training``: ``finetune.fit_classifier`` on the testbed's prompts, one epoch, from the start of its first step, which
  has the longest rows, to the end of its last;
- ``generation``: ``engines.local.generate``, 16 new tokens, batches of 32;
- ``judging``: ``score`` of an evaluator that is open and has kept no verdict;
- ``aligning``: as ``training``, of ``selfmoa.align.align`` on pairs of answers;
- ``hygiene``: ``data.clean_rows`` and ``data.hygiene``; its exact search for near duplicates compares all rows with all.

Variants:

- ``planning``: planning an experiment with so many seeds of three votes each, the file read beforehand;
- ``running``: ``underseer run`` on cheap stages. Each variant needs two students that no other needs. A run adds to those
  before it; the time is from its first finished student to its last, the size the students between;
- ``report``: what the report of those variants spends (its ledger).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import classifier_training
import generation
import judges
import modpo
import torch
from shared import ROOT, Exponent, clocked, exponent, in_turns, medians, parser, spread, table, underseer, write

from underseer import data, store
from underseer.engines import Inference, Sampling, local
from underseer.judges import Opening, open_judge
from underseer.models import loading
from underseer.runs import params, plan
from underseer.training.align import AlignSettings, align
from underseer.training.finetune import TrainSettings, fit_classifier

TIMES = (1, 2, 4, 8, 16)
VARIANTS = (1, 4, 16, 64)
SMALL = {"training": 128, "aligning": 24, "generation": 32, "judging": 32, "hygiene": 250}  # rows at x1
TINY = "scratch:gpt2?n_layer=2&n_embd=128&n_head=4"
EXPERIMENT = ROOT / "params/test/w2s_safety.yaml"
Points = dict[float, list[float]]  # size -> seconds
Lane = Callable[[int], tuple[float, float]]  # rows asked for -> the size of the work measured, seconds


# ---------------------------------------------------------------------------------------------------------- rows


def loop_of(train: Callable[[], Any], batch: int) -> tuple[float, float]:
    """Rows and seconds from the start of a training's first step, which has the longest rows, to the end of its last."""
    marks = classifier_training.step_marks(train)
    return batch * (len(marks) - 1), marks[-1] - marks[0]


def settings(batch: int) -> TrainSettings:
    return TrainSettings(epochs=1, batch_size=batch, learning_rate=5e-5, max_length=128, device="cpu", progress=False)


def training(rows: int) -> tuple[float, float]:
    df = classifier_training.rows_of(None, SMALL["training"] * max(TIMES))[:rows]
    model, tokenizer = loading.load_classifier(TINY, labels=["safe", "unsafe"], texts=df.text[:256], max_length=128)
    return loop_of(lambda: fit_classifier(model, tokenizer, df, None, settings(16)), 16)


def aligning(rows: int) -> tuple[float, float]:
    every = modpo.pairs_of(None, SMALL["aligning"] * max(TIMES))
    model, tokenizer = modpo.fresh(TINY, every)  # one vocabulary, which is most of the cost, whatever the size
    pairs = every[:rows]
    return loop_of(lambda: align(model, tokenizer, pairs, AlignSettings(settings(4), lora=None)), 4)


def hygiene(rows: int) -> tuple[float, float]:
    df = data.load("testbed-safety", None, n=rows, seed=0)
    return rows, clocked(lambda: data.hygiene(data.clean_rows(df)[0]))


def generating(most: int) -> Lane:
    prompts = data.load("testbed-safety", None, n=most, seed=0).text.tolist()
    model, tokenizer = generation.load(generation.SHAPES["gpt2 4x256"], prompts[:256])
    inference = Inference("cpu", "fp32", 32, None)

    def lane(rows: int) -> tuple[float, float]:
        call = partial(
            local.generate, model, tokenizer, prompts[:rows], Sampling(max_new_tokens=16), inference, progress=False
        )
        return rows, clocked(call)

    return lane


def judging(most: int, folder: Path) -> Lane:
    asked, answers = judges.exchanges_of(None, most)
    saved = loading.load_classifier(judges.EVALUATOR, labels=["safe", "unsafe"], texts=answers[:256], max_length=512)
    loading.save(*saved, folder / "evaluator")
    opening = Opening(folder=folder / "evaluator", cache=":memory:", **judges.HOW)

    def lane(rows: int) -> tuple[float, float]:
        judge = open_judge("trained:org/evaluator", "unsafe", opening)
        judge.score(["another"], ["first"])  # the model is loaded when it is first asked
        return rows, clocked(lambda: judge.score(answers[:rows], asked[:rows]))

    return lane


def rows_lanes(lanes: list[str], folder: Path, repeats: int) -> dict[str, Points]:
    made: dict[str, Callable[[int], Lane]] = {
        "training": lambda most: training,
        "aligning": lambda most: aligning,
        "generation": generating,
        "judging": lambda most: judging(most, folder),
        "hygiene": lambda most: hygiene,
    }
    measured: dict[str, Points] = {}
    for name in (name for name in made if name in lanes):
        lane = made[name](SMALL[name] * max(TIMES))
        lane(SMALL[name])  # first calls
        runs = in_turns({n: partial(lane, SMALL[name] * n) for n in TIMES}, repeats)
        measured[name] = {many[0][0]: [seconds for _, seconds in many] for many in runs.values()}
    return measured


# ------------------------------------------------------------------------------------------------------ variants


def planning(repeats: int) -> Points:
    read = {n: params.load(EXPERIMENT, [f"seed={list(range(n))}"]) for n in (1, 2, 4, 8, 16, 32, 64)}
    plan.make(read[1])  # reads notebooks and modules
    return in_turns({n: partial(clocked, partial(plan.make, one)) for n, one in read.items()}, 5 * repeats)


def running(home: Path) -> tuple[Points, Points, dict[int, float]]:
    """Seconds of work against students, seconds of the report against variants, and the whole command by variants.

    Variants differ in a parameter of the students alone, so that each needs two of its own, and no other stage."""
    work, report, whole = {}, {}, {}
    seen: set[str] = set()
    for n in VARIANTS:
        shares = [round(0.5 + i / 200, 4) for i in range(n)]
        sets = ["voting=none", f"min_agreement={shares}"]
        whole[n] = underseer(home, "run", EXPERIMENT, *(x for one in sets for x in ("--set", one)))
        new = [o for o in store.outputs(home / "runs") if str(o.path) not in seen]
        seen |= {str(o.path) for o in new}
        ends = sorted((o.path / store.MANIFEST).stat().st_mtime for o in new if o.path.parent.name == "4_student")
        if len(ends) > 2:
            work[len(ends) - 1] = [ends[-1] - ends[0]]
        report[n] = [o.manifest["cost"]["seconds"] for o in new if o.path.parent.name == "5_report"]
    return work, report, whole


# ------------------------------------------------------------------------------------------------------- results


def fitted(points: Points) -> Exponent | None:
    return exponent(points) if len(points) > 2 else None


def main() -> None:
    lanes = [*SMALL, "planning", "running"]
    made = parser(__doc__, "scaling")
    made.add_argument("--lanes", nargs="+", choices=lanes, default=lanes)
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    whole: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        measured = rows_lanes(args.lanes, Path(folder), args.repeats)
        if "planning" in args.lanes:
            measured["planning"] = planning(args.repeats)
        if "running" in args.lanes:
            measured["running"], measured["report"], whole = running(Path(folder) / "home")
    fits = {lane: fitted(points) for lane, points in measured.items()}
    for lane, points in measured.items():
        print(f"\n{lane}: exponent {fits[lane]}")
        per = [format(1000 * statistics.median(values) / size, ".3f") for size, values in points.items()]
        rows = [
            [f"{size:,}", *spread(values, ".3f"), each]
            for (size, values), each in zip(points.items(), per, strict=True)
        ]
        table(["size", "seconds", "least", "most", "ms each"], rows)
    if whole:
        commands = ", ".join(f"{n}: {seconds:.0f} s" for n, seconds in whole.items())
        print(f"\nwhole commands, each going on from the one before; variants: {commands}")
    write(
        args, "scaling", unit="seconds", values=measured, median={lane: medians(points) for lane, points in measured.items()},
        exponents={lane: fit and fit._asdict() for lane, fit in fits.items()}, commands=whole,
    )  # fmt: skip


if __name__ == "__main__":
    main()
