"""How a run starts Snakemake, on this machine or for a cluster, and how it stops it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from underseer import paths, store
from underseer.errors import UserError, short
from underseer.runs import warm
from underseer.runs.plan import Instance

STOP = 20  # seconds that Snakemake and its jobs have to end
SHARED = (
    "input-output",
    "persistence",
    "software-deployment",
    "sources",
    "storage-local-copies",
)  # all but source-cache
WEEK = 7 * 86_400  # seconds


@dataclass(frozen=True)
class Profile:
    """A Snakemake profile: its folder, the executor that it hands jobs to, and how many it hands at a time."""

    folder: Path
    executor: str
    jobs: int | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether jobs run on other machines."""
        return self.executor != "local"


def open_profile(name: str) -> Profile:
    """A profile by its name in ``profiles/`` or by its folder.

    Raises:
        UserError: there is none, its file is not YAML, or the plugin of its executor is not installed.
    """
    known = sorted(p.parent.name for p in (paths.ROOT / "profiles").glob("*/config.yaml"))
    folders = [folder for folder in (Path(name), paths.ROOT / "profiles" / name) if (folder / "config.yaml").is_file()]
    if not folders:
        have = f"there are {', '.join(known)}, or give a folder with a config.yaml"
        raise UserError(f"--profile {name}: no such Snakemake profile; {have}")
    file = folders[0].resolve() / "config.yaml"
    where = f"--profile {name}: {paths.shown(file)}"
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        byte = f"0x{error.object[error.start]:02x}"
        raise UserError(f"{where}: byte {byte} is not UTF-8; convert the file, e.g. with iconv -t utf-8") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: not YAML: {getattr(error, 'problem', None) or type(error).__name__}") from None
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise UserError(f"{where}: {short(settings)}: expected 'key: value' lines, as in profiles/slurm/config.yaml")
    executor, jobs = settings.get("executor", "local"), settings.get("jobs")
    if not isinstance(executor, str) or not re.fullmatch(r"[\w-]+", executor):
        raise UserError(f"{where}: executor = {short(executor)}: expected the name of one, such as slurm")
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise UserError(f"{where}: jobs = {short(jobs)}: expected a whole number from 1, the stages at a time")
    if executor != "local" and not find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}"):
        needed = "make slurm" if executor == "slurm" else f"pip install snakemake-executor-plugin-{executor}"
        raise UserError(f"--profile {name}: the plugin of the executor {executor} is not installed; run: {needed}")
    return Profile(file.parent, executor, jobs)


def environment() -> dict[str, str]:
    """That of Snakemake: it takes a profile from the command line alone."""
    return {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}


@contextmanager
def local(threads: int, stages: int) -> Iterator[dict[str, str]]:
    """The environment of jobs on this machine: a warm process, which pays from two stages on, unless there is one already; and a
    folder for temporary files that a later run removes where this one is killed. It is for local jobs alone: on a cluster's node there is
    neither."""
    warmed = stages > 1 and warm.is_safe() and warm.SOCKET not in os.environ
    with paths.temporary() as folder, warm.serving(threads) if warmed else nullcontext({}) as env:
        yield {**env, "TMPDIR": folder}


def clear() -> None:
    """Remove what runs that were killed have left: their temporary folders, and their ``marks``; those of runs on a cluster after a
    week, since their jobs go on, and leave a mark when they end."""
    warm.sweep()
    for left, folder in store.work_folders(paths.plans()):  # a lock may be alone: Snakemake removes empty folders
        kept = WEEK if folder.name.startswith(".work-cluster-") else 0
        with suppress(OSError):  # another user's stays, and what is in a store that cannot be written to
            if not store.is_working(folder) and left.exists() and time.time() - left.stat().st_mtime >= kept:
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


@contextmanager
def marks(*, cluster: bool) -> Iterator[Path]:
    """A folder of this run alone, where Snakemake sees which stages have ended."""
    name = f"{'cluster' if cluster else 'local'}-{platform.node()}-{os.getpid()}"
    with store.working(paths.plans().name, name) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def at_a_time(jobs: int | None, profile: Profile | None, stages: Iterable[Instance] = ()) -> int:
    """How many stages run at a time: as many as were asked for, else as the profile says, else one on each GPU that ``device`` names
    (several would share its memory, and can run out of it), else as there are cores here."""
    gpus = {device for stage in stages if (device := str(stage.runtime.get("device"))).startswith("cuda")}
    here = len(gpus) if gpus and not (profile and profile.is_cluster) else os.cpu_count()
    return jobs or (profile.jobs if profile else None) or here or 1


def command(plan: Path, folder: Path, jobs: int, profile: Profile | None) -> list[str]:
    """Snakemake for a saved plan. It reads values of ``--config`` as YAML: files are named below the store, in plain letters.
    It keeps no cache of sources below HOME, which may not be there.

    Args:
        plan: the plan's file.
        folder: that of ``marks``.
        jobs: stages at a time, as ``at_a_time`` says.
        profile: None: all runs here.
    """
    arguments = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    files = [f"{name}={path.relative_to(paths.home())}" for name, path in (("plan", plan), ("marks", folder))]
    arguments += ["--directory", str(paths.home()), "--config", *files, "--shared-fs-usage", *SHARED]
    arguments += ["--nolock", "--ignore-incomplete", "--drop-metadata", "--keep-going", "--rerun-triggers", "mtime"]
    limit = "--jobs" if profile and profile.is_cluster else "--cores"  # --cores would limit those of all jobs together
    arguments += [limit, str(jobs)]
    return arguments + (["--workflow-profile", str(profile.folder)] if profile else [])


_ERROR = re.compile(r"^Error in rule \w+:\n {4}message: (.*)\n(?: {4}.*\n)*? {4}output: .*/(\w+)\b", re.MULTILINE)


def errors(log: str) -> dict[str, str]:
    """By the key of a stage instance, what Snakemake's output says of its job that failed: that it was cancelled, for one."""
    return {key: "" if message == "None" else message.split(". ")[0] for message, key in _ERROR.findall(log)}


def stop(process: subprocess.Popen, *, patience: float) -> None:
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
