"""A real terminal of any size and kind, in a tmux server of its own: keys go in, the screen comes out as text."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MISSING = "tmux is not installed: `make tmux` (apt install tmux)"


class Terminal:
    """One window. Its size is that of the program in it: there is no status line."""

    def __init__(self, socket: Path, config: Path, status: Path, env: Mapping[str, str]) -> None:
        self._status = status
        self._command = ["tmux", "-S", str(socket), "-f", str(config)]
        self._env = dict(env)

    def tmux(self, *args: str) -> str:
        done = subprocess.run(
            [*self._command, *args], env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        return done.stdout

    @property
    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    @property
    def styled(self) -> str:
        """The same with the escape sequences that make it so."""
        return self.tmux("capture-pane", "-p", "-e")

    def keys(self, *names: str) -> None:
        """Keys as tmux names them: `Down`, `Escape`, `C-c`, or a character."""
        self.tmux("send-keys", *names)

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def until(self, condition: Callable[[str], object], within_s: float = 60.0) -> str:
        deadline = time.monotonic() + within_s
        while not condition(text := self.text):
            assert time.monotonic() < deadline, f"the screen is:\n{text}"
            time.sleep(0.05)
        return text

    def ended(self, within_s: float = 60.0) -> int:
        """The program's exit status, once it has ended. tmux knows it too, but does not always tell it."""
        deadline = time.monotonic() + within_s
        while not self._status.exists():
            assert time.monotonic() < deadline, f"it did not end; the screen is:\n{self.text}"
            time.sleep(0.05)
        return int(self._status.read_text())

    def shows(self, words: str) -> str:
        """The screen, once it has these words."""
        return self.until(lambda text: words in text)

    def no_longer(self, words: str) -> str:
        return self.until(lambda text: words not in text)


@contextmanager
def terminal(
    place: Path,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    columns: int = 80,
    lines: int = 24,
    kind: str = "screen-256color",
) -> Iterator[Terminal]:
    """`command` in a new terminal of this kind, whose socket is in the directory `place`. Ends it, and its tmux."""
    if shutil.which("tmux") is None:
        pytest.skip(MISSING)
    config = place / "tmux.conf"
    config.write_text(
        f"set -g default-terminal {kind}\nset -g status off\nset -g remain-on-exit on\nset -s escape-time 0\n"
        "set -g default-size 80x24\n"
    )
    whole = {name: value for name, value in env.items() if name not in ("TMUX", "TMUX_PANE")}
    status = place / "tmux.status"
    status.unlink(missing_ok=True)
    made = Terminal(place / "tmux.sock", config, status, {"LC_ALL": "C.UTF-8", **whole})
    noting = ["/bin/sh", "-c", '"$@"; echo $? >"$0.new"; mv "$0.new" "$0"', str(status), *command]
    # `env` keeps the program's locale: tmux itself wants one with UTF-8.
    made.tmux("-u", "new-session", "-d", "-x", str(columns), "-y", str(lines), shlex.join(noting))
    pid = int(made.tmux("display-message", "-p", "#{pid}"))
    try:
        yield made
    finally:
        with suppress(subprocess.CalledProcessError):
            made.tmux("kill-server")
        _gone(pid)


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"tmux {pid} did not end")
