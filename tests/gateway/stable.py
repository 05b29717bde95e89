"""A host and its leases, small but real: one process per unit, slots, a bounded queue, replacements for the dead.

What the daemon does with its scheduler and supervisor stands here in the plainest form, so that the gateway is tested
against processes and sockets without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from corral.api import (
    ActionResult,
    DeviceInfo,
    HealthCheck,
    HealthInfo,
    ModelInfo,
    PlanInfo,
    ReloadResult,
    Status,
    Story,
    UnitInfo,
)
from corral.config.settings import Listen, ModelSettings, Settings
from corral.config.tuning import Tuning
from corral.engines.plan import Endpoint
from corral.errors import ConfigError, QueueFull, Stopping
from corral.events import EventLog
from corral.gateway.app import build
from corral.gateway.gate import Caller
from corral.gateway.listen import Listeners
from corral.routing.resolve import resolve
from corral.scheduler.lease import Held, Lease
from corral.story import tell

FAKE_ENGINE = Path(__file__).parents[1] / "support" / "fake_engine.py"


@dataclass
class Unit:
    """A model's engine: how it is started, and the process of its present generation."""

    settings: ModelSettings
    argvs: list[tuple[str, ...]]  # by generation; the last one repeats
    slots: asyncio.Semaphore
    generation: int = 0
    process: subprocess.Popen[bytes] | None = None
    socket: Path = Path()
    gone: list[str] = field(default_factory=list)
    ailed: list[str] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)  # by generation, of those that had to be replaced
    suspect: bool = False
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Lent(Held):
    """A lease that `back` takes back."""

    def __init__(self, lease: Lease, back: Callable[[], None]) -> None:
        self.lease, self._back = lease, back

    def give_back(self) -> None:
        self._back()


class Stable:
    """Host and Leases in one."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self._settings = replace(Settings(models={}, listen=(Listen(port=0),)), **settings)  # type: ignore[arg-type]
        self.units_by_name: dict[str, Unit] = {}
        self.events = EventLog()
        self.tuned: dict[str, Tuning] = {}
        self.looked_at: list[str] = []
        self.ready = True
        self.gate = asyncio.Event()  # leases wait for it
        self.gate.set()
        self.waiting = self.held = self.granted = self.at_once = 0
        self.keep_alives: list[float | None] = []
        self.lease_error: Exception | None = None
        self.late_error: Exception | None = None  # for those who have waited
        self.bad_config = False
        self.next_settings: Settings | None = None
        self.listeners = Listeners(build(self, self))

    def add(
        self,
        name: str,
        *argvs: Sequence[str],
        aliases: tuple[str, ...] = (),
        port: int | None = None,
        slots: int = 1000,
        source: Path = Path("/nowhere.gguf"),
    ) -> Unit:
        """A model whose engine is a fake with these flags; further ones are for the generations that follow."""
        engine = [(sys.executable, "-I", "-S", str(FAKE_ENGINE), *flags) for flags in (argvs or ((),))]
        return self.add_engine(name, *engine, listen="--listen", aliases=aliases, port=port, slots=slots, source=source)

    def add_engine(
        self,
        name: str,
        *argvs: tuple[str, ...],
        listen: str,
        aliases: tuple[str, ...] = (),
        port: int | None = None,
        slots: int = 1000,
        source: Path = Path("/nowhere.gguf"),
        parallel: int = 1,
    ) -> Unit:
        model = ModelSettings(name=name, source=source, aliases=aliases, port=port, parallel=parallel)
        unit = Unit(model, [(*argv, listen) for argv in argvs], asyncio.Semaphore(slots))
        self.units_by_name[name] = unit
        models = MappingProxyType({**self._settings.models, name: model})
        self._settings = replace(self._settings, models=models)
        return unit

    def change(self, **settings: object) -> None:
        """Other global settings."""
        self._settings = replace(self._settings, **settings)  # type: ignore[arg-type]

    # Leases

    @asynccontextmanager
    async def lease(
        self, model: str, *, deadline: float | None = None, key: str = "", keep_alive_s: float | None = None
    ) -> AsyncIterator[Lease]:
        self.keep_alives.append(keep_alive_s)
        if self.lease_error is not None:
            raise self.lease_error
        if self.waiting >= self._settings.max_queue:
            raise QueueFull(
                f"{self.waiting} requests wait", hint="try again later", queue_position=self.waiting, retry_after_s=3
            )
        unit = self.units_by_name[model]
        loop = asyncio.get_running_loop()
        asked = loop.time()
        self.waiting += 1
        try:
            await self.gate.wait()
            if self.late_error is not None:
                raise self.late_error
            await unit.slots.acquire()
        finally:
            self.waiting -= 1
        try:
            began = loop.time()
            async with unit.starting:
                if unit.suspect and unit.process is not None and not await _healthy(unit.socket):
                    unit.ends[unit.generation] = await asyncio.to_thread(unit.process.wait)
                unit.suspect = False
                loaded = not unit.running
                if loaded:
                    await self._start(unit)
            self.held += 1
            self.granted += 1
            now = loop.time()
            try:
                yield Lease(
                    model, f"{model}.{unit.generation}", unit.generation, Endpoint(unit.socket),
                    queued_ms=(now - asked) * 1000, load_ms=(now - began) * 1000 if loaded else 0.0,
                )  # fmt: skip
            finally:
                self.held -= 1
        finally:
            unit.slots.release()

    def try_lease(self, model: str) -> Held | None:
        unit = self.units_by_name[model]
        busy = self.lease_error is not None or self.waiting >= self._settings.max_queue or not self.gate.is_set()
        if busy or unit.suspect or not unit.running or unit.starting.locked() or unit.slots.locked():
            return None
        with contextlib.suppress(StopIteration):
            unit.slots.acquire().send(None)  # it is not locked, and so does not wait
        self.keep_alives.append(None)
        self.held += 1
        self.granted += 1
        self.at_once += 1
        name = f"{model}.{unit.generation}"
        return Lent(Lease(model, name, unit.generation, Endpoint(unit.socket)), partial(self._give_back, unit))

    def _give_back(self, unit: Unit) -> None:
        self.held -= 1
        unit.slots.release()

    def unit_gone(self, lease: Lease, why: str) -> None:
        self.units_by_name[lease.model].gone.append(why)
        self.units_by_name[lease.model].suspect = True

    def unit_ails(self, lease: Lease, said: str) -> None:
        unit = self.units_by_name[lease.model]
        if unit.process is not None and unit.generation == lease.generation:
            unit.ailed.append(said)
            unit.process.terminate()
            unit.suspect = True

    async def blameless(self, lease: Lease) -> bool:
        """Killed from outside, or ended here, or it lives."""
        unit = self.units_by_name[lease.model]
        if unit.generation == lease.generation and unit.process is not None:
            await asyncio.sleep(0.05)
            if (code := unit.process.poll()) is None:
                return True
            unit.ends[unit.generation] = code
        return unit.ends.get(lease.generation) in (-signal.SIGKILL, -signal.SIGTERM)

    async def _start(self, unit: Unit) -> None:
        unit.generation += 1
        argv = unit.argvs[min(unit.generation, len(unit.argvs)) - 1]
        unit.socket = self.directory / f"e{len(unit.settings.name)}-{id(unit) % 9973}-{unit.generation}.sock"
        unit.process = subprocess.Popen(  # noqa: ASYNC220 - uvloop's keeps a descriptor as long as the loop lives
            [*argv, str(unit.socket)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not await _healthy(unit.socket):
            assert unit.running, f"{argv} ended with {unit.process.returncode}"
            await asyncio.sleep(0.005)
        self.events.post("unit.state", f"{unit.settings.name} is ready", model=unit.settings.name, state="ready")

    async def _stop(self, unit: Unit) -> None:
        if unit.process is not None:
            unit.process.kill()
            await asyncio.to_thread(unit.process.wait)
            self.events.post("unit.state", f"{unit.settings.name} stopped", model=unit.settings.name, state="stopped")

    # Host

    @property
    def settings(self) -> Settings:
        return self._settings

    def resolve(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        return resolve(self._settings, name, listener_default)

    async def find(
        self, name: str | None, listener_default: str | None = None, caller: Caller | None = None
    ) -> ModelSettings:
        return self.resolve(name, listener_default)

    async def known(self, name: str) -> ModelSettings:
        return self.resolve(name)

    async def stored_names(self) -> list[tuple[str, float]]:
        return []

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                name=unit.settings.name, aliases=list(unit.settings.aliases), source=str(unit.settings.source),
                engine="llama.cpp", runner="process", state="ready" if unit.running else "stopped", size_bytes=None,
                context=None, gpu_layers="auto", parallel=1, port=unit.settings.port, idle_timeout_s=300.0,
                preload=False, pin=False, priority=0, exclusive=False, group=None,
            )
            for unit in self.units_by_name.values()
        ]  # fmt: skip

    def units(self) -> list[UnitInfo]:
        return [
            UnitInfo(
                model=unit.settings.name, unit=f"{unit.settings.name}.{unit.generation}", generation=unit.generation,
                state="ready", engine="llama.cpp", engine_version="fake", runner="process", device="cpu",
                endpoint=str(Endpoint(unit.socket)), pid=unit.process.pid if unit.process else None, memory_bytes=None,
                footprint_bytes=None, footprint_origin=None, context=0, slots=1, port=None, busy=self.held,
                queued=self.waiting, since_wall_s=0.0, ready_wall_s=None, load_ms=None, idle_stop_in_s=None,
                restarts=0, reason=None,
            )
            for unit in self.units_by_name.values() if unit.running
        ]  # fmt: skip

    async def devices(self) -> list[DeviceInfo]:
        return [DeviceInfo("cpu", "", "the processor", 8, 4, 1, 3, None, 0, "/proc/meminfo", False)]

    async def health(self, name: str | None) -> HealthInfo:
        model = self.resolve(name).name if name is not None else None
        return HealthInfo(True, model, [HealthCheck("server", True, "is well", 0.5)])

    def status(self) -> Status:
        return Status(
            version="0", pid=1, started_wall_s=0.0, uptime_s=0.0, listen=[str(a) for a in self.listeners.addresses],
            config_file=None, state_dir=str(self.directory), max_active=None, resident=0, waiting=self.waiting,
            in_flight=self.held, memory_bytes=0, models=len(self.units_by_name), budgets={},
        )  # fmt: skip

    async def logged(self, name: str) -> str:
        return (await self.known(name)).name

    def log_files(self, name: str) -> list[Path]:
        return sorted(self.directory.glob(f"{self.resolve(name).name}.*.log"))

    async def request_lines(self, name: str, request_id: str) -> list[str]:
        lines = [each for file in self.log_files(name) for each in file.read_text().splitlines()]
        return [each for each in lines if request_id in each]

    async def story(self, name: str, *, last_s: float | None, lines: int) -> Story:
        return tell(self.events.since(), self.resolve(name).name, lines=lines)

    async def start(self, name: str, *, wait: bool = True) -> ActionResult:
        if not self.ready:
            raise Stopping("Corral is shutting down", hint="wait")
        unit = self.units_by_name[self.resolve(name).name]
        changed = not unit.running
        if changed and wait:
            await self._start(unit)
        return ActionResult(unit.settings.name, "ready", changed, 0.0, "started" if changed else "it runs already")

    async def stop(self, name: str, *, wait: bool = True) -> ActionResult:
        unit = self.units_by_name[self.resolve(name).name]
        changed = unit.running
        await self._stop(unit)
        return ActionResult(unit.settings.name, "stopped", changed, 0.0, "stopped")

    async def preview(self, name: str) -> PlanInfo:
        model = self.resolve(name)
        return PlanInfo(
            model=model.name, unit=f"{model.name}.1", engine=model.engine, engine_version="", runner=model.runner,
            argv=["engine"], command=["engine"], env={}, endpoint="unix:/s", mounts=[], devices=["cpu"], nodes=[],
            image=None, image_id=None, footprint={}, footprint_origin="estimated", memory_limit_bytes=None,
            pids_limit=None, context=0, slots=1,
        )  # fmt: skip

    async def restart(self, name: str, *, wait: bool = True) -> ActionResult:
        await self.stop(name)
        return await self.start(name)

    async def tune(self, name: str, tuning: Tuning) -> ModelSettings:
        model = self.resolve(name)
        self.tuned[model.name] = tuning
        return tuning.of(model)

    def tunings(self) -> dict[str, Tuning]:
        return {name: tuning for name, tuning in self.tuned.items() if tuning}

    def reached(self, model: str) -> None:
        self.looked_at.append(model)

    async def hand_over(self) -> str:
        raise Stopping("this one never hands over", hint="")

    async def reload(self) -> ReloadResult:
        if self.bad_config:
            raise ConfigError("models.yaml, line 3: unknown key `contxt`", hint="did you mean `context`?")
        if self.next_settings is not None:
            await self.listeners.update(self.next_settings)
            self._settings = self.next_settings
        return ReloadResult(None, [], [], [], [], "nothing changed")

    # The whole

    @property
    def address(self) -> Listen:
        return self.listeners.addresses[0]

    async def open(self, control_socket: Path | None = None) -> None:
        await self.listeners.open(self._settings, control_socket)

    async def close(self) -> None:
        self.gate.set()
        await self.listeners.close(0.0)
        for unit in self.units_by_name.values():
            await self._stop(unit)


async def _healthy(path: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except ConnectionError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
