"""`corral top` as people use it: real keys in a real terminal (tmux), a real server, the embedded demo model."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from corral.config.paths import Paths
from support.server import Server, until
from support.tmux import Terminal, terminal

CONFIG = """\
models:
  - {name: demo, source: 'builtin:demo', idle_timeout: 1h}
  - {name: spare, source: 'builtin:demo'}
"""
TOP = [sys.executable, "-m", "corral", "top"]


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, CONFIG) as running:
        yield running


def top(
    server: Server, place: Path, *, columns: int = 80, lines: int = 24, kind: str = "screen-256color",
    env: dict[str, str] | None = None,
) -> AbstractContextManager[Terminal]:  # fmt: skip
    return terminal(place, TOP, env={**server.environment, **(env or {})}, columns=columns, lines=lines, kind=kind)


def row(text: str, model: str) -> str:
    """The line of the table that is about the model."""
    return next((line for line in text.splitlines() if line[2:].startswith(f"{model} ")), "")


def state(server: Server, model: str) -> str:
    """As the server says; one that never ran it does not list."""
    return next((unit.state for unit in server.client.units() if unit.model == model), "stopped")


def test_a_model_is_started_watched_and_stopped_with_keys(server: Server, short_tmp: Path) -> None:
    """Started with a key and seen ready; its log followed, its story read; another order; stopped; and left, which
    gives the terminal back as it was."""
    with top(server, short_tmp) as screen:
        text = screen.until(lambda text: "▶ demo" in text and "q quit" in text)
        assert "○ stopped" in row(text, "demo") and re.search(r"^cpu +[█▓▒·]+", text, re.MULTILINE)
        assert text.splitlines()[-1].strip().startswith("s start  x stop  r restart")
        screen.keys("s")
        screen.until(lambda text: "● ready" in row(text, "demo"))
        assert state(server, "demo") == "ready" and state(server, "spare") == "stopped"
        screen.shows("loading → ready")
        screen.keys("l")
        screen.shows("log of demo")
        said = server.client.logs("demo", 1)[0]
        screen.shows(" ".join(said.split()[:3]))
        screen.keys("Escape")
        screen.shows("MODEL")
        screen.keys("y")
        text = screen.shows("story of demo")
        screen.shows("Start 1,")
        screen.keys("q")
        screen.shows("MODEL")
        screen.keys("o")
        screen.shows("sorted by state")
        screen.until(lambda text: text.index("  spare") > text.index("▶ demo"))
        screen.keys("i")
        screen.until(lambda text: text.index("  spare") < text.index("▶ demo"))
        screen.keys("x")
        screen.until(lambda text: "○ stopped" in row(text, "demo"))
        assert state(server, "demo") == "stopped"
        screen.keys("q")
        assert screen.ended() == 0
        assert "MODEL" not in screen.text


@pytest.mark.long
@pytest.mark.parametrize(("kind", "env"), [("vt100", {}), ("screen", {"NO_COLOR": "1"})])
def test_a_monochrome_terminal_shows_the_same(server: Server, short_tmp: Path, kind: str, env: dict[str, str]) -> None:
    """No colours are sent; marks and words say what they would. A vt100 gets ASCII only."""
    with top(server, short_tmp, kind=kind, env=env) as screen:
        text = screen.until(lambda text: ("> demo" if kind == "vt100" else "▶ demo") in text and "q quit" in text)
        assert text.isascii() is (kind == "vt100")
        assert not re.search(r"\x1b\[[0-9;]*\b(3[0-7]|38|4[0-7]|48|9[0-7])\b", screen.styled)
        assert "\x1b[" in screen.styled  # bold and reversed are there
        screen.keys("s")
        screen.until(lambda text: re.search(r"[*●] ready", row(text, "demo")))
        screen.keys("x")
        screen.until(lambda text: re.search(r"[o○] stopped", row(text, "demo")))
        screen.keys("C-c")
        assert screen.ended() == 0


@pytest.mark.long
def test_a_larger_terminal_and_a_new_size(server: Server, short_tmp: Path) -> None:
    """More columns in a wider one; a window that shrinks keeps the models and the keys."""
    with top(server, short_tmp, columns=150, lines=45) as screen:
        text = screen.until(lambda text: "▶ demo" in text and "q quit" in text)
        assert "DEVICE" in text and "ERRORS" in text and len(text.splitlines()) == 45
        screen.resize(60, 15)
        text = screen.until(lambda text: "DEVICE" not in text and "▶ demo" in text and "s start" in text)
        assert max(len(line) for line in text.splitlines()) <= 60
        screen.keys("?")
        screen.shows("choose a model")


@pytest.mark.long
def test_a_server_that_is_killed_and_started_again(paths: Paths, short_tmp: Path) -> None:
    """It says that the server is gone and what to do, starts none by itself, and goes on with the next."""
    with Server(paths, CONFIG) as server, top(server, short_tmp) as screen:
        screen.shows("▶ demo")
        screen.keys("s")
        screen.until(lambda text: "● ready" in row(text, "demo"))
        server.kill()
        screen.until(lambda text: "corral serve" in text and "trying again" in text and "demo" in text)
        screen.keys("x")
        screen.shows("no server answers")
        assert not server.client.answers()
        server.start()
        screen.shows(f"the server was started again: process {server.pid}")
        screen.until(lambda text: "● ready" in row(text, "demo") and "trying again" not in text)
        screen.keys("x")
        until(lambda: state(server, "demo") == "stopped", "demo to be stopped")


@pytest.mark.long
def test_a_busy_model_is_asked_about(server: Server, short_tmp: Path) -> None:
    """What runs goes on when the answer is no."""
    with asking(server, "demo"), top(server, short_tmp) as screen:
        screen.until(lambda text: "● ready" in row(text, "demo") and " 0 busy" not in text)
        screen.keys("x")
        screen.until(lambda text: re.search(r"demo (answers|has) \d", text) and "y yes  n no" in text)
        screen.keys("n")
        screen.shows("nothing was done")
        assert state(server, "demo") == "ready"


@contextmanager
def asking(server: Server, model: str) -> Iterator[None]:
    """Several at a time ask the model, one question after the other, so that it is always busy."""
    over = threading.Event()

    def ask() -> None:
        question = [{"role": "user", "content": "tell me everything"}]
        while not over.is_set():
            with closing(server.client.chat_stream(model, question, max_tokens=500, ignore_eos=True)) as pieces:
                for _ in pieces:
                    if over.is_set():
                        return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
