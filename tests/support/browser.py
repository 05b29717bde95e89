"""A real Chromium for tests of pages, driven by Playwright: what `make browser` installs."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tools.install_browser import NAMES

FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WITHIN_MS = 20_000


@dataclass
class Opened:
    """One page, and what it said and asked for so far."""

    page: Any  # Playwright's
    said: list[str] = field(default_factory=list)
    """Errors of its console, and those that its scripts raised."""
    asked: list[str] = field(default_factory=list)
    """Requests: method and address, and of those that sent something also that."""


@contextmanager
def browser() -> Iterator[Any]:
    """Playwright's browser; skips the test where there is none."""
    python, program = os.environ.get("CORRAL_TEST_PLAYWRIGHT"), next(filter(None, map(shutil.which, NAMES)), None)
    if python is None or program is None:
        pytest.skip("there is no Chromium with Playwright: `make browser` installs them")
    (packages,) = Path(python).parents[1].glob("lib/python3.*/site-packages")
    sys.path.append(str(packages))
    try:
        playwright = importlib.import_module("playwright.sync_api")
    finally:
        sys.path.remove(str(packages))
    with tempfile.TemporaryDirectory() as place, playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=FLAGS, env={**os.environ, "HOME": place})
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(browser: Any, url: str, *, wait: str = "load") -> Iterator[Opened]:
    """`url` in a window of its own, that knows nothing of others, once it is there; `commit`: once it begins to
    come, for one that never ends."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda each: found.said.append(each.text) if each.type == "error" else None)
    page.on("pageerror", lambda each: found.said.append(str(each)))
    page.on("request", lambda each: found.asked.append(" ".join([each.method, each.url, each.post_data or ""])))
    try:
        page.goto(url, wait_until=wait)
        yield found
    except BaseException:
        seen = page.inner_text("body")[:2000]
        asked = [each[:200] for each in found.asked[-12:]]
        sys.stderr.write(f"--- the page shows:\n{seen}\n--- it said: {found.said[-5:]}\n--- it asked: {asked}\n")
        if (folder := os.environ.get("CORRAL_TEST_PICTURES")) is not None:
            page.screenshot(path=f"{folder}/page-{os.getpid()}.png")
        raise
    finally:
        context.close()
