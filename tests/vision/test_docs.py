"""What docs/vision.md shows is what happens, with the tests' model behind a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corral.config.paths import Paths
from support.detecting import TINY, encoded, scene
from support.pages import ROOT, commands
from support.server import Server

PAGE = ROOT / "docs" / "vision.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_does_what_it_shows(paths: Paths, short_tmp: Path) -> None:
    """Each command of the page prints what the page shows."""
    place = short_tmp / "here"
    place.mkdir()
    (place / "shapes.png").write_bytes(encoded(scene(65, 160, 160).image))
    marked = short_tmp / "vision.md"
    marked.write_text(PAGE.read_text(encoding="utf-8").replace("<!-- run with a detector -->", "<!-- run -->"))
    typed = commands(marked)
    assert len(typed) > 4
    with Server(paths, f"models: [{{name: shapes, source: {TINY}, engine: detector}}]") as server:
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = server.environment | {"PATH": search, "NO_COLOR": "1", "COLUMNS": "100"}
        for command in typed:
            text = command.text.replace("127.0.0.1:8642", server.url.removeprefix("http://"))
            done = subprocess.run(
                ["/bin/sh", "-c", text], cwd=place, env=env, stdin=subprocess.DEVNULL, text=True, timeout=120,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            assert done.returncode == command.exit_code, f"$ {text}\n{done.stdout}"
            wanted = command.mismatch(done.stdout)
            assert wanted is None, f"$ {text}\n{done.stdout}does not show the line: {wanted}"
    assert (place / "found.png").read_bytes().startswith(b"\x89PNG")
    assert (place / "found.jpg").read_bytes().startswith(b"\xff\xd8\xff")
