"""Run a plan: look for mistakes first, then let Snakemake run what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from underseer import paths
from underseer.engines.lifelines import Lifeline
from underseer.errors import UserError
from underseer.runs import live, warm
from underseer.runs.files import MODELS
from underseer.runs.plan import Instance, Plan, merged
from underseer.runs.watch import Watch

STOP = 20  # seconds that Snakemake and its jobs have to end


def preflight(plan: Plan, missing: Iterable[Instance]) -> list[str]:
    """Everything that can be seen to be wrong with data, models and judges of the stages that are to run.

    Returns:
        Remarks that the user should read, such as the last day of a service.

    Raises:
        UserError: every problem, one line each.
    """
    from underseer.models import loading

    keys = {i.key for i in missing}
    found: dict[str, None] = {}
    remarks: dict[str, None] = {}
    for variant in plan.variants:
        if not keys.intersection(variant["needs"]):
            continue
        for look in _looks(plan.pipeline, with_data=variant["roles"].get("data") in keys):
            p = variant["parameters"]
            _collect(found, lambda p=p, look=look: remarks.update(dict.fromkeys(look(p) or ())))
    read = [(n, v) for k in keys for n, v in plan.instances[k].parameters.items() if v is not None]
    specs = {v for n, v in read if n in MODELS} | {v.removeprefix("trained:") for n, v in read if n == "fluency_model"}
    for spec in sorted(specs):
        _collect(found, lambda spec=spec: loading.preflight(spec))
    if found:
        raise UserError("\n".join(found))
    return list(remarks)


def _looks(pipeline: str, *, with_data: bool) -> list[Callable[[dict[str, Any]], list[str] | None]]:
    """What looks at a variant's parameters before it runs; data that were read already are not looked at again."""
    from underseer import data, judges
    from underseer.selfmoa import checks

    if pipeline == "selfmoa":
        return [checks.preflight]
    return [data.preflight, judges.preflight] if with_data else [judges.preflight]


def _collect(found: dict[str, None], look: Callable[[], Any]) -> None:
    try:
        look()
    except UserError as error:
        found.update(dict.fromkeys(str(error).splitlines()))


def run(
    plans: list[Plan], missing: list[Instance], *, jobs: int, profile: str | None, console: Console
) -> list[dict[str, str]]:
    """Run the missing instances of all plans together, showing what is done, running and left.

    Returns:
        For each failed instance its ``stage``, ``key``, ``problem`` and ``notebook``.
    """
    files = [save(plan) for plan in plans]
    file = files[0] if len(files) == 1 else _save(merged(plans), paths.plans())
    log = file.with_suffix(".log")
    command = _command(file, jobs, profile)
    started = time.time()
    warmth = warm.serving(missing[0].runtime.get("threads", 1)) if warm.is_safe() else nullcontext({})
    with log.open("w", encoding="utf-8") as out, warmth as env, live.beside(plans, files):
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env},
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
    failed = [one for one in failures(started) if one["key"] in keys]
    if process.returncode != 0 and not failed:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-8:])
        problem = f"exit code {process.returncode}\n{tail}"
        failed = [{"stage": "snakemake", "key": "", "problem": problem, "notebook": str(log)}]
    return failed


def _command(file: Path, jobs: int, profile: str | None) -> list[str]:
    """Snakemake for a saved plan."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.home()), "--config", f"plan={file}", "--cores", str(jobs)]
    command += ["--nolock", "--ignore-incomplete", "--drop-metadata", "--keep-going", "--rerun-triggers", "mtime"]
    return command + (["--workflow-profile", str(_profile(profile))] if profile else [])


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
        part = file.with_suffix(f".part{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.rename(file)
    file.touch()
    return file


def saved() -> list[Plan]:
    """The newest saved plan of every experiment."""
    newest: dict[Path, Path] = {}
    for file in sorted(paths.plans().glob("*/*/*.json"), key=lambda f: f.stat().st_mtime):
        newest[file.parent] = file
    return [Plan.from_json(f.read_text(encoding="utf-8")) for _, f in sorted(newest.items())]


def _profile(name: str) -> Path:
    known = sorted(p.parent.name for p in (paths.ROOT / "profiles").glob("*/config.yaml"))
    for folder in (Path(name), paths.ROOT / "profiles" / name):
        if (folder / "config.yaml").is_file():
            return folder.resolve()
    raise UserError(
        f"--profile {name}: no such Snakemake profile; there are {', '.join(known)}, or give a folder with a config.yaml"
    )


def failures(since: float = 0.0) -> list[dict[str, str]]:
    """The stage instances whose newest execution failed, after a moment in seconds since the epoch."""
    found = []
    for told in sorted(paths.runs().glob("*/*/failed/*.json")):
        if told.stat().st_mtime >= since - 1:
            found.append(
                {**json.loads(told.read_text(encoding="utf-8")), "notebook": paths.shown(told.with_suffix(".ipynb"))}
            )
    return found
