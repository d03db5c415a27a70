"""The run store: one folder a finished stage instance, moved into its place whole, its manifest written last.

``runs/<pipeline>/<stage>/<key>/manifest.json`` names every file with size and SHA-256. A folder without a manifest does
not exist. A stage works in ``.work-<key>`` beside its place and holds a lock on ``.work-<key>.lock``, so that two runs never
work on the same instance; what a killed run left there is dropped, except training checkpoints. The files of a finished instance
are read-only. Exploratory results lie in ``scratch/``, outside this store: nothing here lists them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from underseer import manifests, paths
from underseer.errors import StageError, UserError

MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Output:
    """The outputs of a finished stage instance."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Raises ``StageError`` where the file holds no manifest."""
        manifest = manifests.read(self.path / MANIFEST)
        if manifest is None:
            place = paths.shown(self.path)
            raise StageError(f"{place}/{MANIFEST}: not a manifest; remove {place} and run the same command again")
        return manifest

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def name(self) -> str:
        """How manifests name this output: ``stage/key``, or ``scratch/stage/key`` for an exploratory result."""
        name = f"{self.manifest['stage']}/{self.key}"
        return f"{paths.SCRATCH}/{name}" if self.is_scratch else name

    @property
    def is_scratch(self) -> bool:
        """Whether a notebook that was run by hand made it."""
        return self.manifest["marks"].get("scratch", False)

    @property
    def parameters(self) -> dict[str, Any]:
        return self.manifest["parameters"]

    @property
    def inputs(self) -> dict[str, str]:
        """By key, the names of the outputs that this one was made from."""
        names = [name for filling in self.manifest["inputs"].values() for name in filling]
        return {name.rpartition("/")[2]: name for name in names}

    @property
    def seconds(self) -> float | None:
        """How long the stage took; None of what no stage made, such as a model that was dequantised."""
        return self.manifest["cost"].get("seconds")

    @property
    def metrics(self) -> dict[str, float]:
        return self.manifest["metrics"]

    def has(self, name: str) -> bool:
        """Whether the stage saved a file or folder of that name."""
        return (self.path / name).exists()

    def table(self, name: str):
        """A table saved by the stage, as a pandas DataFrame."""
        import pandas as pd

        return pd.read_parquet(self.file(f"{name}.parquet"))

    def json(self, name: str) -> Any:
        """What the stage saved as ``<name>.json``."""
        return json.loads(self.file(f"{name}.json").read_text(encoding="utf-8"))

    def file(self, name: str) -> Path:
        """The path of a file or folder that the stage saved.

        Raises:
            StageError: when the stage saved nothing of that name.
        """
        path = self.path / name
        if not path.exists():
            held = ", ".join(sorted({f.split("/")[0] for f in self.manifest["files"]}))
            raise StageError(f"{paths.shown(self.path)}: holds no '{name}'; it holds {held}")
        return path


def read(stage: str, key: str) -> Output | None:
    """The outputs of a stage instance, or None when it has not finished."""
    path = paths.place(stage, key)
    return Output(path) if (path / MANIFEST).is_file() else None


def locate(name: str, home: Path) -> Output:
    """The output that a manifest in the store at ``home`` names, as ``Output.name`` does."""
    return Output(home / name if name.startswith(f"{paths.SCRATCH}/") else home / "runs" / name)


def outputs(root: Path | None = None) -> Iterator[Output]:
    """Every finished stage instance at or below ``root`` (default: the whole store)."""
    for manifest in sorted((root or paths.runs()).rglob(MANIFEST)):
        if not any(part.startswith(".") for part in manifest.relative_to(root or paths.runs()).parts):
            yield Output(manifest.parent)


def readable() -> Iterator[Output]:
    """The outputs of the whole store whose manifests can be read: a damaged one says nothing, and ``verify`` names it."""
    for output in outputs():
        try:
            output.manifest  # noqa: B018 (it is read once and kept)
        except StageError:
            continue
        yield output


@contextmanager
def working(stage: str, key: str) -> Iterator[Path]:
    """The locked work folder of a stage instance, emptied of all but its checkpoints.

    Waits while another process works on the same instance, which may have finished it then: the caller looks for the
    manifest first.
    """
    folder = paths.work(stage, key)
    lock = _lock_file(folder)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if lock.exists() and lock.stat().st_ino == os.fstat(handle).st_ino:
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    try:
        folder.mkdir(exist_ok=True)  # the process before this one may have moved it to its place
        for path in folder.iterdir():
            if path.name != CHECKPOINTS:
                remove(path)
        yield folder
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _lock_file(folder: Path) -> Path:
    """The lock of a work folder: a file, since network file systems lock no folders for other machines."""
    return folder.with_name(f"{folder.name}.lock")


def is_working(folder: Path) -> bool:
    """Whether a living process holds the lock of a work folder."""
    try:
        handle = os.open(_lock_file(folder), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def work_folders(root: Path, pattern: str = "") -> list[tuple[Path, Path]]:
    """Every work folder and every lock below ``root/pattern``, each with the work folder that it belongs to."""
    return [(p, p.with_name(p.name.removesuffix(".lock"))) for p in sorted(root.glob(f"{pattern}.work-*"))]


def at_work() -> list[tuple[str, str, Path]]:
    """The stage instances that living processes work on: stage, key and work folder of each."""
    folders = [path for path, folder in work_folders(paths.runs(), "*/*/") if path == folder and is_working(folder)]
    return [("/".join(f.parts[-3:-1]), f.name.removeprefix(".work-"), f) for f in folders]


def seal(folder: Path, place: Path, record: dict[str, Any]) -> Output:
    """Write the manifest of a work folder and move the folder to its place, its files read-only.

    Args:
        folder: the work folder; its checkpoints are dropped.
        place: where it goes; what stands there without a manifest is removed.
        record: the manifest without its ``files``.
    """
    write_manifest(folder, record)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & ~0o222)
    if place.exists() and not (place / MANIFEST).is_file():
        remove(place)
    if place.exists():
        remove(folder)
    else:
        folder.rename(place)
    return Output(place)


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all; its folder is made. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of ``folder`` once it is filled; where that fails ``folder`` stays as it is."""
    fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    """Drop the checkpoints of a folder and write its manifest: ``record``, and every file with size and SHA-256."""
    remove(folder / CHECKPOINTS)
    held = [p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MANIFEST]
    files = {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in held}
    write_text(folder / MANIFEST, json.dumps({**record, "files": files}, indent=1, sort_keys=True) + "\n")


def verify(root: Path | None = None) -> tuple[int, list[str]]:
    """Recompute every checksum at or below ``root``: the number of instances read, and a line for each damaged file."""
    allowed = f"give a folder of {paths.shown(paths.runs())}, or none for all of it"
    if root is not None and not root.is_dir():
        raise UserError(f"{root}: {'no folder' if root.exists() else 'no such folder'}; {allowed}")
    there = list(outputs(root))
    return len(there), [line for output in there for line in damage(output)]


def damage(output: Output, endings: tuple[str, ...] = ("",)) -> list[str]:
    """A line for each file (with one of these ``endings``) that is missing, differs from the manifest, or is not in it."""
    try:
        files = output.manifest["files"]
    except StageError:
        return [f"{paths.shown(output.path / MANIFEST)}: not a manifest"]
    lines = []
    for name, record in ((name, record) for name, record in files.items() if name.endswith(endings)):
        path = output.path / name
        if not path.is_file():
            lines.append(f"{paths.shown(path)}: missing")
        elif path.stat().st_size != record["bytes"] or sha256(path) != record["sha256"]:
            lines.append(f"{paths.shown(path)}: differs from its manifest")
    extra = {str(p.relative_to(output.path)) for p in output.path.rglob("*") if p.is_file()} - {*files, MANIFEST}
    return lines + [
        f"{paths.shown(output.path / name)}: not in the manifest" for name in sorted(extra) if name.endswith(endings)
    ]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
