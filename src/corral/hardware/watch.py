"""`Watcher`: fresh figures of every device, its memory and what it does, whenever they are asked for."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral import clock
from corral.hardware.asking import Asker, command, worth_asking
from corral.hardware.devices import Answer, Device, Listed, Work, assemble, complete
from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory
from corral.hardware.probe import read_basics
from corral.hardware.work import WorkMeter
from corral.lazy_dataclass import dataclass

_GPUS_EVERY_S: Final = 10.0  # how often the kernel is asked which there are


@dataclass(frozen=True, slots=True)
class Look:
    """All devices at one moment."""

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()  # what could not be found out, and why
    at: float = 0.0  # when it began, on `clock.monotonic`

    @property
    def free(self) -> dict[str, int]:
        """Free bytes by device; those of which they are not known are missing."""
        return {each.name: each.free_bytes for each in self.devices if each.known and each.free_bytes is not None}

    @property
    def totals(self) -> dict[str, int]:
        return {each.name: each.total_bytes for each in self.devices if each.known and each.total_bytes is not None}

    def device(self, name: str) -> Device | None:
        return next((each for each in self.devices if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Own:
    """What Corral's own units are: their processes, and what they took of devices that nothing else tells about."""

    pids: Sequence[int] = ()
    held: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Watcher:
    """Looks at the devices of this machine. One event loop. Close it.

    `listed` asks an engine for the GPUs it finds, and does not raise. It is called once, in a thread, and only where a
    GPU is there whose memory neither the kernel nor a driver's library tells. Looks have its answer as soon as it came.
    """

    def __init__(
        self,
        *,
        own: Callable[[], Own] = Own,
        listed: Callable[[], Sequence[Listed]] | None = None,
        root: Path = Path("/"),
        asker: Asker | None = None,
    ) -> None:
        self._root, self._own, self._listed = root, own, listed
        self._asker = asker or Asker(command(root))
        self._meter = WorkMeter(root)
        self._gpus: list[Gpu] = []
        self._gpus_at: float | None = None
        self._listing: asyncio.Task[Sequence[Listed]] | None = None
        self._looking: asyncio.Task[Look] | None = None
        self._closed = False
        self.last = Look()

    async def look(self, *, fresh: bool = False) -> Look:
        """The devices now. Takes a millisecond, and seconds at most when a driver hangs. Those who ask at the same time
        share one answer. `fresh`: which GPUs are there is looked up again too. Never raises."""
        if self._closed:
            return self.last
        if fresh:
            self._gpus_at = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="look at devices")
        return await asyncio.shield(self._looking)

    async def aclose(self) -> None:
        """Ends the child. From then on every look is the last one."""
        self._closed = True
        if self._looking is not None:
            await asyncio.wait({self._looking})
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait({self._listing})
        await self._asker.aclose()

    async def _look(self) -> Look:
        began = clock.monotonic()
        rescan = self._gpus_at is None or clock.monotonic() - self._gpus_at > _GPUS_EVERY_S
        memory, gpus, work, notes = await asyncio.to_thread(_read, self._root, rescan, self._meter)
        if gpus is not None:
            self._gpus, self._gpus_at = gpus, clock.monotonic()
        own = self._own()
        answer = Answer()
        if worth_asking(self._gpus, self._root):
            answer = await self._asker.ask(_families(own.pids))
        devices = assemble(memory, self._gpus, answer, work)
        devices = complete(devices, self._list(devices), own.held)
        if answer.notes and not answer.gpus:
            devices = tuple(self._before(each) for each in devices)
        self.last = Look(devices, (*notes, *answer.notes), began)
        return self.last

    def _before(self, device: Device) -> Device:
        """A GPU that a driver has told of before and now does not: its total stands, what is free is not known."""
        old = self.last.device(device.name)
        if old is None or device.total_bytes is not None or old.address != device.address:
            return device
        problem = device.problem or "its driver does not answer"
        return Device(
            device.name, old.vendor, old.words, old.total_bytes, None, old.source, old.shared, old.address,
            problem=problem,
        )  # fmt: skip

    def _list(self, devices: Sequence[Device]) -> Sequence[Listed]:
        """What an engine lists, once it has: no look waits for it, since its driver may hang."""
        unknown = any(
            each.problem is None and (each.total_bytes is None or each.free_bytes is None) for each in devices
        )
        if self._listing is None and unknown and self._listed is not None:
            self._listing = asyncio.create_task(asyncio.to_thread(self._listed), name="list devices")
        done = self._listing is not None and self._listing.done() and not self._listing.cancelled()
        return self._listing.result() if done and self._listing is not None else ()


def _read(root: Path, rescan: bool, meter: WorkMeter) -> tuple[Memory | None, list[Gpu] | None, Work, tuple[str, ...]]:
    if rescan:
        meter.find()
    work = meter.read()
    try:
        memory, gpus = read_basics(root, gpus=rescan)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return None, [] if rescan else None, work, (f"memory cannot be read: {error}",)
    return memory, gpus, work, ()


def _families(pids: Iterable[int]) -> list[int]:
    """`pids` with their descendants, as far as the kernel lists them: an engine may work through children."""
    found, todo = [], list(pids)
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
        except (OSError, ValueError):
            continue
    return found
