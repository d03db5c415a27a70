"""What the benchmarks share: their command line, ways run in turns, tables of medians, records, exponents.

Importing this imports no torch: the pipeline's overhead is measured without it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "../shared/data"  # public data sets, where a checkout has them beside it
T = TypeVar("T")


def parser(doc: str, name: str, *, repeats: int = 3) -> argparse.ArgumentParser:
    """The options that all benchmarks have; the first line of ``doc`` describes it."""
    made = argparse.ArgumentParser(description=doc.split("\n")[0])
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--out", type=Path, default=Path(f"runs/benchmarks/{name}.json"))
    return made


def public(name: str) -> Path | None:
    """A public data set's file, where it is."""
    return DATA / name if (DATA / name).exists() else None


def precisions() -> list[str]:
    """What is worth measuring on this CPU: fp32, and bf16 where it multiplies it natively."""
    import torch

    from underseer.training.precision import native_bf16

    return ["fp32", "bf16"] if native_bf16(torch.device("cpu")) else ["fp32"]


def clocked(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(ways: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each way gives in each of the repeats; ways alternate, so that a busy moment of the machine hits all."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def medians(values: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in values.items()}


def spread(values: Sequence[float], form: str) -> list[str]:
    """Median, least and most, as three cells of a table."""
    return [format(x, form) for x in (statistics.median(values), min(values), max(values))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their head: the first column to the left, the others to the right."""
    rows = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *right]).rstrip())


def write(args: argparse.Namespace, name: str, **facts: Any) -> None:
    """Write the record of a benchmark; numbers that are none become null."""
    versions = {package: metadata.version(package) for package in ("torch", "transformers", "trl")}
    machine = {"machine": platform.machine(), "threads": args.threads, "versions": versions}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"benchmark": name, **machine, **_without_nan(facts)}, indent=1, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Exponent(NamedTuple):
    """Cost grows as size to the power ``value``; 95 % interval of the fit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def exponent(points: Mapping[float, Iterable[float]]) -> Exponent:
    """Slope of log(cost) over log(size) by least squares, with Student's interval; ``points``: size -> costs measured.

    Raises:
        ValueError: fewer than two sizes or three points, or a number that is not above 0.
    """
    from scipy import stats

    pairs = [(size, cost) for size, costs in points.items() for cost in costs]
    if len(points) < 2 or len(pairs) < 3 or min(map(min, pairs)) <= 0:
        raise ValueError(f"{pairs}: an exponent needs two sizes or more and three points or more, all above 0")
    x, y = zip(*((math.log(size), math.log(cost)) for size, cost in pairs), strict=True)
    fit = stats.linregress(x, y)
    half = stats.t.ppf(0.975, len(pairs) - 2) * fit.stderr
    return Exponent(fit.slope, fit.slope - half, fit.slope + half)


def underseer(home: Path, *args: object) -> float:
    """Run the command line in a process of its own, with a store of its own; seconds. Ends the benchmark if it fails."""
    env = {**os.environ, "UNDERSEER_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "underseer.runs.cli", *map(str, args)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"underseer {' '.join(map(str, args))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds
