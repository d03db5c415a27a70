"""MLflow's server on PostgreSQL: parallel copies, several times over, each run whole and there once. ``make test-postgres``.

PostgreSQL is Debian's; its cluster, MLflow's server and their files are the tests' own and end with them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from test_tracking import command, logged, planned
from underseer import paths
from underseer.runs import tracking

pytestmark = pytest.mark.postgres
STAGES, TIMES = 8, 3
RUNS = STAGES + 3  # with the report, its configuration and its variant
PATIENCE = 300  # seconds, on a busy machine
PASSWORD = "a-secret-of-this-test"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait(process: subprocess.Popen, ready: Callable[[], object], name: str) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None and time.monotonic() < end, f"{name} does not start"
        time.sleep(0.5)


def end(process: subprocess.Popen, number: int) -> None:
    process.send_signal(number)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of the tests' own; its address, with the password in it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.fail("no PostgreSQL: apt-get install postgresql")
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    (folder / "password").write_text(PASSWORD)
    other: dict = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(folder / "password", "postgres", "postgres")
        other = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
    binaries, data = programs[-1].parent, folder / "data"
    options = ["--username=underseer", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
    subprocess.run([binaries / "initdb", "-D", data, *options], check=True, capture_output=True, **other)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [programs[-1], "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder],
            stdout=log,
            stderr=log,
            **other,
        )
    try:
        wait(server, lambda: subprocess.run([binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0, "postgres")  # fmt: skip
        yield f"postgresql://underseer:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        end(server, signal.SIGINT)  # which ends its connections
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[str]:
    """``mlflow server`` on that database; its address."""
    folder, port = Path(tempfile.mkdtemp(prefix="mlflow-")), free_port()
    address = f"http://127.0.0.1:{port}"
    env = {**os.environ, "MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_DISABLE_TELEMETRY": "true"}
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--artifacts-destination", str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *where], env=env, stdout=log, stderr=log)

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
        except OSError:
            return False

    try:
        wait(process, answers, (folder / "log").read_text())
        yield address
    finally:
        end(process, signal.SIGTERM)
        shutil.rmtree(folder)


def test_parallel_copies_log_each_run_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight commands at a time, three times over: four on one store, the others each on a store of its own."""
    homes = [tmp_path / f"store{n}" for n in range(5)]
    plans = []
    for n, home in enumerate(homes):
        monkeypatch.setenv("UNDERSEER_HOME", str(home))
        plans.append(planned(f"test/x{n}", STAGES))
    for _ in range(TIMES):
        started = [command(UNDERSEER_HOME=str(h), MLFLOW_TRACKING_URI=server) for h in homes + 3 * homes[:1]]
        assert [(p.wait(timeout=PATIENCE), p.stderr.read()) for p in started] == [(0, "")] * 8
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        assert [len(logged(plan)) for plan in plans] == [RUNS] * len(plans)


def test_a_copy_that_is_killed_is_completed(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSEER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    import mlflow

    plan, client = planned("test/killed", STAGES), mlflow.MlflowClient(tracking_uri=server)

    def runs() -> int:
        experiment = client.get_experiment_by_name(plan.name)
        return len(client.search_runs([experiment.experiment_id])) if experiment else 0

    process = command()
    wait(process, lambda: runs() >= STAGES // 2, "the copy")
    process.kill()
    process.wait()
    assert not tracking.is_logged(plan)
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS and tracking.is_logged(plan)


def test_no_password_is_shown_or_stored(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight to the database, without a server, with the right password and with a wrong one."""
    monkeypatch.setenv("UNDERSEER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    plan = planned("test/direct", STAGES)
    tracking.sync(plan)
    assert len(logged(plan)) == RUNS and list(tmp_path.glob("mlartifacts/test/direct/*/artifacts/notebook.ipynb"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.replace(PASSWORD, f"wrong-{PASSWORD}"))
    with pytest.raises(tracking.Unreachable) as error:
        tracking.sync(plan)
    stored = "".join(f.read_text() for f in paths.plans().rglob("*") if f.is_file())
    assert PASSWORD not in str(error.value) + stored and len(str(error.value).splitlines()) == 1
