"""Shared by all tests: a store of one's own, and one finished run of the test experiment."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from underseer import store
from underseer.runs import warm

ROOT = Path(__file__).resolve().parents[1]
PUBLIC_DATA = ROOT.parent / "shared" / "data"
REPORTS = {"w2s": ROOT / "notebooks/w2s/5_report.ipynb", "selfmoa": ROOT / "notebooks/selfmoa/6_report.ipynb"}
NOTHING = {name: {} for name in ("parameters", "inputs", "hashes", "metrics", "cost", "marks", "files")}
"""What every manifest holds, beside its stage."""
TEST_PARAMS = ROOT / "params" / "test" / "w2s_safety.yaml"

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as a stage has it: the same results on any machine, a core a worker
os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a hub
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as ``tracking`` sets it, before MLflow is imported
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Else each of hundreds of commands compiles the library, and parses it for its keys, anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


ALSO_PRELOADED = ("mlflow.store.tracking.sqlalchemy_store", "seaborn", "nbconvert.exporters")
"""What commands import that stages do not."""
LONGEST = ("pipeline", "pipeline_selfmoa", "pipeline_tasks", "scratch", "leaks_rehearsal", "tracking", "things_added",
           "report_selfmoa", "environment")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is at one of them when the others have ended.

    For ``--no-loadscope-reorder``: else pytest-xdist begins with the files of many tests.
    """
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@cache
def warmed(library: Path | None = None) -> dict[str, str]:
    """The environment of a warm process that the commands, stages and kernels of this test process share: starting one takes longer
    than most of them. For a copy of the library that tests edit, a process of its own, which has imported other libraries alone."""
    servers = ExitStack()
    atexit.register(servers.close)
    with pytest.MonkeyPatch.context() as patch:
        if library:
            patch.setenv("PYTHONPATH", str(library))
        names = (*warm.PRELOADED, *ALSO_PRELOADED)
        return servers.enter_context(warm.serving(1, tuple(n for n in names if not (library and "underseer" in n))))


def underseer(home: Path, *args: object, cold: bool = False, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run the command line with a store of its own: in a fork of the warm process, or ``cold``, as a user does."""
    env = {**os.environ, "UNDERSEER_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
    # A process that is there takes no limits over, and what runs elsewhere needs none here.
    cold |= "--profile" in args or "preexec_fn" in kwargs
    start = [] if cold else ["underseer.runs.warm", "run"]
    command = [sys.executable, "-m", *start, "underseer.runs.cli", *map(str, args)]
    kwargs = {"cwd": ROOT, "timeout": 900, **kwargs}
    return subprocess.run(command, capture_output=True, text=True, env=env | ({} if cold else warmed()), **kwargs)


@pytest.fixture(scope="module")
def warm_kernels() -> Iterator[None]:
    """Kernels that the tests of a module start are forks of the warm process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in warmed().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def rendered(results: dict, tmp_path_factory: pytest.TempPathFactory, warm_kernels: None) -> Path:
    """The report of the ``results`` of a module, as it is rendered from their file alone."""
    from underseer.report import page  # not before the variables above are set

    folder = tmp_path_factory.mktemp("reports") / results["name"]
    page.render(REPORTS[results["pipeline"]], json.loads(json.dumps(results)), folder)
    return folder


def outputs(home: Path, stage: str) -> list[store.Output]:
    """The outputs of a stage in a store."""
    return [o for o in store.outputs(home / "runs") if o.manifest["stage"] == stage]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for this test."""
    monkeypatch.setenv("UNDERSEER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The HTML that a report's cells show, in order, without a kernel."""
    parts: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda part: parts.append(part.data))
    return parts


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Callable[..., str]]:
    """A copy of notebooks, parameters and library that a test may change, and what a fresh Python that imports it prints."""
    for name in ("notebooks", "params", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))

    def printed(script: str, *args: str) -> str:
        env = {"PYTHONPATH": str(tmp_path / "src" / "lib"), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", script, *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    return tmp_path, printed


def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after a whole run of an experiment, made once, by the test process that needs it first; none changes it."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / f"whole_{file.stem}"
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            done = underseer(home, "run", file)
            assert done.returncode == 0, done.stdout + done.stderr
            (home / "done").touch()
    return home


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after a whole run of params/test/w2s_safety.yaml."""
    return whole(TEST_PARAMS, tmp_path_factory)


@pytest.fixture(scope="session")
def legal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after a whole run of params/test/w2s_legal.yaml."""
    return whole(TEST_PARAMS.with_name("w2s_legal.yaml"), tmp_path_factory)
