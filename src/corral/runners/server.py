"""The runner of servers that run already: it starts and ends nothing, and sees whether one is still there."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral import clock
from corral.engines.plan import Endpoint, LaunchPlan
from corral.runners.runner import Departed, Exit, Preview, Running, Survivor

LOOK_EVERY_S: Final = 1.0
"""How often it is seen whether somebody still listens. A crash is known so soon; requests find it before that."""

STRANGER_S: Final = 10.0
"""How long a server that never was there is waited for. One that was is waited for as every start is: it may be on its
way back."""

_CONNECT_S: Final = 2.0
_AGAIN_S: Final = 0.1
_REFUSALS: Final = 2  # in a row: a server with a full backlog refuses once, too
_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK)


class ServerRunning:
    """What Corral has of one server: nothing but its address. It belongs to the event loop."""

    pid = None

    def __init__(self, plan: LaunchPlan, met: set[str], stranger_s: float) -> None:
        """`met`: addresses at which somebody has listened, which is kept up to date."""
        self.unit = plan.unit
        self._endpoint, self._met, self._stranger_s = plan.endpoint, met, stranger_s
        self._here = False
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._looking = asyncio.create_task(self._look(), name=f"look for {plan.unit}")

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def stop(self, grace_s: float) -> Exit:
        """Lets go of the server, which goes on."""
        self._ended(Exit(at_wall_s=clock.wall(), asked=True, why="let go; it runs on"))
        return await self.wait()

    def gone(self, why: str) -> None:
        """Has it end for us: it is not what it was, as somebody found out."""
        self._ended(Exit(at_wall_s=clock.wall(), why=why))

    def look_no_more(self) -> None:
        self._looking.cancel()

    def _ended(self, exit_: Exit) -> None:
        self._looking.cancel()
        if not self._exit.done():
            if not self._here:
                self._met.discard(str(self._endpoint))
            self._exit.set_result(exit_)

    async def _look(self) -> None:
        began, where, refused = clock.monotonic(), str(self._endpoint), 0
        while True:
            if (error := await _connects(self._endpoint)) is None:
                self._here, refused = True, 0
                self._met.add(where)
            elif error.errno in _NOBODY or not self._here:  # one that is only slow to answer is the watch's to judge
                refused += 1
                strange = where not in self._met and clock.monotonic() - began >= self._stranger_s
                if refused >= _REFUSALS and (self._here or strange):
                    break
            await asyncio.sleep(LOOK_EVERY_S if self._here and not refused else _AGAIN_S)
        more = " any more" if self._here else ""
        why = f"nobody listens at {where}{more} ({os.strerror(error.errno) if error.errno else error})"
        self._ended(Exit(at_wall_s=clock.wall(), why=why))


class ServerRunner:
    """The `Runner` of models whose server somebody else runs. It belongs to the event loop."""

    def __init__(self, stranger_s: float = STRANGER_S) -> None:
        self._stranger_s = stranger_s
        self._met: set[str] = set()
        self._running: set[ServerRunning] = set()

    async def start(self, plan: LaunchPlan, log: Path) -> Running:
        """Begins to look at the server. What it says of itself is wherever it was started, and `log` says so."""
        said = (
            f"corral: {plan.model} is a server that runs already, at {plan.endpoint}: its log is where it was started\n"
        )
        await asyncio.to_thread(log.write_text, said, encoding="utf-8")
        running = ServerRunning(plan, self._met, self._stranger_s)
        self._running.add(running)
        running._exit.add_done_callback(lambda _: self._running.discard(running))
        return running

    async def survivors(self) -> Sequence[Survivor]:
        """None: whoever asks for such a model again connects to it again."""
        return ()

    async def departed(self) -> Sequence[Departed]:
        return ()

    def preview(self, plan: LaunchPlan) -> Preview:
        return Preview((), MappingProxyType({}))

    async def aclose(self) -> None:
        for running in self._running:
            running.look_no_more()

    def memory_bytes(self, running: Running) -> int | None:
        return None


async def _connects(endpoint: Endpoint) -> OSError | None:
    """What is in the way of a connection; None where there is one, which is closed at once."""
    family = socket.AF_UNIX if endpoint.socket is not None else socket.AF_INET
    if endpoint.socket is None and ":" in endpoint.host:
        family = socket.AF_INET6
    address = (endpoint.host, endpoint.port) if endpoint.socket is None else str(endpoint.socket)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, address)
        except TimeoutError:
            return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except BlockingIOError:  # a unix socket's backlog is full: somebody listens
            return None
        except OSError as error:
            return error
    return None
