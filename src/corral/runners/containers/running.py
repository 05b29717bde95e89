"""One engine in a container: its end is seen by the descriptor of its process, and told by the container engine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from corral import clock
from corral.errors import CorralError
from corral.hardware import cgroups
from corral.runners.containers.containers import Containers
from corral.runners.containers.host import ended_as
from corral.runners.runner import Exit

AFTER_KILL_S = 20.0
"""How long `stop` waits for what KILL should have ended."""
TOLD_WITHIN_S = 20.0
"""How long a container engine may take to notice an end that the kernel has told us of."""
POLL_S = 1.0
"""Where the process is not one of this machine's kernel, its state is asked for so often."""
_STARTS_WITHIN_S = 1.0

T = TypeVar("T")


class ContainerRunning:
    """One container. `clean` removes what is left of it, once it has ended; `follower` ends what writes its log;
    `limit_bytes` is its memory limit, where it has one."""

    def __init__(
        self,
        containers: Containers,
        unit: str,
        name: str,
        pid: int | None,
        *,
        clean: Callable[[], None],
        follower: Callable[[float], None] | None = None,
        limit_bytes: int = 0,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._containers, self._unit, self._name, self._pid = containers, unit, name, pid
        self._clean, self._follower = clean, follower
        self._asked = False
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(), name=f"container {unit}")

    def __repr__(self) -> str:
        return f"<ContainerRunning {self._name} pid={self._pid} {'ended' if self._exit.done() else 'running'}>"

    @property
    def unit(self) -> str:
        return self._unit

    @property
    def name(self) -> str:
        """Of the container."""
        return self._name

    @property
    def pid(self) -> int | None:
        return self._pid

    def when_gone(self, then: Callable[[], None]) -> None:
        """Has `then` called once it has ended and nothing of it is left, or nobody looks any more."""
        self._watching.add_done_callback(lambda _: then())

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def stop(self, grace_s: float) -> Exit:
        """An exit with neither code nor signal means: not even KILL ended it in time, or nobody could see how it ended.
        When this returns with an exit, the container is removed too."""
        self._asked = self._asked or not self._exit.done()
        if not self._exit.done() and grace_s > 0:
            await self._signal("TERM")
            await self._ended_within(grace_s)
        if not self._exit.done():
            await self._signal("KILL")
            await self._ended_within(AFTER_KILL_S)
        return self._exit.result() if self._exit.done() else Exit(at_wall_s=clock.wall(), asked=True)

    async def let_go(self) -> None:
        """Looks no more; the container goes on."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        if self._follower is not None:
            await asyncio.to_thread(self._follower, 0.0)

    async def _signal(self, name: str) -> None:
        with suppress(CorralError):  # it has ended meanwhile, or its end will not come: waiting is bounded
            await asyncio.to_thread(self._containers.engine.kill, self._name, name)

    async def _ended_within(self, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.wait()

    async def _watch(self) -> None:
        exit_: Exit | None = None
        group = cgroups.memory_folder(self._pid) if self._pid is not None and self._limit_bytes else None
        try:
            await self._until_ended()
            # Its group is gone a moment later, and not every container engine has noticed what happened in it.
            reached = group is not None and cgroups.has_hit(group)
            exit_ = await self._told(clock.wall(), reached=reached)
            if not self._asked:  # who did not expect it is told at once; who stops it, when nothing is left
                self._exit.set_result(exit_)
            with suppress(CorralError, OSError):  # its record stays then, and the next start sees to it
                await whole(asyncio.to_thread(self._clean))
        finally:
            if exit_ is None:
                self._exit.cancel()
            elif not self._exit.done():
                self._exit.set_result(exit_)

    async def _until_ended(self) -> None:
        if self._pid is None or not await _gone(self._pid):
            while True:
                with suppress(CorralError):
                    seen = await asyncio.to_thread(self._containers.engine.inspect, self._name)
                    if seen is None or not seen.running:
                        return
                await asyncio.sleep(POLL_S)

    async def _told(self, at_wall_s: float, *, reached: bool) -> Exit:
        code: int | None = None
        limit_bytes = self._limit_bytes if reached else 0
        with suppress(CorralError):
            code = await asyncio.to_thread(self._containers.engine.wait, self._name, TOLD_WITHIN_S)
            if code is None or (code and self._limit_bytes and not self._asked):
                seen = await asyncio.to_thread(self._containers.engine.inspect, self._name)
                code = seen.exit_code if code is None and seen is not None else code
                limit_bytes = self._limit_bytes if reached or (seen is not None and seen.oom_killed) else 0
        if code is None:
            return Exit(at_wall_s=at_wall_s, asked=self._asked)
        number, signal = ended_as(code)
        return Exit(number, signal, at_wall_s, self._asked, limit_bytes)


async def _gone(pid: int) -> bool:
    """Returns True once that process of this machine has ended; False at once where it cannot be watched."""
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


async def process_here(pid: int | None, program: str) -> int | None:
    """`pid` where it is a process of this machine that runs `program`, which it begins to within a moment."""
    if pid is None:
        return None
    deadline = clock.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            words = _command_line(pid)
        except OSError:
            return None
        if os.fsencode(program) in words:
            return pid
        if clock.monotonic() > deadline:
            return None
        await asyncio.sleep(0.02)


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def whole(work: Awaitable[T]) -> T:
    """The result of `work`, which is not left half-done: whoever is cancelled meanwhile is so after it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # seen
        raise asyncio.CancelledError
    return task.result()
