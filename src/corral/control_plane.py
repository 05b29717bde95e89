"""The control plane: what the gateway's control routes ask of a running server, over the parts that do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from corral import __version__, clock, views
from corral.api import ActionResult, ModelInfo, ReloadResult, Status, UnitInfo
from corral.config.diff import changes
from corral.config.load import Loaded
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.errors import CorralError, Stopping
from corral.events import EventLog
from corral.facts import Adapters, policy, specs
from corral.gateway.listen import Listeners
from corral.routing.resolve import resolve
from corral.scheduler.loop import Scheduler
from corral.supervisor import logs
from corral.supervisor.fleet import Fleet
from corral.supervisor.machine import State
from corral.supervisor.unit import Spawn


class ControlPlane:
    """The gateway's `Host`. The daemon makes it, opens `listeners`, and sets `ready`."""

    def __init__(
        self,
        loaded: Loaded,
        load_again: Callable[[], Loaded],
        *,
        paths: Paths,
        events: EventLog,
        adapters: Adapters,
        fleet: Fleet,
        scheduler: Scheduler,
        spawn: Spawn,
    ) -> None:
        self.settings: Settings = loaded.settings
        self.warnings = [str(problem) for problem in loaded.warnings]
        self.events = events
        self.ready = False
        self.listeners: Listeners | None = None
        self._load_again = load_again
        self._paths, self._adapters, self._fleet, self._scheduler = paths, adapters, fleet, scheduler
        self._spawn = spawn
        self._reloading = asyncio.Lock()
        self._started_wall_s, self._started_at = clock.wall(), clock.monotonic()

    @property
    def addresses(self) -> list[str]:
        """What is listened on."""
        return [] if self.listeners is None else [str(address) for address in self.listeners.addresses]

    def resolve(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        return resolve(self.settings, name, listener_default)

    async def find(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        return self.resolve(name, listener_default)

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
            listen=self.addresses,
            config_file=str(self.settings.file) if self.settings.file is not None else None,
            state_dir=str(self._paths.state_dir),
            max_active=self.settings.max_active,
            resident=self._scheduler.resident,
            waiting=self._scheduler.waiting,
            in_flight=self._scheduler.in_flight,
            memory_bytes=views.own_memory_bytes(),
            models=len(self.settings.models),
            budgets=dict(self.settings.memory),
            warnings=list(self.warnings),
        )

    def log_files(self, name: str) -> list[Path]:
        return logs.log_files(self._paths, self.resolve(name).name)

    async def start(self, name: str, *, wait: bool = True) -> ActionResult:
        model, began = self.resolve(name).name, clock.monotonic()
        if not self.ready:
            raise Stopping("Corral is shutting down", hint="try again once it is back")
        if self._state(model) is State.READY:
            return self._result(model, False, began, f"{model} is ready already")
        asking = self._spawn(self._ask(model), name=f"start {model}")
        if not wait:
            return self._result(model, True, began, f"{model} is being started")
        # Shielded: the load goes on when the client that asked for it leaves.
        if (error := await asyncio.shield(asking)) is not None:
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
        model, began = self.resolve(name).name, clock.monotonic()
        restarting = self._spawn(self._stop_and_ask(model), name=f"restart {model}")
        if not wait:
            return self._result(model, True, began, f"{model} is being restarted")
        if (error := await asyncio.shield(restarting)) is not None:
            raise error
        return self._result(model, True, began, f"{model} is ready again")

    async def _stop_and_ask(self, model: str) -> CorralError | None:
        await self.stop(model)
        return await self._ask(model)

    async def reload(self) -> ReloadResult:
        async with self._reloading:
            loaded = await asyncio.to_thread(self._load_again)
            new, made = loaded.settings, changes(self.settings, loaded.settings)
            fresh = await specs(new, self._adapters)
            if self.listeners is not None:
                await self.listeners.update(new)
            self.settings, self.warnings = new, [str(problem) for problem in loaded.warnings]
            self._fleet.configure(new)
            self._scheduler.queue_timeout_s = new.timeouts.queue_s
            self._scheduler.configure(fresh, policy(new), frozenset(made.relaunch))
        self.events.post("config.reloaded", made.text(), file=str(new.file) if new.file else None)
        return ReloadResult(
            file=str(new.file) if new.file is not None else None,
            added=list(made.added),
            removed=list(made.removed),
            changed=list(made.changed),
            needs_restart=list(made.needs_restart),
            text=made.text(),
        )

    async def reload_quietly(self) -> None:
        """The same for SIGHUP, where nobody waits for an answer: the event log has it."""
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
