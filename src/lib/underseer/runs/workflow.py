"""Run a plan: look for mistakes first, then let Snakemake run what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

from rich.console import Console

from underseer import paths, store
from underseer.engines.lifelines import Lifeline
from underseer.errors import UserError
from underseer.runs import live, warm
from underseer.runs.plan import Instance, Plan, merged
from underseer.runs.watch import Watch

FULL = 1 << 20  # bytes left on a disk that is as good as full
SHARED = (
    "input-output",
    "persistence",
    "software-deployment",
    "sources",
    "storage-local-copies",
)  # all but source-cache
STOP = 20  # seconds that Snakemake and its jobs have to end


def run(
    plans: list[Plan], missing: list[Instance], *, jobs: int, profile: str | None, console: Console
) -> list[dict[str, str]]:
    """Run the missing instances of all plans together, showing what is done, running and left.

    Returns:
        For each failed instance its ``stage``, ``key``, ``problem`` and ``notebook``.
    """
    store.check_writable()
    files = [save(plan) for plan in plans]
    file = _save(merged(plans), paths.plans())
    log = file.with_suffix(".log")
    command = _command(file, jobs, profile)
    before = _records()
    warmth = warm.serving(missing[0].runtime.get("threads", 1)) if warm.is_safe() else nullcontext({})
    with log.open("w", encoding="utf-8") as out, warmth as env, live.beside(plans, files):
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env, "UNDERSEER_HOME": str(paths.home())},
            process_group=0,
        )
        lifeline = Lifeline([-process.pid])  # a SIGKILL of this process ends Snakemake and its jobs too
        try:
            Watch(missing, console, jobs).follow(process)
        except KeyboardInterrupt as stop:
            _stop(process, patience=STOP if not stop.args else 0)
            raise
        finally:
            lifeline.cut()
    keys = {instance.key for instance in missing}  # another run may work in the same store
    new = {record for record, written in _records().items() if before.get(record) != written}
    failed = [one for one in map(_failure, sorted(new)) if one["key"] in keys]
    if process.returncode != 0 and not failed:
        failed = [{"stage": "snakemake", "key": "", "problem": _ended(process.returncode, log), "notebook": str(log)}]
    return failed


def _ended(code: int, log: Path) -> str:
    """How Snakemake ended by itself: its exit code, the end of its log, and whether the disk is full."""
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
    free = shutil.disk_usage(paths.home()).free
    full = f"; the store's disk has {free // 1024} KiB left" if free < FULL else ""
    return f"exit code {code}{full}\n{tail}"


def _command(file: Path, jobs: int, profile: str | None) -> list[str]:
    """Snakemake for a saved plan. It reads values of ``--config`` as YAML: the plan is named below the store, in plain letters.
    It keeps no cache of sources below HOME, which may not be there."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.home()), "--config", f"plan={file.relative_to(paths.home())}"]
    command += ["--cores", str(jobs), "--shared-fs-usage", *SHARED]
    command += ["--nolock", "--ignore-incomplete", "--drop-metadata", "--keep-going", "--rerun-triggers", "mtime"]
    folder = profile_folder(profile)
    return command + (["--workflow-profile", str(folder)] if folder else [])


def _stop(process: subprocess.Popen, *, patience: float) -> None:
    """End Snakemake and its jobs. A Ctrl-C is passed on, and they get ``patience`` seconds; after that, or where a signal came
    that is no Ctrl-C, they are terminated."""
    import psutil

    if patience:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    left: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        snakemake = psutil.Process(process.pid)
        left = [snakemake, *snakemake.children(recursive=True)]
    for ask, seconds in ((None, patience), (psutil.Process.terminate, STOP), (psutil.Process.kill, STOP)):
        for one in left if ask else ():
            with suppress(psutil.NoSuchProcess):
                ask(one)
        left = psutil.wait_procs(left, timeout=seconds)[1]


def save(plan: Plan) -> Path:
    """Keep the plan in the store, under a hash of its content; ``sync`` reads it later."""
    return _save(plan, paths.plans() / plan.name)


def _save(plan: Plan, folder: Path) -> Path:
    text = plan.as_json()
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


def profile_folder(name: str | None) -> Path | None:
    if name is None:
        return None
    known = sorted(p.parent.name for p in (paths.ROOT / "profiles").glob("*/config.yaml"))
    for folder in (Path(name), paths.ROOT / "profiles" / name):
        if (folder / "config.yaml").is_file():
            return folder.resolve()
    raise UserError(
        f"--profile {name}: no such Snakemake profile; there are {', '.join(known)}, or give a folder with a config.yaml"
    )


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
