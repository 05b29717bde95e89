"""The faults: each is done to a world at one moment, lasts for a while, and is undone."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from chaos.world import World

PHASES = ("load", "prefill", "stream", "idle", "swap")
ENGINE_ENDS = ("backoff", "failed", "stopping", "stopped")


@dataclass
class Fault(ABC):
    """One kind of fault. Subclasses say what is done; an instance is used once."""

    world: World
    victim: str
    moment: float = 0.0  # in [0, 1): what this one draws its details from

    name: ClassVar[str] = "fault"
    what: ClassVar[str] = ""
    excused: ClassVar[frozenset[str]] = frozenset()
    """Codes with which a request for the victim may be refused while the fault lasts."""
    lasts_s: ClassVar[float] = 0.0
    of_daemon: ClassVar[bool] = False
    """The daemon dies: connections break, and no event tells of it."""
    ends_engine: ClassVar[bool] = True
    """It is noticed as the end of the engine."""
    in_vain: bool = False
    """There was nothing that it could have been done to."""
    everywhere: ClassVar[bool] = False
    """All models are victims."""

    @classmethod
    def possible(cls, world: World) -> str:
        """Why this kind cannot be done here; empty when it can."""
        return ""

    @abstractmethod
    async def inject(self) -> None:
        """Does it, now."""

    async def undo(self) -> None:
        """Must not fail, and may be called twice."""
        return  # most kinds are over in the moment they are done

    @property
    def pid(self) -> int | None:
        return self.world.feed.pids.get(self.victim)

    def signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            self.in_vain = True
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            self.in_vain = True


class Kill(Fault):
    name = "kill -9 of an engine"
    what = "SIGKILL to the engine's process"

    async def inject(self) -> None:
        self.signal(signal.SIGKILL)


class Hang(Fault):
    name = "SIGSTOP of an engine"
    what = "SIGSTOP to the engine's process, which stays there and says nothing"
    _stopped: int | None = None

    async def inject(self) -> None:
        self._stopped = self.pid
        self.signal(signal.SIGSTOP)

    async def undo(self) -> None:
        if self._stopped is not None:
            with suppress(ProcessLookupError):
                os.kill(self._stopped, signal.SIGCONT)


class Memory(Fault):
    name = "out of memory"
    what = "RLIMIT_AS: no more address space than the engine has (llama-server: also for those started meanwhile)"
    excused = frozenset({"start_failed"})
    lasts_s = 0.3
    ends_engine = False  # an engine that needs no more memory goes on
    _limited: int | None = None

    @classmethod
    def possible(cls, world: World) -> str:
        return "" if sys.platform.startswith("linux") else "limits of other processes can be set on Linux only"

    async def inject(self) -> None:
        self._limited = self.pid
        if self.victim.startswith("s"):
            self.world.limit_file(self.victim).write_text(str(40_000 + int(self.moment * 100_000)))
        if self._limited is not None:
            with suppress(ProcessLookupError, OSError, IndexError):
                self._limit(_address_space(self._limited) + int(self.moment * 65536))

    def _limit(self, size: int) -> None:
        assert self._limited is not None
        with suppress(ProcessLookupError):
            resource.prlimit(self._limited, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

    async def undo(self) -> None:
        self.world.limit_file(self.victim).unlink(missing_ok=True)
        if self._limited is not None:
            self._limit(resource.RLIM_INFINITY)
            self._limited = None


class Corrupt(Fault):
    name = "corrupt model file"
    what = "the model's file is cut short or overwritten where it lies, under the engine that has it mapped"
    excused = frozenset({"start_failed", "model_file", "unknown_architecture"})
    lasts_s = 0.3
    ends_engine = False  # an engine that has read what it needs goes on

    async def inject(self) -> None:
        file = self.world.file(self.victim)
        if self.moment < 0.6:  # reading what is mapped beyond the end is a SIGBUS
            os.truncate(file, int(file.stat().st_size * self.moment))
            return
        with file.open("r+b") as content:
            content.write(b"JUNK" if self.moment < 0.8 else struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 1 << 60))

    async def undo(self) -> None:
        self.world.restore(self.victim)


class Disk(Fault):
    name = "full disk"
    what = "the file system of the state directory (logs, records, journal) has no byte left"
    excused = frozenset({"start_failed"})
    lasts_s = 0.5
    ends_engine = False
    everywhere = True

    @classmethod
    def possible(cls, world: World) -> str:
        return "" if world.mounted else "needs a file system of its own, which only root may mount"

    @property
    def _ballast(self) -> Path:
        return self.world.paths.state_dir / "ballast"

    async def inject(self) -> None:
        free = os.statvfs(self.world.paths.state_dir)
        with self._ballast.open("wb", buffering=0) as ballast:
            with suppress(OSError):
                os.posix_fallocate(ballast.fileno(), 0, free.f_bavail * free.f_frsize)
            with suppress(OSError):
                ballast.seek(0, os.SEEK_END)
                while ballast.write(bytes(1 << 12)):
                    pass

    async def undo(self) -> None:
        self._ballast.unlink(missing_ok=True)


class SocketGone(Fault):
    name = "engine's socket removed"
    what = "the name of the engine's socket is gone: no new connection reaches it, those that are open go on"

    async def inject(self) -> None:
        found = list(self.world.paths.units_dir.glob(f"{self.victim}-*.sock"))
        for entry in found:
            entry.unlink(missing_ok=True)
        self.in_vain = not found


class Warden(Fault):
    name = "kill -9 of the warden"
    what = "SIGKILL to the process that owns the engines: all of them die with it"
    everywhere = True

    async def inject(self) -> None:
        os.kill(self.world.warden_pid, signal.SIGKILL)


class Daemon(Fault):
    name = "kill -9 of the daemon"
    what = "SIGKILL to `corral serve`, and another one is started: it adopts the engines"
    of_daemon = True
    everywhere = True

    async def inject(self) -> None:
        await self.world.kill_daemon()

    async def undo(self) -> None:
        if self.world.outages and self.world.outages[-1][1] == float("inf"):
            await self.world.start_daemon()


class Port(Daemon):
    name = "port stolen"
    what = "the same, and somebody else has the server's port when it comes back: it says so and ends; then it is free"

    async def undo(self) -> None:
        if not self.world.outages or self.world.outages[-1][1] != float("inf"):
            return
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(self.world.clients.address)
            thief.listen(64)
            try:
                await self.world.start_daemon()
            except AssertionError:
                said = self.world.server.said()[-2000:]
                assert "in use" in said or "taken" in said, f"a stolen port is not named: {said}"
            else:
                raise AssertionError("the server came up without its port")
        await self.world.start_daemon()


def _address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


ENGINE_FAULTS: tuple[type[Fault], ...] = (Kill, Hang, Memory, Corrupt, Disk, SocketGone)
SERVER_FAULTS: tuple[type[Fault], ...] = (Warden, Daemon, Port)
