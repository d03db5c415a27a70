"""MLflow: opens the tracking store that people compare runs in, and copies plans into it.

The run store is the truth; MLflow holds a copy. Copying is idempotent, one process at a time copies from a store, and whatever
goes wrong with MLflow is one line, never a stage that fails. Only this module and ``mlflow_runs`` know MLflow.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus, urlparse

from underseer import paths, store
from underseer.runs import mlflow_view
from underseer.runs.mlflow_runs import LAYOUT, Copy
from underseer.runs.plan import Plan

SQLITE = "sqlite:///"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
"""Where a server listens whose address names no port."""
DATABASES = ("postgresql", "mysql", "mssql")
"""Servers that MLflow reaches through SQLAlchemy."""


class Unreachable(Exception):
    """MLflow cannot be used now; the message says why in one line, without a password."""


def uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the store's own sqlite file by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{paths.home() / 'mlflow.db'}"


def sync(plan: Plan) -> int:
    """Log what MLflow misses of a plan's finished stages; returns the number of runs logged.

    Raises:
        Unreachable: whatever goes wrong with MLflow: no server, no driver, a broken database, no permission.
    """
    address = uri()
    try:
        with _lock():
            _reachable(address)
            mlflow = _quiet_mlflow()
            _create_database(mlflow, address)
            local = urlparse(address).scheme not in ("http", "https")  # else the server keeps the artifacts
            state = json.dumps(_state(plan))  # what finishes from here on may be missed: the next call logs it
            logged = Copy(mlflow.MlflowClient(tracking_uri=address), plan, local=local).all()
            store.write_text(_note(plan), state)
    except Exception as error:  # MLflow is a copy: no failure of it, of its driver or its database may end a run
        raise Unreachable(_one_line(error, address)) from None
    return logged


def is_logged(plan: Plan) -> bool:
    """Whether all that has finished of a plan was logged to the present tracking URI, as far as this store knows."""
    note, file = _note(plan), _file(uri())
    if file is not None and not file.exists():
        return False
    return note.is_file() and note.read_text(encoding="utf-8") == json.dumps(_state(plan))


def views(base: str) -> dict[str, str]:
    """By experiment, the address of its view below a server's address; of a rerun also that of its configurations compared with
    those of its file's own experiment, or where that has not run with those of the file's first rerun.

    Raises:
        Unreachable: as for ``sync``.
    """
    try:
        _reachable(uri())
        mlflow = _quiet_mlflow()
        client = mlflow.MlflowClient(tracking_uri=uri())
        experiments = {e.name: e for e in client.search_experiments() if mlflow_view.TAG in e.tags}
    except Exception as error:
        raise Unreachable(_one_line(error, uri())) from None
    addresses = {}
    for name, one in sorted(experiments.items()):
        addresses[name] = mlflow_view.address(base, one.experiment_id)
        file = name.partition("@")[0]
        reruns = [e for n, e in experiments.items() if n.partition("@")[0] == file]
        own = experiments.get(file) or min(reruns, key=lambda e: int(e.experiment_id))
        if own is not one:
            ids = [own.experiment_id, one.experiment_id]
            runs = client.search_runs(ids, "tags.kind = 'configuration'", order_by=["attributes.start_time"])
            addresses[f"{name} beside {own.name}"] = mlflow_view.beside(base, ids, [run.info.run_id for run in runs])
    return addresses


def _one_line(error: Exception, address: str) -> str:
    """What went wrong, in a line that holds no password."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    for secret in sorted(_secrets(address), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(address: str) -> set[str]:
    """What an address holds that nobody is to read, as it is written and decoded: its password, the parts that a parser sees where
    characters in it are not encoded, and query parameters. Of an address that cannot be parsed, too."""
    user, _, _ = address.partition("://")[2].rpartition("@")
    password = user.partition(":")[2]
    given = {password, *(part for part in re.split(r"[/?#@:]", password) if len(part) > 2)}
    given |= set(re.findall(r"[?&][^=&]*(?:pass|pwd|token|secret|key)[^=&]*=([^&#]+)", address, re.IGNORECASE))
    return (given | {unquote(one) for one in given} | {unquote_plus(one) for one in given}) - {""}


def _file(address: str) -> Path | None:
    """The file of an sqlite database, None for a server."""
    return Path(address.removeprefix(SQLITE)) if address.startswith(SQLITE) else None


def _note(plan: Plan) -> Path:
    return paths.plans() / plan.name / ".logged"


def _state(plan: Plan) -> list[str]:
    """What was logged, and where to: the address only as a hash, since it may hold a password."""
    done = sorted(i.key for i in plan.instances.values() if i.cached)
    where = hashlib.sha256(uri().encode()).hexdigest()
    return [LAYOUT, where, json.dumps([v["values"] for v in plan.variants]), *done]


@contextmanager
def _lock() -> Iterator[None]:
    """One process at a time copies from this store; the others wait. The lock ends with its process."""
    paths.plans().mkdir(parents=True, exist_ok=True)
    with (paths.plans() / ".mlflow.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _create_database(mlflow: Any, address: str) -> None:
    """Make the sqlite file aside and rename it when it is whole: a creation that is killed half-way leaves nothing, so that its
    hundreds of commits need not wait for the disk."""
    from sqlalchemy import Engine, event

    file = _file(address)
    if file is None or file.exists():
        return
    part = file.with_name(f".{file.name}.part")
    for left in (part, part.with_name(f"{part.name}-journal")):
        left.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    event.listen(Engine, "connect", _unsynced)
    try:
        mlflow.MlflowClient(tracking_uri=f"{SQLITE}{part}").search_experiments()
    finally:
        event.remove(Engine, "connect", _unsynced)
    with part.open("rb") as whole:
        os.fsync(whole)
    part.rename(file)


def _unsynced(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _reachable(address: str) -> None:
    """Fail within seconds where nothing listens, or where a database lets nobody in; MLflow's own retries take minutes."""
    parts = urlparse(address)
    scheme = parts.scheme.partition("+")[0]
    port = parts.port or PORTS.get(scheme)
    if parts.hostname and port:
        try:
            with closing(socket.create_connection((parts.hostname, port), timeout=5)):
                pass
        except OSError as error:
            raise Unreachable(f"{parts.hostname}:{port}: {error}") from None
    if scheme in DATABASES:
        import sqlalchemy

        sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool).connect().close()


def _quiet_mlflow() -> Any:
    """MLflow, patient for seconds and not for minutes, silent about its own set-up, and telling nobody of its use. Each call waits for
    its answer: what is logged in the background can fail without an error."""
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow
