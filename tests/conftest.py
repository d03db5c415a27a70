"""Shared by all tests: a store of one's own, and one finished run of the test experiment."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from underseer.runs import warm

ROOT = Path(__file__).resolve().parents[1]
PUBLIC_DATA = ROOT.parent / "shared" / "data"
REPORTS = {"w2s": ROOT / "notebooks/w2s/5_report.ipynb", "selfmoa": ROOT / "notebooks/selfmoa/6_report.ipynb"}
TEST_PARAMS = ROOT / "params" / "test" / "w2s_safety.yaml"

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as a stage has it: the same results on any machine, a core a worker
os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a hub
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Else each of hundreds of commands compiles the library, and parses it for its keys, anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


RUN_EXPERIMENTS = "pipeline pipeline_selfmoa pipeline_tasks scratch leaks_rehearsal tracking things_added".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that run whole experiments come first, so that no worker is at one of them when the others have ended.

    For ``--no-loadscope-reorder``: else pytest-xdist begins with the files of many tests.
    """
    order = {f"test_{name}": place for place, name in enumerate(RUN_EXPERIMENTS)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@cache
def warmed() -> dict[str, str]:
    """The environment of a warm process that all runs of this test process share: starting one takes longer than most stages."""
    servers = ExitStack()
    atexit.register(servers.close)
    return servers.enter_context(warm.serving(1))


def underseer(home: Path, *args: object, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run the command line with a store of its own."""
    env = {**os.environ, "UNDERSEER_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
    # A process that is there takes no limits over, and what runs elsewhere needs none here.
    if args[:1] == ("run",) and "--profile" not in args and "preexec_fn" not in kwargs:
        env |= warmed()
    command = [sys.executable, "-m", "underseer.runs.cli", *map(str, args)]
    kwargs = {"cwd": ROOT, "timeout": 900, **kwargs}
    return subprocess.run(command, capture_output=True, text=True, env=env, **kwargs)


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after a whole run of params/test/w2s_safety.yaml; tests that use it must not change it.

    They stand in one file, so that one worker makes it, once (``--dist loadfile``).
    """
    home = tmp_path_factory.mktemp("store")
    done = underseer(home, "run", TEST_PARAMS)
    assert done.returncode == 0, done.stdout + done.stderr
    return home
