"""Run a plan: look for mistakes first, then let Snakemake run what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path

from underseer import paths, store
from underseer.engines.lifelines import Lifeline
from underseer.errors import UserError
from underseer.runs import launch, live
from underseer.runs.console import console
from underseer.runs.plan import Instance, Plan, merged
from underseer.runs.watch import Watch

FULL = 1 << 20  # bytes left on a disk that is as good as full


def run(
    plans: list[Plan], missing: list[Instance], jobs: int | None, profile: launch.Profile | None
) -> list[dict[str, str]]:
    """Run the missing instances of all plans together, showing what is done, running and left.

    ``jobs`` stages run at a time; None: see ``launch.at_a_time``.

    Returns:
        For each failed instance its ``stage``, ``key``, ``problem`` and ``notebook``.
    """
    cluster = profile is not None and profile.is_cluster
    check_writable()
    for plan in plans:
        save(plan)
    file, jobs = save(merged(plans), paths.plans()), launch.at_a_time(jobs, profile, missing)
    log, before = file.with_suffix(".log"), _records()
    threads = missing[0].runtime.get("threads", 1)
    surroundings = nullcontext({}) if cluster else launch.local(threads, len(missing))
    if others := sum(store.is_working(paths.work(i.stage, i.key)) for i in missing):
        console.print(f"{others} of the stages left are at work in another run; this one waits for them")
    with launch.marks(cluster=cluster) as marks, log.open("w") as out, surroundings as env, live.beside(plans):
        process = subprocess.Popen(
            launch.command(file, marks, jobs, profile),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**launch.environment(), **env, "UNDERSEER_HOME": str(paths.home())},
            process_group=0,
        )
        lifeline = Lifeline([-process.pid])  # a SIGKILL of this process ends Snakemake and its local jobs too
        try:
            Watch(missing, console, jobs).follow(process)
        except KeyboardInterrupt as stop:
            launch.stop(process, patience=launch.STOP if cluster or not stop.args else 0)
            raise
        finally:
            lifeline.cut()
    new = {record for record, written in _records().items() if before.get(record) != written}
    return _failed(process.returncode, missing, [_failure(record) for record in sorted(new)], log)


def check_writable() -> None:
    """Raise UserError where nothing can be written to the store: its disk is full, or it is another user's."""
    place = paths.plans()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0" * 4096)
    except OSError as error:
        raise UserError(
            f"{paths.shown(paths.home())}: the store cannot be written ({error.strerror}); free space, change its rights, or "
            "name another: UNDERSEER_HOME=/path"
        ) from None


def _failed(code: int, missing: list[Instance], failures: list[dict[str, str]], log: Path) -> list[dict[str, str]]:
    """The instances that failed: those that left a record, and those whose job was ended before it could leave one. Where there
    is none although Snakemake failed, how it ended."""
    planned = {instance.key: instance for instance in missing}  # another run may work in the same store
    failed = [one for one in failures if one["key"] in planned]
    if code == 0:
        return failed
    named, text = {one["key"] for one in failed}, log.read_text(encoding="utf-8", errors="replace")
    for key, message in launch.errors(text).items():
        if key in planned and key not in named and not planned[key].cached:
            problem = f"its job ended without a result: {message or 'it was killed, or the memory did not suffice'}"
            failed.append({"stage": planned[key].stage, "key": key, "problem": problem, "notebook": str(log)})
    return failed or [{"stage": "snakemake", "key": "", "problem": _ended(code, text), "notebook": str(log)}]


def _ended(code: int, text: str) -> str:
    """How Snakemake ended by itself: its exit code, the end of what it wrote, and whether the disk is full."""
    tail = "\n".join(text.splitlines()[-8:])
    free = shutil.disk_usage(paths.home()).free
    full = f"; the store's disk has {free // 1024} KiB left" if free < FULL else ""
    return f"exit code {code}{full}\n{tail}"


def save(plan: Plan, folder: Path | None = None) -> Path:
    """Keep the plan in the store, under a hash of its content; ``sync`` reads it later, unless it is put into another ``folder``."""
    folder, text = folder or paths.plans() / plan.name, plan.as_json()
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        store.write_text(file, text)
    newest = max((other.stat().st_mtime_ns for other in folder.glob("*.json")), default=0)
    moment = max(
        time.time_ns(), newest + 1
    )  # the last one to be saved is the newest, also after the clock was set back
    os.utime(file, ns=(moment, moment))
    return file


def saved() -> list[Plan]:
    """The newest saved plan of every experiment. Raises UserError for a file that holds none."""
    newest: dict[Path, Path] = {}
    for file in sorted(paths.plans().glob("*/*/*.json"), key=lambda f: f.stat().st_mtime):
        newest[file.parent] = file
    plans = []
    for _, file in sorted(newest.items()):
        try:
            plans.append(Plan.from_json(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{paths.shown(file)}: not a plan; remove it, and run its experiment again") from None
    return plans


def failures() -> list[dict[str, str]]:
    """The stage instances whose newest execution failed: of each ``stage``, ``key``, ``problem`` and ``notebook``."""
    return [_failure(record) for record in sorted(_records())]


def _records() -> dict[Path, tuple[int, int]]:
    """The records of failed executions, each with what changes when it is written anew: no clock decides which is new."""
    files = ((record, record.stat()) for record in paths.runs().glob("*/*/failed/*.json"))
    return {record: (facts.st_ino, facts.st_mtime_ns) for record, facts in files}


def _failure(record: Path) -> dict[str, str]:
    stage = "/".join(record.parts[-4:-2])
    failure = {"stage": stage, "key": record.stem, "problem": "its record cannot be read"}
    with suppress(OSError, ValueError, TypeError):
        failure |= json.loads(record.read_text(encoding="utf-8"))
    return failure | {"notebook": paths.shown(record.with_suffix(".ipynb"))}
