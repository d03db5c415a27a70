"""A chromium for the tests of pages: Playwright drives the one that the system has (``CHROMIUM`` names another)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import ROOT, underseer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENS = ROOT / ".browser"
"""Where screenshots go, to be looked at; not in git."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless chromium for the whole session."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no chromium: apt-get install chromium, or set CHROMIUM to the program's path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address or a file at a width in pixels; the test fails where a script of a page ends with an error."""
    faults: list[str] = []
    contexts = []

    def opened(address: str | Path, width: int = 1400, height: int = 1000) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{error}\n{error.stack}"))
        page.goto(address.as_uri() if isinstance(address, Path) else address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults, faults


@pytest.fixture(scope="session")
def shoot() -> Callable[..., Path]:
    """Takes a screenshot ``.browser/NAME.png`` of a page, whole where ``full``; returns its path."""
    SCREENS.mkdir(exist_ok=True)

    def shot(page: Page, name: str, *, full: bool = False) -> Path:
        file = SCREENS / f"{name}.png"
        page.screenshot(path=file, full_page=full)
        return file

    return shot


@pytest.fixture(scope="session")
def demo() -> Path:
    """A store with the demo's experiments for one seed: ``UNDERSEER_BROWSER_STORE``, or ``.browser/store``, made once (minutes)."""
    store = Path(os.environ.get("UNDERSEER_BROWSER_STORE") or SCREENS / "store").resolve()
    done = underseer(store, "run", "params/demo", "--set", "n_seeds=1", timeout=7200)
    assert done.returncode == 0, done.stdout + done.stderr
    return store


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Starts a server of pages (a module with arguments, ``PORT`` among them, and variables of the environment), and waits until
    it answers; returns its address. It ends with the session."""
    with contextlib.ExitStack() as servers:

        def started(*command: str, seconds: float = 300, **env: str) -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            argv = [sys.executable, "-m", *(part.replace("PORT", port) for part in command)]
            process = subprocess.Popen(
                argv, env={**os.environ, **env}, cwd=ROOT, start_new_session=True, preexec_fn=_heed_interrupts
            )
            servers.callback(_stop, process)
            end = time.monotonic() + seconds
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                    return f"http://127.0.0.1:{port}"
                time.sleep(0.5)
            raise AssertionError(f"{' '.join(argv)}: does not answer on port {port}")

        yield started


def _heed_interrupts() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and so would each kernel of a server: none could be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen) -> None:
    """End a server with all its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
