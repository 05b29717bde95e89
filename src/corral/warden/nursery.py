"""The warden's half of the nursery: one child that forks engines of one kind, so that their library is loaded already.

One child of it, the *spare*, waits to become an engine; when it is taken the next is asked for. The nursery is an
optimisation and nothing else: where there is no spare, an engine is spawned plainly.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import time

from . import kernel
from .birth import MAX_ORDER_BYTES, NO_MARK
from .journal import note
from .protocol import Refused
from .spawn import outcome, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AFTER_BIRTH_S = 0.05
"""An engine that begins to load has the processor to itself for so long before the next spare is made."""

SPARE_AGAIN_S = 1.0
"""After a spare that ended, or never came, the next is asked for so much later."""

LONG_LIFE_S = 60.0
MAX_SHORT_LIVES = 5
"""So many ends in a row within `LONG_LIFE_S` of a start, and it is not started again."""


class Nursery:
    """`watch` and `unwatch` are as in `Engines`."""

    def __init__(self, watch: Callable[[int, Callable[[], None]], None], unwatch: Callable[[int], None]) -> None:
        self._watch, self._unwatch = watch, unwatch
        self._argv: list[str] = []
        self._stands_for: list[str] = []
        self._env: dict[str, str] = {}
        self.pid = 0
        self.state = "none"  # "none", "starting", "ready" or "unfit"
        self.why = "nobody asked for one"
        self.pss_kb = 0
        self._link: socket.socket | None = None
        self._began = 0.0
        self._short_lives = 0
        self._again_at: float | None = None  # monotonic
        self._spare: socket.socket | None = None
        self._spare_pid = 0  # not known until it has said so
        self._spare_at: float | None = None  # monotonic

    @property
    def pids(self) -> set[int]:
        """Its processes that are not engines yet."""
        return {self.pid, self._spare_pid}

    def as_json(self) -> dict[str, Any]:
        return {
            "state": "ready" if self._spare_pid else "starting" if self.state == "ready" else self.state,
            "pid": self.pid,
            "why": self.why,
            "pss_kb": self.pss_kb,
        }

    def open(self, argv: list[str], stands_for: list[str], env: dict[str, str]) -> None:
        """Has one started in the background, for engines whose argv begins with `stands_for` and whose environment is
        `env`. One that is there already for the same stays; one for others is ended."""
        if not kernel.LINUX:
            self.state, self.why = "unfit", "this system does not hand orphans to the warden"
            return
        if (argv, stands_for, env) == (self._argv, self._stands_for, self._env) and self.state in ("starting", "ready"):
            return
        self.close("another one is wanted")
        self._argv, self._stands_for, self._env = argv, stands_for, env
        self._short_lives = 0
        self._start()

    def bear(self, argv: list[str], env: dict[str, str], cwd: str, log: str, mark: str) -> tuple[int, int] | None:
        """An engine of the spare: what `spawn` returns. None when there is no spare, or not for such an engine."""
        link, pid = self._spare, self._spare_pid
        if link is None or not pid or argv[: len(self._stands_for)] != self._stands_for or env != self._env:
            return None
        order = json.dumps({"argv": argv, "cwd": cwd, "log": log, "mark": mark}).encode()
        if len(order) > MAX_ORDER_BYTES:
            return None
        try:
            link.send(order)
        except OSError:  # it has just ended; `_hear_spare` will be told
            return None
        self._unwatch(link.fileno())
        self._spare, self._spare_pid = None, 0
        self._spare_at = time.monotonic() + AFTER_BIRTH_S
        return pid, link.detach()

    def ended(self, pid: int, status: int) -> None:
        """A child was reaped: the nursery, perhaps."""
        if pid != self.pid or not pid:
            return
        self.pid = 0
        self._hang_up()
        if self.state == "unfit":
            return
        lived_s = time.monotonic() - self._began
        self._short_lives = self._short_lives + 1 if lived_s < LONG_LIFE_S else 0
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        if self._short_lives > MAX_SHORT_LIVES:
            self._unfit(f"the nursery ended {self._short_lives} times soon after its start, last with {how}")
            return
        pause = 0.1 * 4**self._short_lives if self._short_lives else 0.0
        self.state, self.why = "none", f"it ended with {how}"
        self._again_at = time.monotonic() + pause
        note(f"the nursery {self.why} and is started again in {pause:.1f} s; until then engines are spawned plainly")

    def tick(self, now: float) -> None:
        """Does what is due: the next start, or the next spare."""
        if self._again_at is not None and now >= self._again_at:
            self._start()
        if self._spare_at is not None and now >= self._spare_at:
            self._ask_for_spare()

    def next_due(self, now: float) -> float | None:
        """Seconds until `tick` has something to do."""
        due = [at - now for at in (self._again_at, self._spare_at) if at is not None]
        return max(0.0, min(due)) if due else None

    def close(self, why: str) -> None:
        """Ends it; it is not started again."""
        self._again_at = None
        self._drop_spare()
        self._spare_at = None
        if self.pid:
            self._kill()
            self.pid = 0  # reaped as somebody we know nothing of
        self._hang_up()
        self.state, self.why = "none", why

    def _start(self) -> None:
        self._again_at, self._began, self.state, self.why = None, time.monotonic(), "starting", ""
        try:
            self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._unfit(f"no socket for the nursery: {error.strerror}")
            return
        self._link.setblocking(False)
        argv = [*self._argv, str(theirs.fileno())]
        env = {**self._env, kernel.MARK_VARIABLE: NO_MARK}
        try:
            self.pid, status_fd = spawn(argv, env, "/", "", keep=theirs.fileno())
        except Refused as refusal:
            self._unfit(refusal.text)
            return
        finally:
            theirs.close()
        self._watch(status_fd, lambda: self._started(status_fd))
        self._watch(self._link.fileno(), self._hear)

    def _started(self, status_fd: int) -> None:
        self._unwatch(status_fd)
        if (refusal := outcome(status_fd, self._argv, "/", "")) is not None:
            self._unfit(refusal.text)

    def _hear(self) -> None:
        """Its one packet, or its end, after which it will be reaped."""
        assert self._link is not None
        try:
            packet = self._link.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._hang_up()
            return
        told = json.loads(packet)
        self.pss_kb = told["pss_kb"]
        if told["unfit"]:
            self._unfit(told["unfit"])
        else:
            self.state = "ready"
            self._ask_for_spare()
            took_ms = (time.monotonic() - self._began) * 1000
            note(f"nursery up as process {self.pid} after {took_ms:.0f} ms, {self.pss_kb} KiB of its own")

    def _ask_for_spare(self) -> None:
        self._spare_at = None
        if self._link is None or self.state != "ready":
            return
        self._spare_at = time.monotonic() + SPARE_AGAIN_S  # should this one not come to be
        self._drop_spare()
        try:
            self._spare, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return
        self._spare.setblocking(False)
        self._watch(self._spare.fileno(), self._hear_spare)
        with contextlib.suppress(OSError):  # the nursery has just ended
            self._link.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        theirs.close()

    def _hear_spare(self) -> None:
        """Its pid, or its end."""
        assert self._spare is not None
        try:
            packet = self._spare.recv(64)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._spare_pid, self._spare_at = int(packet[1:]), None
        else:
            self._drop_spare()
            self._spare_at = time.monotonic() + SPARE_AGAIN_S

    def _drop_spare(self) -> None:
        """One that waits for its order ends when its socket does."""
        if self._spare is not None:
            self._unwatch(self._spare.fileno())
            self._spare.close()
        self._spare, self._spare_pid = None, 0

    def _unfit(self, why: str) -> None:
        self._hang_up()
        self.state, self.why = "unfit", why
        note(f"no nursery, engines are spawned plainly: {why}")

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._unwatch(self._link.fileno())
            self._link.close()
            self._link = None
