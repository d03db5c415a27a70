"""Where a data set's file is: a local file, a folder of public files, or a pinned commit of its public
home."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from underseer.data.containers import alike, unpacked
from underseer.data.registry import DatasetInfo, Part, parse, remote_url
from underseer.errors import UserError

TIMEOUT = 30  # seconds without an answer before a download is given up


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, as hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def local_files(dataset: str, path: str | None = None) -> list[Path]:
    """The local files that ``load(dataset, path)`` reads, in the order of the parts; their content decides
    the rows.

    ``dataset`` may name preference pairs and exchanges too. Without ``path`` the list is empty: the rows are then decided by
    the data set's name and the pinned revision, or, where they are generated, by the code and the seed. Raises
    ``UserError`` for an unknown data set or a missing file.
    """
    return [file for file in resolve(parse(dataset, None), path) if file is not None]


def resolve(parts: tuple[Part, ...], path: str | None) -> list[Path | None]:
    """For each part its local file, or None where it is downloaded or generated.

    ``path`` is one file, a folder that holds the public files, or files joined by ``+`` in the order of the
    parts that are read from files.
    """
    readable = [part for part in parts if part.info.reader]
    if not path:
        homeless = [part.info for part in readable if part.info.host is None]
        if homeless:
            raise UserError(
                f"dataset = '{homeless[0].name}': is read from a file alone ({homeless[0].file_format}); give it as dataset_path"
            )
        return [None] * len(parts)
    if not readable:
        raise UserError(f"dataset_path = {path}: '{parts[0].info.name}' is generated and reads no file; leave it empty")
    whole = Path(path).expanduser()
    if whole.is_dir():
        located = iter([_in_folder(whole, part.info) for part in readable])
    else:
        names = [path] if whole.exists() or len(readable) == 1 else [name.strip() for name in path.split("+")]
        if len(names) != len(readable):
            raise UserError(
                f"dataset_path = {path}: {len(names)} file for {len(readable)} data sets "
                f"({', '.join(part.info.name for part in readable)}); give a folder that holds them, "
                "or one per data set joined by '+'"
            )
        located = iter([_file(Path(name).expanduser(), part.info) for name, part in zip(names, readable, strict=True)])
    return [next(located) if part.info.reader else None for part in parts]


def _file(path: Path, info: DatasetInfo) -> Path:
    if path.is_dir():
        return _in_folder(path, info)
    if not path.is_file():
        raise UserError(
            f"dataset_path = {path}: no such file; give the file of '{info.name}' ({info.file_format}), "
            "a path from the current folder or an absolute one"
        )
    return path


def _in_folder(folder: Path, info: DatasetInfo) -> Path:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    matches = [file for file in files if alike(file.name, info.local_names)]
    if not matches:
        wanted = " or ".join(info.local_names)
        raise UserError(f"dataset_path = {folder}: holds no file of '{info.name}'; looked for {wanted}")
    if len(matches) > 1:
        names = ", ".join(file.name for file in matches)
        raise UserError(f"dataset_path = {folder}: {len(matches)} files of '{info.name}' ({names}); name one of them")
    return matches[0]


def revisions(parts: tuple[Part, ...], revision: str | None, path: str | None) -> list[str | None]:
    """The commit of each part: the one given (for a composition joined by ``+``, empty: pinned), or the
    pinned one."""
    if revision and path:
        raise UserError(f"dataset_revision = {revision}: has no effect beside dataset_path; leave one of them empty")
    names = [""] * len(parts) if not revision else [name.strip() for name in revision.split("+")]
    if len(names) != len(parts):
        raise UserError(
            f"dataset_revision = {revision}: {len(names)} given for {len(parts)} data sets; "
            "join one per data set by '+', empty for the pinned one"
        )
    for name, part in zip(names, parts, strict=True):
        if name and part.info.host is None:
            raise UserError(f"dataset_revision = {name}: '{part.info.name}' has no revisions; leave it empty")
        if name and not re.fullmatch(r"[0-9a-f]{40}", name):
            raise UserError(
                f"dataset_revision = {name}: not a commit; give its 40 hex digits, as branches and tags move"
            )
    return [name or part.info.revision for name, part in zip(names, parts, strict=True)]


def fetch(info: DatasetInfo, revision: str) -> Path:
    """The file of a data set at one commit, downloaded once and then kept in the cache.

    Only the published csv or jsonl is read; a data set's loading script is never run. Raises ``UserError``
    when it cannot be reached, saying how to hand in a file instead.
    """
    path = cached(info, revision)
    if path is None:
        if forced_offline():
            raise offline_error(info, revision, "HF_HUB_OFFLINE is set")
        try:
            path = _from_hub(info, revision) if info.host == "hub" else _from_url(info, revision)
        except Exception as error:  # each client has its own exceptions for "no network"
            raise offline_error(info, revision, f"{type(error).__name__} on download") from error
    if info.sha256 and revision == info.revision and sha256(path) != info.sha256:
        raise UserError(
            f"{path}: SHA-256 is not that of '{info.name}' at {revision[:12]}; delete the file and run again"
        )
    return path


def offline_error(info: DatasetInfo, revision: str, reason: str) -> UserError:
    return UserError(
        f"dataset = '{info.name}': cannot be downloaded here ({reason}); where there is a network, run "
        f"`curl -L -O {remote_url(info, revision)}` and give the file as dataset_path"
    )


def cached(info: DatasetInfo, revision: str) -> Path | None:
    """The file of an earlier download, or None."""
    if info.host == "hub":
        from huggingface_hub import try_to_load_from_cache

        located: Any = try_to_load_from_cache(info.repo, info.file, revision=revision, repo_type="dataset")
        return Path(located) if isinstance(located, str) else None
    path = _cache_place(info, revision)
    return path if path.is_file() else None


def forced_offline() -> bool:
    """Whether HF_HUB_OFFLINE asks that nothing be downloaded; it counts for GitHub's files too."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


@cache
def reachable(host: str) -> bool:
    """Whether a host answers within a few seconds (asked once per process)."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(f"https://{host}", method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def host_of(info: DatasetInfo) -> str:
    return str(remote_url(info, "")).split("/")[2]


def _cache_place(info: DatasetInfo, revision: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "underseer" / "data" / info.name / revision / Path(info.file or "").name


def _from_hub(info: DatasetInfo, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(info.repo, info.file, revision=revision, repo_type="dataset"))


def _from_url(info: DatasetInfo, revision: str) -> Path:
    import urllib.request

    place = _cache_place(info, revision)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(str(remote_url(info, revision)), timeout=TIMEOUT) as answer:
            part.write_bytes(answer.read())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
    return place


def read(info: DatasetInfo, path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows, {dataset, file, bytes, sha256}) of one file; the hash is of the very bytes that the rows came
    from."""
    stat = path.stat()
    return _read(info, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(info: DatasetInfo, path: Path, mtime: int, size: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    content = path.read_bytes()
    assert info.reader is not None
    record = {
        "dataset": info.name,
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return info.reader(unpacked(content, str(path), info.local_names), str(path)), record
