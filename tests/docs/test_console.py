"""The console blocks that are marked `<!-- run -->`, typed into a shell beside a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corral.config.paths import Paths
from support.pages import ROOT, commands, pages
from support.server import Server

RUNNABLE = [page for page in pages() if commands(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_does_what_it_shows(page: Path, paths: Paths, short_tmp: Path) -> None:
    """Each command of the page exits as the page says and prints what the page shows, with a server up."""
    if shutil.which("curl") is None and any("curl " in command.text for command in commands(page)):
        pytest.skip("curl is not installed")
    place = short_tmp / "here"
    place.mkdir()
    with Server(paths) as server:
        server.file.unlink()  # a newcomer has none; the server has read it
        address = server.url.removeprefix("http://")
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = server.environment | {"PATH": search, "NO_COLOR": "1", "COLUMNS": "100"}
        for command in commands(page):
            typed = command.text.replace("127.0.0.1:8642", address)
            done = subprocess.run(
                ["/bin/sh", "-c", typed], cwd=place, env=env, stdin=subprocess.DEVNULL, text=True, timeout=60,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            where = f"{page.name}:{command.line}: $ {command.text}\n{done.stdout}"
            assert done.returncode == command.exit_code, f"{where}exit code {done.returncode}"
            wanted = command.mismatch(done.stdout)
            assert wanted is None, f"{where}does not show the line: {wanted}"


def test_there_are_pages_to_run() -> None:
    """At least the README and the quick start are run, so that a changed marker does not pass for a good page."""
    assert {"README.md", "quickstart.md"} <= {page.name for page in RUNNABLE}
