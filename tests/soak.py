"""Kill runs at random moments, start the same command again, and compare what it ends in with a run that nobody killed.

``python tests/soak.py [w2s_safety] [selfmoa] [--kills 20] [--seed 0] [--jobs 2]``, or ``make soak``. Each trial has a store and a folder for
temporary files of its own. ``underseer run`` of a test experiment gets a SIGKILL: the command alone, its process group, or it
and all its descendants, in turn. At once the same command is started again; it must end with exit code 0 and

- in the same ``results.json`` (rows, PGR) to the last bit;
- with nothing left: no process of either run, no temporary file, no work folder, no damaged output;
- with no stage executed again that was finished before the kill, and no verdict and no answer asked for a second time,
  but for those of the batch at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from underseer import store

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ("w2s_safety", "selfmoa")
TARGETS = ("command", "group", "tree")
END = 30  # seconds that what a kill has orphaned has to end in


@dataclass
class Home:
    """A store, and a folder for the temporary files of all processes that work on it."""

    path: Path
    experiment: str
    jobs: int
    temporary: Path = field(init=False)

    def __post_init__(self) -> None:
        self.temporary = self.path / "tmp"
        self.temporary.mkdir(parents=True)

    def start(self) -> subprocess.Popen[str]:
        env = {**os.environ, "UNDERSEER_HOME": str(self.path / "store"), "TMPDIR": str(self.temporary), "NO_COLOR": "1"}
        command = [sys.executable, "-m", "underseer.runs.cli", "run", f"params/test/{self.experiment}.yaml"]
        return subprocess.Popen(
            [*command, "--jobs", str(self.jobs)], cwd=ROOT, env=env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self) -> float:
        """Run to the end; the seconds that it took. Raises AssertionError where it does not end well."""
        started = time.monotonic()
        process = self.start()
        output = process.communicate(timeout=3600)[0]
        assert process.returncode == 0, f"exit code {process.returncode}:\n{output}"
        return time.monotonic() - started

    def results(self) -> dict:
        file = self.path / f"store/reports/test/{self.experiment}/results.json"
        results = json.loads(file.read_text())
        return {name: results.get(name) for name in ("rows", "pgr")}

    def manifests(self) -> dict[Path, int]:
        """The finished stages, each with the moment when it was finished."""
        files = self.path.glob("store/runs/*/*/[!.]*/manifest.json")
        return {file.parent: file.stat().st_mtime_ns for file in files}

    def asked_twice(self) -> int:
        """Verdicts that were written again: SQLite then gives a row a new number."""
        file = self.path / "store/runs/.cache/verdicts.sqlite"
        if not file.is_file():
            return 0
        with closing(sqlite3.connect(file)) as kept:
            ((last, count),) = kept.execute("SELECT coalesce(max(rowid), 0), count(*) FROM kept")
        return last - count


def processes(store: Path) -> dict[psutil.Process, str]:
    """The living processes with a store in their environment, and the command of each."""
    living = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            if str(store) in process.environ().get("UNDERSEER_HOME", ""):
                living[process] = " ".join(process.cmdline())
    return living


def kill(process: subprocess.Popen, target: str) -> None:
    """SIGKILL to the command, to its group, or to it and all its descendants."""
    if target == "group":
        os.killpg(process.pid, signal.SIGKILL)
        return
    parent = psutil.Process(process.pid)
    for one in [parent, *(parent.children(recursive=True) if target == "tree" else [])]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def trial(home: Home, target: str, moment: float, expected: dict) -> str | None:
    """One kill and the run after it; what was seen in a line, or None where the run had ended before the moment came.

    Raises:
        AssertionError: something was lost, left or done twice.
    """
    process = home.start()
    time.sleep(moment)
    if process.poll() is not None:
        process.communicate()
        return None
    before = home.manifests()
    kill(process, target)
    process.communicate()
    seconds = home.finish()
    assert home.results() == expected, "other results"
    after = home.manifests()
    again = [place for place, finished in before.items() if after.get(place) != finished]
    assert not again, f"finished stages were executed again: {again}"
    end = time.monotonic() + END
    while (left := processes(home.path / "store")) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left, f"processes are left: {left}"
    files = [
        *home.temporary.iterdir(),
        *(home.path / "store").rglob(".work-*"),
        *(home.path / "store").rglob("*.part*"),
    ]
    assert not files, f"files are left: {files}"
    assert store.verify(home.path / "store/runs")[1] == [], "outputs are damaged"
    assert home.asked_twice() == 0, f"{home.asked_twice()} verdicts were asked for twice"
    return f"{len(before)} of {len(after)} stages were finished, the rest took {seconds:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, help="of params/test; default: %(default)s")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    draw, began, done = random.Random(options.seed), time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        whole, expected = {}, {}
        for experiment in options.experiments:
            home = Home(Path(folder) / experiment, experiment, options.jobs)
            whole[experiment] = home.finish()
            expected[experiment] = home.results()
            print(f"{experiment}: {whole[experiment]:.0f} s without a kill", flush=True)
        while done < options.kills:
            experiment = options.experiments[done % len(options.experiments)]
            target = TARGETS[done % len(TARGETS)]
            moment = draw.uniform(1, 0.95 * whole[experiment])
            with tempfile.TemporaryDirectory(dir=folder) as place:
                print(f"{done + 1:2d} {experiment} {target} after {moment:.0f} s: ", end="", flush=True)
                seen = trial(Home(Path(place), experiment, options.jobs), target, moment, expected[experiment])
            print(seen or "it had ended before; once more", flush=True)
            if seen is not None:
                done += 1
    print(f"{done} kills, {done} equal results, nothing left: {(time.monotonic() - began) / 60:.0f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
