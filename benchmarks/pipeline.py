"""The pipeline: what a stage costs beyond its own work, a rerun with nothing to do, plan time, stages saved in ablations.

    python benchmarks/pipeline.py                        # runs params/test/*.yaml in a store of its own
    python benchmarks/pipeline.py --home DIR --experiments params/demo/*.yaml     # what has run in a store

How the overhead of a stage is measured. Stages run one at a time (``--jobs 1``), so a stage's wall time is what passes between
the manifest of the stage before and its own (the times of the two files). Its own work is ``cost.seconds`` of its manifest:
from ``stage.begin`` to ``run.finish`` in its notebook. The rest is overhead, in four parts, from the times that papermill
writes into the executed notebook:

- ``schedule``: from the manifest before to papermill's start: process end, Snakemake, process start;
- ``kernel``: to the begin of the first cell;
- ``cells``: of the notebook's cells what lies before ``begin`` (imports) and after ``finish``;
- ``close``: from the end of the last cell to the manifest: saving the notebook, checksums.

Imports that a stage makes after ``begin`` count as its work; ``imports`` says what they take in a warm process. What is
paid once a run is told apart: from the command to the first stage, and from the last stage to the end (report, MLflow).
In a given store (``--home``) stages may have run beside each other: ``schedule`` is left out there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from shared import ROOT, clocked, in_turns, medians, parser, spread, table, underseer, write

from underseer import store
from underseer.runs import params, plan

PARTS = ("schedule", "kernel", "cells", "close")
INSTANCES = 10_000
LAZY = ("trl.trainer.dpo_trainer", "seaborn")
GRIDS = {"w2s": "params/demo/w2s_safety.yaml", "selfmoa": "params/demo/selfmoa.yaml"}
ELSEWHERE = {"w2s_cleaning": (f"dataset_path={ROOT / 'README.md'}", "strong_model=scratch:gpt2?n_layer=4")}
"""Stand-ins for a data set and a model that are not in the repository: the number of stages is the same."""
PLAN = """
import sys, time
from underseer.runs import params, plan
start = time.perf_counter()
made = plan.make(params.load(sys.argv[1]))
planned = time.perf_counter()
left = made.missing()
print(len(made.instances), planned - start, time.perf_counter() - planned)
"""
IMPORTS = """
import sys, time
from underseer.runs import warm
for name in warm.PRELOADED:
    __import__(name)
start = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print(time.perf_counter() - start)
"""


def printed(code: str, *args: object) -> list[float]:
    """The numbers that a Python process prints."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return [float(x) for x in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


# ------------------------------------------------------------------------------------------------------- planning


def grid(file: str, folder: Path) -> Path:
    """An experiment file with enough seeds for ``INSTANCES`` stage instances."""
    one, two = (len(plan.make(params.load(ROOT / file, [f"seed={seeds}"])).instances) for seeds in ([0], [0, 1]))
    seeds = -(-(INSTANCES - one) // (two - one)) + 1
    variants = params.load(ROOT / file).variants
    axes = {name: list(dict.fromkeys(v[name] for v in variants)) for name in variants[0]} | {"seed": list(range(seeds))}
    made = folder / Path(file).name
    made.write_text(json.dumps({"extends": str(ROOT / file), "variants": axes}))
    return made


def plan_times(folder: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """By pipeline: instances, and the seconds in a new process to read and plan the file, and to find what is missing."""
    seconds = in_turns({name: partial(printed, PLAN, grid(file, folder)) for name, file in GRIDS.items()}, repeats)
    return {
        name: {"instances": int(runs[0][0]), "plan": [run[1] for run in runs], "missing": [run[2] for run in runs]}
        for name, runs in seconds.items()
    }


def stages_saved(made: plan.Plan, held: frozenset[str] = frozenset()) -> dict[str, int]:
    """Stage instances: ``alone`` if every variant ran by itself, with a report; ``planned``; and ``new`` where the
    stages ``held`` have run already."""
    keys = set(made.instances)
    alone = sum(len(variant["needs"]) + 1 for variant in made.variants)
    return {"variants": len(made.variants), "alone": alone, "planned": len(keys), "new": len(keys - held)}


def ablations() -> dict[str, dict[str, int]]:
    """Stages of the shipped ablations; ``new`` beside the demo."""
    demo = [plan.make(params.load(file)) for file in sorted((ROOT / "params/demo").glob("*.yaml"))]
    held = frozenset(key for one in demo for key in one.instances)
    saved = {}
    for file in sorted((ROOT / "params/ablations").glob("*.yaml")):
        saved[file.stem] = stages_saved(plan.make(params.load(file, ELSEWHERE.get(file.stem, ()))), held)
    return saved


# ------------------------------------------------------------------------------------------------------ overhead


def parts(manifest: dict[str, Any], notebook: dict[str, Any], stored: float, before: float | None) -> dict[str, float]:
    """Seconds of a stage: its ``own`` work, and the parts of its overhead.

    Args:
        stored: when its manifest was written, in seconds since the epoch.
        before: when that of the stage before was; None where another stage may have run beside this one.
    """
    times = [c["metadata"]["papermill"] for c in notebook["cells"] if c["cell_type"] == "code"]
    start = moment(notebook["metadata"]["papermill"]["start_time"])
    first, last = moment(times[0]["start_time"]), moment(times[-1]["end_time"])
    own = manifest["cost"]["seconds"]
    seconds = {"own": own, "kernel": first - start, "cells": last - first - own, "close": stored - last}
    return seconds if before is None else seconds | {"schedule": start - before}


def moment(text: str) -> float:
    """Seconds since the epoch of a time in ISO 8601."""
    return datetime.fromisoformat(text).timestamp()


def stages(home: Path, *, one_by_one: bool) -> list[dict[str, Any]]:
    """Every stage of a store with its parts, in the order in which they finished; the first has no stage before it."""
    written = sorted(((o.path / store.MANIFEST).stat().st_mtime, o) for o in store.outputs(home / "runs"))
    timed, before = [], None
    for stored, output in written:
        notebook = json.loads((output.path / "notebook.ipynb").read_text(encoding="utf-8"))
        timed.append({"stage": output.manifest["stage"], **parts(output.manifest, notebook, stored, before)})
        before = stored if one_by_one else None
    return timed


def overhead(stage: dict[str, float]) -> float:
    return sum(stage.get(part, 0.0) for part in PARTS)


def show_overhead(stages: list[dict[str, Any]]) -> None:
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for one in stages:
        by_stage.setdefault(one["stage"], []).append(one)
    by_stage = dict(sorted(by_stage.items())) | {"all": stages}
    rows = []
    for name, ones in by_stage.items():
        inside = [statistics.median(one.get(part, 0.0) for one in ones) for part in PARTS]
        own = statistics.median(one["own"] for one in ones)
        cells = [*spread([overhead(one) for one in ones], ".2f"), *(f"{x:.2f}" for x in inside)]
        rows.append([name, len(ones), f"{own:.2f}", *cells])
    print("\nseconds of a stage: own work (median), overhead, and its parts (medians)")
    table(["", "n", "own", "overhead", "least", "most", *PARTS], rows)


def run_all(files: list[Path], home: Path) -> dict[str, float]:
    """Run the experiments one stage at a time; seconds of the run, before its first stage and after its last."""
    began = time.time()
    seconds = underseer(home, "run", *files, "--jobs", 1)
    outputs = list(store.outputs(home / "runs"))
    starts = [moment(json.loads((o.path / "notebook.ipynb").read_text())["metadata"]["papermill"]["start_time"])
              for o in outputs]  # fmt: skip
    last = max((o.path / store.MANIFEST).stat().st_mtime for o in outputs)
    return {"run": seconds, "before the first stage": min(starts) - began, "after the last": began + seconds - last}


def reruns(files: list[Path], home: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of a rerun with nothing to do: all experiments in one command, and a command an experiment."""
    ways = {"one command": lambda: underseer(home, "run", *files)}
    if len(files) > 1:
        ways["a command each"] = lambda: clocked(lambda: [underseer(home, "run", file) for file in files])
    return in_turns(ways, repeats)


def main() -> None:
    made = parser(__doc__, "pipeline")
    made.add_argument("--experiments", nargs="+", type=Path, default=sorted((ROOT / "params/test").glob("*.yaml")))
    made.add_argument("--home", type=Path, help="a store in which the experiments have run; default: run them")
    args = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: Namespace, folder: Path) -> None:
    planned = plan_times(folder, args.repeats)
    print(f"planning, {INSTANCES:,} stage instances or some more, seconds")
    rows = [[n, f"{p['instances']:,}", *spread(p["plan"], ".2f"), f"{statistics.median(p['missing']):.2f}"]
            for n, p in planned.items()]  # fmt: skip
    table(["", "instances", "plan", "least", "most", "then missing"], rows)

    saved = ablations()
    print("\nstages of the shipped ablations: every variant alone, planned together, new beside the demo")
    total = sum((Counter(row) for row in saved.values()), Counter())
    rows = [
        [name, *row.values(), f"{row['alone'] / row['planned']:.1f}"] for name, row in (*saved.items(), ("all", total))
    ]
    table(["", "variants", "alone", "planned", "new", "x fewer"], rows)

    home = args.home or folder
    once = {} if args.home else run_all(args.experiments, home)
    timed = stages(home, one_by_one=not args.home)
    show_overhead(timed)
    imports = statistics.median(in_turns({"": lambda: printed(IMPORTS, *LAZY)[0]}, args.repeats)[""])
    print(f"imports after begin ({', '.join(LAZY)}): {imports:.2f}")
    for name, seconds in once.items():
        print(f"{name}: {seconds:.1f}")
    again = reruns(args.experiments, home, args.repeats)
    print(f"\nnothing to do, {len(args.experiments)} experiments, {len(timed)} stages, seconds")
    table(["", "rerun", "least", "most"], [[name, *spread(values, ".2f")] for name, values in again.items()])
    write(
        args, "pipeline", unit="seconds", experiments=[file.stem for file in args.experiments], plan=planned,
        ablations=saved, stages=timed, overhead=statistics.median(map(overhead, timed)), imports=imports, once=once,
        rerun=again, median=medians(again),
    )  # fmt: skip


if __name__ == "__main__":
    main()
