"""A chromium for the tests of pages: Playwright drives the one that the system has (``CHROMIUM`` names another)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import ROOT

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
        page.on("pageerror", lambda error: faults.append(str(error)))
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
