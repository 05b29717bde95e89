"""The table of engines: every change of an engine's state happens here, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from . import kernel
from .birth import NO_MARK
from .journal import note
from .nursery import Nursery
from .protocol import Refused
from .records import Records, end_leftovers
from .spawn import outcome, refused, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GROUP_GONE_WITHIN_S = 1.0
"""An exit is told once the engine's whole group is gone, or after so long."""

KEPT_EXITS = 256
"""Exited engines that nobody has asked to forget; the oldest go first."""


class Engine:
    """One engine process, living or ended."""

    def __init__(self, unit: str, argv: list[str], cwd: str, log: str, leash: str, plan: Any, mark: str) -> None:
        self.unit, self.argv, self.cwd, self.log, self.leash, self.plan = unit, argv, cwd, log, leash, plan
        self.mark = mark
        self.pid = 0
        self.born = "exec"  # or "nursery"
        self.identity: str | None = None
        self.started_wall_s = 0.0
        self.status_fd: int | None = None  # open until exec is through, or what stands for it in the nursery
        self.on_started: Callable[[Refused | None], None] | None = None
        self.asked = False
        self.stopping = False
        self.kill_at: float | None = None  # monotonic
        self.gone_by: float | None = None  # monotonic; set once the leader was reaped
        self.exit: dict[str, Any] | None = None

    @property
    def state(self) -> str:
        if self.exit is not None:
            return "exited" if self.gone_by is None else "stopping"
        return "starting" if self.status_fd is not None else "stopping" if self.stopping else "running"

    @property
    def lives(self) -> bool:
        return self.state != "exited"

    def as_json(self) -> dict[str, Any]:
        shown = {
            name: getattr(self, name) for name in ("unit", "pid", "born", "leash", "log", "plan", "started_wall_s")
        }
        return {**shown, "state": self.state, "exit": None if self.lives else self.exit}

    def as_record(self) -> dict[str, Any]:
        return {**self.as_json(), "identity": self.identity, "argv": self.argv, "cwd": self.cwd}


class Engines:
    """`watch` and `unwatch` put a descriptor into the caller's loop; `tell` sends an event to every client."""

    def __init__(
        self,
        records: Records,
        tell: Callable[[dict[str, Any]], None],
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        self._records, self._tell, self._watch, self._unwatch = records, tell, watch, unwatch
        self._by_unit: dict[str, Engine] = {}
        self._by_pid: dict[int, Engine] = {}  # leaders that were not reaped yet
        self.nursery = Nursery(watch, unwatch)

    @property
    def living(self) -> list[Engine]:
        return [engine for engine in self._by_unit.values() if engine.lives]

    def listing(self) -> list[dict[str, Any]]:
        return [engine.as_json() for engine in self._by_unit.values()]

    def load(self) -> None:
        """Takes over an earlier warden's records: its engines are ended, and listed as exited."""
        found = self._records.read()
        end_leftovers(found)
        for mark, record in found.items():
            fields = (record.get("argv", []), record.get("cwd", "/"), record.get("log", ""))
            engine = Engine(record["unit"], *fields, record.get("leash", "survive"), record.get("plan"), mark)
            engine.pid, engine.exit = record["pid"], record["exit"]
            engine.started_wall_s = record.get("started_wall_s", 0.0)
            self._by_unit[engine.unit] = engine
            self._save(engine)
        self._drop_oldest()

    def spawn(self, engine: Engine, env: dict[str, str], on_started: Callable[[Refused | None], None]) -> None:
        """Starts `engine`; `on_started` is called once exec is through, or did not work. Raises Refused."""
        earlier = self._by_unit.get(engine.unit)
        if earlier is not None and earlier.lives:
            raise Refused("unit_exists", f"{engine.unit} runs already, as process {earlier.pid}")
        if earlier is not None:
            self.forget(engine.unit)
        made = self.nursery.bear(engine.argv, env, engine.cwd, engine.log, engine.mark)
        engine.born = "exec" if made is None else "nursery"
        if made is None:
            marked = {**env, kernel.MARK_VARIABLE: engine.mark}
            made = spawn(engine.argv, marked, engine.cwd, engine.log)
        engine.pid, engine.status_fd = made
        engine.started_wall_s = time.time()
        engine.identity = kernel.identity(engine.pid)
        engine.on_started = on_started
        self._by_unit[engine.unit] = self._by_pid[engine.pid] = engine
        try:
            self._records.write(engine.mark, engine.as_record())
        except OSError as error:
            # An engine without a record would be an orphan after a crash of ours.
            os.kill(engine.pid, signal.SIGKILL)
            os.close(engine.status_fd)
            engine.status_fd = None
            del self._by_unit[engine.unit]
            raise refused(error.errno or 0, "record", engine.unit) from None
        self._watch(engine.status_fd, lambda: self._started(engine))

    def signal(self, unit: str, number: int) -> None:
        """Raises Refused for an unknown unit, or one that has ended."""
        engine = self._find(unit)
        if not engine.lives:
            raise Refused("exited", f"{unit} has ended")
        if number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            engine.asked = True
        self._signal(engine, number)

    def stop(self, unit: str, grace_s: float) -> Engine:
        """TERM to the group now, KILL after `grace_s`; a repeated call may only shorten that. Raises Refused."""
        engine = self._find(unit)
        if engine.exit is None:
            kill_at = time.monotonic() + grace_s
            if engine.kill_at is None or kill_at < engine.kill_at:
                engine.kill_at = kill_at
            if not engine.stopping:
                engine.asked = engine.stopping = True
                self._signal(engine, signal.SIGTERM)
                self._signal(engine, signal.SIGCONT)  # one that was stopped could not hear it
        return engine

    def forget(self, unit: str) -> None:
        """Raises Refused while it lives."""
        engine = self._find(unit)
        if engine.lives:
            raise Refused("alive", f"{unit} still runs; stop it first")
        self._records.remove(engine.mark)
        del self._by_unit[unit]

    def tick(self, now: float) -> None:
        """Does what is due: KILL after the grace, and the news of exits whose group is gone."""
        self.nursery.tick(now)
        for engine in self.living:
            if engine.kill_at is not None and now >= engine.kill_at and engine.exit is None:
                engine.kill_at = None
                self._signal(engine, signal.SIGKILL)
            if engine.gone_by is not None:
                self._settle(engine, now)

    def next_due(self, now: float) -> float | None:
        """Seconds until `tick` has something to do."""
        due = [engine.kill_at - now for engine in self.living if engine.kill_at is not None and engine.exit is None]
        due += [0.01 for engine in self.living if engine.gone_by is not None]
        if (nursery_due := self.nursery.next_due(now)) is not None:
            due.append(nursery_due)
        return max(0.0, min(due)) if due else None

    def reap(self) -> None:
        """Collects every ended child, engines and the orphans they left alike."""
        while (ended := kernel.next_exit(self._end_group)) is not None:
            pid, status = ended
            engine = self._by_pid.pop(pid, None)
            if engine is None:
                self.nursery.ended(pid, status)
                continue
            self._started(engine)
            if self._by_unit.get(engine.unit) is not engine:
                continue  # it never got as far as exec, and its asker was told
            code, number = (os.WEXITSTATUS(status), None) if os.WIFEXITED(status) else (None, os.WTERMSIG(status))
            now = time.monotonic()
            engine.exit = {"code": code, "signal": number, "at": time.time(), "asked": engine.asked}
            engine.gone_by = now + GROUP_GONE_WITHIN_S
            self._settle(engine, now)
        self._end_orphans()

    def _settle(self, engine: Engine, now: float) -> None:
        assert engine.gone_by is not None and engine.exit is not None
        if kernel.group_lives(engine.pid) and now < engine.gone_by:
            return
        engine.gone_by = None
        self._tell({"event": "exited", "unit": engine.unit, **engine.exit})  # first: the next engine may wait for it
        self._save(engine)
        self._drop_oldest()

    def _started(self, engine: Engine) -> None:
        if engine.status_fd is None:
            return
        self._unwatch(engine.status_fd)
        failure = outcome(engine.status_fd, engine.argv, engine.cwd, engine.log)
        engine.status_fd = None
        if failure is not None:
            self._records.remove(engine.mark)
            del self._by_unit[engine.unit]
        if engine.on_started is not None:
            engine.on_started(failure)

    def _signal(self, engine: Engine, number: int) -> None:
        if engine.exit is not None:
            return  # its pid may be somebody else's by now
        try:
            os.killpg(engine.pid, number)
        except ProcessLookupError:
            # Between fork and setsid there is no such group yet; the leader itself is ours until we reap it.
            os.kill(engine.pid, number)

    def _end_group(self, pid: int) -> None:
        if pid in self._by_pid:
            with contextlib.suppress(OSError):  # nobody else is in it
                os.killpg(pid, signal.SIGKILL)

    def _end_orphans(self) -> None:
        """KILL for children that an ended engine left us, in sessions of their own too."""
        known = {*self._by_pid, *self.nursery.pids}
        strangers = [pid for pid in kernel.children() if pid not in known]
        if not strangers:
            return
        homes = {engine.pid for engine in self._by_pid.values()}
        marks = {engine.mark for engine in self._by_pid.values()}
        if self.nursery.pid:
            marks.add(NO_MARK)  # a spare that has not yet said so
        for pid in strangers:
            try:
                mark = kernel.mark_of(pid)
                # One without a readable mark belongs to nobody we know of; it may stay as long as somebody lives.
                if os.getsid(pid) in homes or mark in marks or (mark is None and marks):
                    continue
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def _find(self, unit: str) -> Engine:
        engine = self._by_unit.get(unit)
        if engine is None:
            raise Refused("unknown_unit", f"no engine is known as {unit}")
        return engine

    def _save(self, engine: Engine) -> None:
        try:
            self._records.write(engine.mark, engine.as_record())
        except OSError as error:
            # The earlier record stays: the next warden will then say that nobody saw this exit.
            note(f"cannot record {engine.unit}: {error}")

    def _drop_oldest(self) -> None:
        ended = [engine.unit for engine in self._by_unit.values() if not engine.lives]
        for unit in ended[: max(0, len(ended) - KEPT_EXITS)]:
            self.forget(unit)
