"""Shows a run while it goes on: a live table on a terminal; elsewhere a line for each finished stage, and one a minute."""

from __future__ import annotations

import subprocess
import time
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from underseer import paths, progress, store
from underseer.progress import clock
from underseer.runs.console import table
from underseer.runs.plan import Instance

POLL = 0.5  # seconds between two looks at the store
BEAT = 60.0  # seconds between two lines about what runs, where there is no live table


class Watch:
    """Which of the missing instances of a run are done, at work and left."""

    def __init__(self, missing: list[Instance], console: Console, jobs: int) -> None:
        """``jobs``: stages that run at a time, for the time left."""
        self.missing, self.console, self.jobs = missing, console, jobs
        self.left = {i.key: i for i in missing}
        self.running: dict[str, float] = {}
        self.started = self._said = time.monotonic()
        self._usual = seconds_by_stage() if console.is_terminal else {}

    def follow(self, process: subprocess.Popen) -> None:
        """Show the stages until a process ends."""
        self._print(f"starting {len(self.missing)} stages, {self.jobs} at a time: the libraries are imported first")
        shown = Live(console=self.console, refresh_per_second=2, transient=True)
        with shown if self.console.is_terminal else nullcontext() as live:
            while True:
                ended = process.poll() is not None
                for instance in list(self.left.values()):
                    self._look(instance, lines=not live)
                if live:
                    live.update(self._table())
                elif time.monotonic() - self._said >= BEAT:
                    self._beat()
                if ended:
                    return
                time.sleep(POLL)

    def _look(self, instance: Instance, *, lines: bool) -> None:
        """Bring ``left`` and ``running`` up to date for one instance; say what is done where there is no live table."""
        work = paths.work(instance.stage, instance.key)
        if instance.cached:
            seconds = time.monotonic() - self.running.pop(instance.key, time.monotonic())
            del self.left[instance.key]
            if lines:
                self._print(f"done     {instance.stage} {instance.key} ({seconds:.0f} s)")
        elif instance.key not in self.running and (work / "instance.json").is_file() and store.is_working(work):
            if lines and not self.running and len(self.left) == len(self.missing):
                self._print(f"begins   {instance.stage} {instance.key}")
            self.running[instance.key] = time.monotonic()
        elif instance.key in self.running and self._has_failed(instance):
            del self.running[instance.key]
            if lines:
                self._print(f"failed   {instance.stage} {instance.key}")

    @staticmethod
    def _has_failed(instance: Instance) -> bool:
        """Whether a stage that was at work has kept its notebook as failed: what an earlier try kept goes when the next begins."""
        kept = paths.failed_notebook(instance.stage, instance.key)
        return kept.is_file() and not store.is_working(paths.work(instance.stage, instance.key))

    def _beat(self) -> None:
        self._said = time.monotonic()
        for key in self.running:
            at = self.progress(self.left[key]) or f"for {clock(time.monotonic() - self.running[key])}"
            self._print(f"at work  {self.left[key].stage} {key}: {at}")
        done = len(self.missing) - len(self.left)
        self._print(f"{done} of {len(self.missing)} stages done, {len(self.running)} at work")

    def _print(self, text: str) -> None:
        self.console.print(
            f"[{clock(time.monotonic() - self.started)}] {text}", highlight=False, markup=False, soft_wrap=True
        )

    @staticmethod
    def progress(instance: Instance) -> str:
        """How far an instance at work has come, in words; '' where it has not said."""
        return progress.line(progress.read(paths.work(instance.stage, instance.key)))

    def _table(self) -> Group:
        rows = []
        for stage in dict.fromkeys(i.stage for i in self.missing):
            keys = [i.key for i in self.missing if i.stage == stage]
            now = sorted((k for k in keys if k in self.running), key=self.running.__getitem__)
            waiting = [k for k in keys if k in self.left and k not in self.running]
            longest = (
                f"{clock(time.monotonic() - self.running[now[0]])}  {self.progress(self.left[now[0]])}" if now else ""
            )
            rows.append((stage, str(len(keys) - len(now) - len(waiting)), len(now), len(waiting), longest))
        shown = table(("stage", "done", "running", "left", "longest running"), rows, numbers=3)
        return Group(shown, Text(self._foot(), style="bold"))

    def _foot(self) -> str:
        done = len(self.missing) - len(self.left)
        spent = {k: time.monotonic() - begun for k, begun in self.running.items()}
        left = time_left(self.left.values(), self._usual, spent, self.jobs)
        elapsed = f"{done} of {len(self.missing)} stages done, {clock(time.monotonic() - self.started)} elapsed"
        return elapsed + (f", about {clock(left)} left" if left is not None else "")


def seconds_by_stage() -> dict[str, float]:
    """How long a stage has taken in this store: the mean seconds of its finished instances."""
    seconds: dict[str, list[float]] = {}
    for output in store.readable():
        if output.seconds is not None:
            seconds.setdefault(output.manifest["stage"], []).append(output.seconds)
    return {stage: sum(values) / len(values) for stage, values in seconds.items()}


def time_left(left, usual: dict[str, float], spent: dict[str, float], jobs: int) -> float | None:
    """Seconds until instances are done, ``jobs`` at a time; None where a stage of them has never run in this store.

    Args:
        left: the instances that are not done.
        usual: stage -> seconds that it takes (``seconds_by_stage``).
        spent: key -> seconds that an instance has been at work.
    """
    total = 0.0
    for instance in left:
        if instance.stage not in usual:
            return None
        total += max(usual[instance.stage] - spent.get(instance.key, 0.0), 0.0)
    return total / jobs
