"""The composition root: builds every part once, owns the TaskGroup and the signals, ends everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from corral import __version__, clock, views
from corral.api import ActionResult, ModelInfo, ReloadResult, Status, UnitInfo
from corral.config.diff import changes
from corral.config.load import Loaded, load
from corral.config.paths import Paths, find_paths
from corral.config.settings import ModelSettings, Settings
from corral.engines.llamacpp import LlamaCpp
from corral.errors import CorralError, Stopping
from corral.events import EventLog
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from corral.log import Console
from corral.routing.resolve import resolve
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.scheduler.state import Policy, Spec
from corral.serve_options import ServeOptions
from corral.state_lock import hold_state, write_daemon_file
from corral.supervisor import logs
from corral.supervisor.adopt import adopt_survivors
from corral.supervisor.fleet import Fleet, Relay
from corral.supervisor.machine import State
from corral.supervisor.unit import Means, how

_IDLE_LOOK_S = 1.0
_LOG_LOOK_S = 15.0


def serve(options: ServeOptions) -> int:
    """Runs a server in the foreground until a signal, or until it was idle long enough; the exit code.

    Raises ConfigError, StateInUse, PortInUse before anything is served.
    """
    paths = find_paths()
    loaded = _load(options, paths)
    paths.make()
    with hold_state(paths), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(Daemon(options, paths, loaded).run())


class Daemon:
    """One running server; it is the gateway's `Host`."""

    def __init__(self, options: ServeOptions, paths: Paths, loaded: Loaded) -> None:
        self.options, self.paths = options, paths
        self.settings: Settings = loaded.settings
        self.events = EventLog()
        self.ready = False
        self._warnings = [str(problem) for problem in loaded.warnings]
        self._started_wall_s, self._started_at = clock.wall(), clock.monotonic()
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._adapters = {"llama.cpp": LlamaCpp()}
        self._scheduler: Scheduler
        self._fleet: Fleet
        self._listeners: Listeners
        self._group: asyncio.TaskGroup

    async def run(self) -> int:
        """Serves until `end`; everything it started has ended when it returns."""
        console = Console(self.events, level=self.options.log_level, quiet=self.options.quiet)
        failure: CorralError | None = None
        async with await WardenLink.connect(self.paths) as link, asyncio.TaskGroup() as self._group:
            runner = ProcessRunner(link, self.paths)
            relay = Relay()
            means = Means(self.paths, self.events, self._adapters, {"process": runner}, relay, self._spawn)
            self._fleet = Fleet(self.settings, means)
            self._scheduler = relay.to = await self._make_scheduler()
            self._listeners = Listeners(build(self, self._scheduler))
            background = [
                self._spawn(console.run(), name="console"),
                self._spawn(self._idle(), name="idle exit"),
                self._spawn(self._cap_logs(), name="cap logs"),
            ]
            with self._signals():
                try:
                    await self._open(runner)
                    await self._end.wait()
                except CorralError as error:
                    failure = error  # raised below: out of the group it would come wrapped
                self.ready = False
                await self._close(runner)
            for task in background:
                task.cancel()
        console.flush()
        if failure is not None:
            raise failure
        return 0

    async def _make_scheduler(self) -> Scheduler:
        return Scheduler(
            await self._specs(self.settings),
            policy(self.settings),
            units=self._fleet,
            events=self.events,
            group=self._group,
            queue_timeout_s=self.settings.timeouts.queue_s,
            first_generations={name: logs.last_generation(self.paths, name) for name in self.settings.models},
        )

    def end(self, why: str) -> None:
        """Begins the shutdown; a second call makes it hurry."""
        if self._end.is_set():
            self._hurry.set()
        else:
            self.events.post("server.ending", f"ending: {why}")
            self._end.set()

    async def _open(self, runner: ProcessRunner) -> None:
        for departed in await runner.departed():
            self.events.post("unit.ended", f"{departed.unit} ended while no server ran: {how(departed.exit)}")
        for name in await adopt_survivors(runner, self._fleet, self.settings, self._adapters, self.events):
            unit = self._fleet.get(name)
            if unit is not None:
                self._scheduler.adopt(name, unit.generation)
        await self._listeners.open(self.settings, self.paths.control_socket)
        addresses = [str(address) for address in self._listeners.addresses]
        write_daemon_file(
            self.paths,
            {
                "pid": os.getpid(),
                "socket": str(self.paths.control_socket),
                "listen": addresses,
                "version": __version__,
                "started_wall_s": self._started_wall_s,
            },
        )
        self.ready = True
        for warning in self._warnings:
            self.events.post("config.warning", warning)
        self.events.post("server.ready", f"listening on {', '.join(addresses)}", pid=os.getpid())
        views.greet(self.options, addresses, self.settings)
        for model in self.settings.models.values():
            if model.preload:
                self._spawn(self._preload(model.name), name=f"preload {model.name}")

    async def _close(self, runner: ProcessRunner) -> None:
        """Drains, then stops every engine. Bounded by the drain and stop timeouts."""
        self._scheduler.close()
        closing = asyncio.create_task(self._listeners.close(self.settings.timeouts.drain_s), name="close listeners")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait({closing, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not closing.done():
            await self._listeners.close(0.0)
        await closing
        await asyncio.gather(*(unit.stop("Corral ends") for unit in self._fleet))
        await runner.link.shutdown(self.settings.timeouts.stop_s)
        await runner.link.aclose()

    async def _preload(self, name: str) -> None:
        with suppress(CorralError):  # the unit's own events tell
            await self._scheduler.ensure_ready(name)

    async def _idle(self) -> None:
        """Ends the server once nothing was asked of it for the time given by `--idle-exit`."""
        limit = self.options.idle_exit_s
        if limit is None:
            return
        busy_at = clock.monotonic()
        while not self._end.is_set():
            await asyncio.sleep(min(_IDLE_LOOK_S, limit / 4 + 0.01))
            if self._listeners.in_flight or self._scheduler.in_flight or self._scheduler.waiting:
                busy_at = clock.monotonic()
            elif clock.monotonic() - busy_at >= limit:
                self.end(f"idle for {limit:.0f} s")

    async def _cap_logs(self) -> None:
        """Keeps the log of an engine that runs for long within its bound."""
        while True:
            await asyncio.sleep(_LOG_LOOK_S)
            for unit in self._fleet:
                if unit.log is not None and unit.running is not None:
                    with suppress(OSError):  # a full disk must not end the server; the next look tries again
                        await asyncio.to_thread(logs.cap, unit.log)

    def _spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        return self._group.create_task(work, name=name)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled: dict[int, Callable[[], Any]] = {
            signal.SIGINT: lambda: self.end("Ctrl-C"),
            signal.SIGTERM: lambda: self.end("SIGTERM"),
            signal.SIGHUP: lambda: self._spawn(self._reload_quietly(), name="reload"),
        }
        for number, action in handled.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    async def _specs(self, settings: Settings) -> dict[str, Spec]:
        """Scheduling facts by model. Footprints are read only where a budget makes them matter."""
        if not settings.memory:
            return {name: spec(model, {}) for name, model in settings.models.items()}
        return await asyncio.to_thread(self._specs_with_footprints, settings)

    def _specs_with_footprints(self, settings: Settings) -> dict[str, Spec]:
        made: dict[str, Spec] = {}
        for name, model in settings.models.items():
            try:
                footprint = dict(self._adapters[model.engine].footprint(model).bytes_by_device)
            except CorralError as error:  # the model cannot start either, and will say so then
                self.events.post("config.warning", f"{name}: {error.message}", model=name)
                footprint = {}
            made[name] = spec(model, footprint)
        return made

    # gateway.host.Host

    def resolve(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        return resolve(self.settings, name, listener_default)

    def models(self) -> list[ModelInfo]:
        return [views.model_info(model, self.settings, self._fleet) for model in self.settings.models.values()]

    def units(self) -> list[UnitInfo]:
        now = clock.monotonic()
        return [
            views.unit_info(unit, self._scheduler.place(unit.model.name), now)
            for unit in self._fleet
            if unit.generation > 0 and unit.plan is not None
        ]

    def status(self) -> Status:
        return Status(
            version=__version__,
            pid=os.getpid(),
            started_wall_s=self._started_wall_s,
            uptime_s=clock.monotonic() - self._started_at,
            listen=[str(address) for address in self._listeners.addresses],
            config_file=str(self.settings.file) if self.settings.file is not None else None,
            state_dir=str(self.paths.state_dir),
            max_active=self.settings.max_active,
            resident=self._scheduler.resident,
            waiting=self._scheduler.waiting,
            in_flight=self._scheduler.in_flight,
            memory_bytes=views.own_memory_bytes(),
            models=len(self.settings.models),
            budgets=dict(self.settings.memory),
            warnings=list(self._warnings),
        )

    def log_files(self, name: str) -> list[Path]:
        return logs.log_files(self.paths, self.resolve(name).name)

    async def start(self, name: str, *, wait: bool = True) -> ActionResult:
        model, began = self.resolve(name).name, clock.monotonic()
        if self._end.is_set():
            raise Stopping("Corral is shutting down", hint="try again once it is back")
        if self._state(model) is State.READY:
            return self._result(model, False, began, f"{model} is ready already")
        asking = self._spawn(self._ask(model), name=f"start {model}")
        if not wait:
            return self._result(model, True, began, f"{model} is being started")
        await asyncio.shield(asking)
        if (error := asking.result()) is not None:
            raise error
        return self._result(model, True, began, f"{model} is ready")

    async def _ask(self, model: str) -> CorralError | None:
        # An error is the task's result: raised, it would end the whole group when nobody waits for it.
        try:
            await self._scheduler.ensure_ready(model, force=True)
        except CorralError as error:
            return error
        return None

    async def stop(self, name: str, *, wait: bool = True) -> ActionResult:
        model, began = self.resolve(name).name, clock.monotonic()
        unit = self._fleet.get(model)
        if unit is None or unit.state is State.STOPPED:
            return self._result(model, False, began, f"{model} does not run")
        self._scheduler.stop_unit(model, "`corral stop`")
        if unit.state in (State.BACKOFF, State.FAILED):
            await unit.stop("`corral stop`")
        if wait:
            await unit.wait_stopped()
            return self._result(model, True, began, f"{model} is stopped")
        return self._result(model, True, began, f"{model} is being stopped")

    async def restart(self, name: str, *, wait: bool = True) -> ActionResult:
        began = clock.monotonic()
        await self.stop(name)
        result = await self.start(name, wait=wait)
        return self._result(result.model, True, began, f"{result.model} is {'ready again' if wait else 'restarting'}")

    async def reload(self) -> ReloadResult:
        async with self._reloading:
            loaded = await asyncio.to_thread(_load, self.options, self.paths)
            new, made = loaded.settings, changes(self.settings, loaded.settings)
            specs = await self._specs(new)
            await self._listeners.update(new)
            self.settings, self._warnings = new, [str(problem) for problem in loaded.warnings]
            self._fleet.configure(new)
            self._scheduler.queue_timeout_s = new.timeouts.queue_s
            self._scheduler.configure(specs, policy(new), frozenset(made.relaunch))
        self.events.post("config.reloaded", made.text(), file=str(new.file) if new.file else None)
        return ReloadResult(
            file=str(new.file) if new.file is not None else None,
            added=list(made.added),
            removed=list(made.removed),
            changed=list(made.changed),
            needs_restart=list(made.needs_restart),
            text=made.text(),
        )

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except CorralError as error:
            self.events.post("config.refused", f"{error.message} (the running configuration stays)", code=error.code)

    def _state(self, model: str) -> State:
        unit = self._fleet.get(model)
        return unit.state if unit is not None else State.STOPPED

    def _result(self, model: str, changed: bool, began: float, text: str) -> ActionResult:
        took_ms = (clock.monotonic() - began) * 1000
        return ActionResult(model, str(self._state(model)), changed, took_ms, text)


def spec(model: ModelSettings, footprint: dict[str, int]) -> Spec:
    """`model` as the scheduler sees it."""
    return Spec(
        name=model.name,
        slots=model.parallel,
        idle_timeout_s=model.idle_timeout_s,
        pin=model.pin,
        priority=model.priority,
        exclusive=model.exclusive,
        group=model.group,
        footprint=footprint,
    )


def policy(settings: Settings) -> Policy:
    return Policy(
        max_active=settings.max_active,
        budgets=dict(settings.memory),
        max_queue=settings.max_queue,
        drain_s=settings.timeouts.drain_s,
    )


def _load(options: ServeOptions, paths: Paths) -> Loaded:
    flags: dict[str, Any] = {"listen": list(options.listen)} if options.listen else {}
    return load(options.config, flags=flags, insecure=options.insecure, paths=paths)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
