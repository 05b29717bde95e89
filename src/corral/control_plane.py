"""The control plane: what the gateway's control routes ask of a running server, over the parts that do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from corral import __version__, clock, journal, story, views
from corral.access.desk import Desk
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
from corral.config.diff import changes, differing
from corral.config.load import Loaded
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.config.tuning import Tuning, Tunings
from corral.conversations.keeper import KeptConversations
from corral.engines.adapter import Adapter
from corral.errors import CorralError, Stopping, UnknownModel
from corral.events import EventLog
from corral.facts import Adapters, one_spec, policy, specs
from corral.gateway.gate import Caller, may_not
from corral.gateway.listen import Listeners
from corral.guests import Guests
from corral.measures import Measures
from corral.model_plane import ModelPlane
from corral.models.library import Stored, missing
from corral.observability.request_log import RequestLog
from corral.routing.resolve import resolve
from corral.scheduler.loop import Scheduler
from corral.scheduler.state import Spec
from corral.supervisor import healthy, logs, rest
from corral.supervisor.fleet import Fleet
from corral.supervisor.machine import State
from corral.supervisor.means import Spawn


class ControlPlane:
    """The gateway's `Host`. The daemon makes it, opens `listeners`, and sets `ready`."""

    def __init__(
        self,
        loaded: Loaded,
        load_again: Callable[[Path | None], Loaded],
        *,
        paths: Paths,
        events: EventLog,
        adapters: Adapters,
        fleet: Fleet,
        scheduler: Scheduler,
        spawn: Spawn,
        specs: dict[str, Spec],
        models: ModelPlane,
        held: Callable[[], dict[str, str]],
        journal: journal.Journal,
        measures: Measures,
        tunings: Tunings,
    ) -> None:
        # The configured models, and those of the store that were asked for.
        self.settings: Settings = tunings.over(loaded.settings)
        self._warnings = [str(problem) for problem in loaded.warnings]
        self.events = events
        self.ready = False
        self.listeners: Listeners | None = None
        self.give_over: Callable[[], str] | None = None  # set by the daemon
        self.conversations: KeptConversations | None = None
        self.desk: Desk | None = None
        self.planner: Adapter | None = None  # of plans that are only shown
        self.requests: RequestLog | None = None
        self._load_again = load_again
        self._paths, self._adapters, self._fleet, self._scheduler = paths, adapters, fleet, scheduler
        self._spawn = spawn
        self._guests = Guests(models.library, specs)
        self._models, self._held, self._journal, self._measures = models, held, journal, measures
        self._tunings = tunings
        self._configured: Settings = loaded.settings
        self._reloading = asyncio.Lock()
        self._started_wall_s, self._started_at = clock.wall(), clock.monotonic()

    @property
    def addresses(self) -> list[str]:
        """What is listened on."""
        return [] if self.listeners is None else [str(address) for address in self.listeners.addresses]

    @property
    def warnings(self) -> list[str]:
        """What whoever runs the server should know of its configuration."""
        tuned = [name for name in self._tunings.all() if name in self._configured.models]
        other = "is started as a client configured it, not as models.yaml says: `docker model configure show` tells how"
        return [*self._warnings, *(f"{name} {other}" for name in tuned)]

    def resolve(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        return resolve(self.settings, name, listener_default)

    async def find(
        self, name: str | None, listener_default: str | None = None, caller: Caller | None = None
    ) -> ModelSettings:
        try:
            model = self.resolve(name, listener_default)
        except UnknownModel as unknown:
            if not name:
                raise
            if caller is not None and not caller.may_use(await asyncio.to_thread(self._guests.called, name)):
                raise may_not(name) from None  # before it is looked up, so that nobody learns what is here
            guest = await self._guest(name, unknown, fetch=caller is None or caller.may("pull"))
            await self._foretell(guest)
            return guest
        if model.ref is not None and self._state(model.name) is not State.READY:
            if caller is not None and not caller.may_use((model.name, *model.aliases)):
                raise may_not(model.name)
            await self._make_here(model)
        return model

    async def _guest(self, name: str, unknown: UnknownModel, *, fetch: bool = True) -> ModelSettings:
        """A model of the store that nothing configures. Raises `unknown`, with the command that fetches it."""
        stored = await asyncio.to_thread(self._guests.look, name)
        if stored is None:
            if (lying := await asyncio.to_thread(self._guests.look_in_roots, name)) is not None:
                return await self._serve(lying)
            ref = await asyncio.to_thread(self._guests.fetchable, name) if fetch else None
            if ref is None:
                raise await asyncio.to_thread(self._guests.explained, name, unknown)
            view = await self._models.fetched(name, self.settings.timeouts.queue_s)
            stored = await asyncio.to_thread(self._models.library.find, view.name)
        return await self.admit(stored)

    async def admit(self, stored: Stored) -> ModelSettings:
        """Has a model of the store served under its full name from now on."""
        return await self._serve(self._models.library.settings_for(stored))

    async def _serve(self, model: ModelSettings) -> ModelSettings:
        async with self._reloading:
            if (known := self.settings.models.get(model.name)) is not None:
                return known
            spec = await one_spec(self._tunings.of(model), self.settings, self._adapters)
            generation = await asyncio.to_thread(logs.last_generation, self._paths, model.name)
            self._guests.add(model, spec)
            self._take_up()
            self._scheduler.begin_at(model.name, generation)
        return self.settings.models[model.name]

    async def _foretell(self, model: ModelSettings) -> None:
        """Has the scheduler know what `model` takes before its first start."""
        place = self._scheduler.place(model.name)
        if place is not None and not place.spec.footprint:
            await self._measures.foretell(model, self._adapters[model.engine].footprint)

    async def _make_here(self, model: ModelSettings) -> None:
        """Raises UnknownModel when the model that `model` refers to is not in the store and may not be fetched."""
        assert model.ref is not None
        library = self._models.library
        if not await asyncio.to_thread(library.is_here, model.ref):
            if not library.may_auto_pull(model.ref):
                raise missing(str(model.ref), str(model.ref))
            await self._models.fetched(str(model.ref), self.settings.timeouts.queue_s)
        elif not self.settings.memory or self._guests.specs[model.name].footprint:
            await self._foretell(model)
            return
        async with self._reloading:  # what it takes is known only now
            self._guests.specs[model.name] = await one_spec(model, self.settings, self._adapters)
            self._take_up()

    def _take_up(self, outdated: frozenset[str] = frozenset()) -> None:
        """Tells everybody what may be served."""
        self.settings = self._tunings.over(self._guests.among(self._configured))
        self._fleet.configure(self.settings)
        self._scheduler.configure(self._guests.specs_for(self.settings), policy(self.settings), outdated)

    async def tune(self, name: str, tuning: Tuning) -> ModelSettings:
        model = (await self.known(name)).name
        async with self._reloading:
            changed = self._tunings[model] != tuning
            await asyncio.to_thread(self._tunings.put, model, tuning)
            if changed:
                tuned = self._tunings.over(self._guests.among(self._configured)).models[model]
                self._guests.specs[model] = await one_spec(tuned, self.settings, self._adapters)
                relaunch = {"context", "args"} & set(differing(self.settings.models[model], tuned))
                self._take_up(frozenset({model} if relaunch else ()))
                self.events.post("config.tuned", f"{model} is to be started in another way", model=model)
        return self.settings.models[model]

    def tunings(self) -> Mapping[str, Tuning]:
        return self._tunings.all()

    async def stored_names(self) -> list[tuple[str, float]]:
        return await asyncio.to_thread(self._guests.names)

    def digests_in_use(self) -> set[str]:
        return set(self._held().values())

    def guests_in_use(self) -> set[str]:
        return self._guests.among_those({unit.partition("~")[0] for unit in self._held()})

    def configured_names(self) -> set[str]:
        return {model.ref.name for model in self._configured.models.values() if model.ref is not None}

    async def store_changed(self) -> None:
        """Models of the store that are gone are no longer served; their engines end when they have answered."""
        async with self._reloading:
            running = {unit.model.name for unit in self._fleet if unit.state is not State.STOPPED}
            if await asyncio.to_thread(self._guests.drop_gone, running):
                self._take_up()
        await self._settle_conversations()

    async def _settle_conversations(self) -> None:
        if self.conversations is not None:
            await self.conversations.settle()

    def models(self) -> list[ModelInfo]:
        library = self._models.library
        return [views.model_info(model, self.settings, self._fleet, library) for model in self.settings.models.values()]

    def units(self) -> list[UnitInfo]:
        now = clock.monotonic()
        return [
            views.unit_info(
                unit,
                self._scheduler.place(unit.model.name),
                now,
                self._notes(unit.model.name),
                self._scheduler.expected_wait_s(unit.model.name),
                self._measures.held.get(unit.model.name),
            )
            for unit in self._fleet
            if unit.generation > 0 and unit.plan is not None
        ]

    def _notes(self, unit: str) -> list[str]:
        return self.conversations.notes(unit) if self.conversations is not None else []

    async def devices(self) -> list[DeviceInfo]:
        return await self._measures.devices()

    async def health(self, name: str | None) -> HealthInfo:
        if name is None:
            text = f"takes work on {', '.join(self.addresses)}" if self.ready else "takes no work"
            return HealthInfo(self.ready, None, [HealthCheck("server", self.ready, text, 0.0)])
        model = (await self.known(name)).name
        places = {unit.name: self._scheduler.place(unit.model.name) for unit in self._fleet.of_model(model)}
        busy = {each: len(place.leases) for each, place in places.items() if place is not None}
        return await healthy.examine(model, self._fleet.of_model(model), busy)

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
            warnings=self.warnings,
        )

    async def logged(self, name: str) -> str:
        return self._replica(name) or (await self.known(name)).name

    def log_files(self, name: str) -> list[Path]:
        replica = self._fleet.wanted(name)
        return logs.log_files(self._paths, name if replica is not None else self.resolve(name).name)

    async def request_lines(self, name: str, request_id: str) -> list[str]:
        model = await self.known(name if self._replica(name) is None else name.rpartition("~")[0])
        return [] if self.requests is None else await self.requests.lines(model.name, request_id, model.engine)

    async def story(self, name: str, *, last_s: float | None, lines: int) -> Story:
        since_wall_s = 0.0 if last_s is None else clock.wall() - last_s
        await self._journal.flush()
        try:
            model, unknown = self._replica(name) or (await self.known(name)).name, None
        except UnknownModel as error:
            model, unknown = name, error  # what is not configured any more may still have a story
        told = await asyncio.to_thread(self._tell, model, since_wall_s, lines)
        if unknown is not None and not told.chapters:
            raise unknown
        return told

    def _tell(self, model: str, since_wall_s: float, lines: int) -> Story:
        events = journal.read(self._paths.state_dir, about=model)
        return story.tell(events, model, since_wall_s=since_wall_s, lines=lines)

    async def start(self, name: str, *, wait: bool = True) -> ActionResult:
        began = clock.monotonic()
        model = (await self.find(name)).name
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

    async def known(self, name: str) -> ModelSettings:
        """As `find`, but nothing is fetched, and what is configured need not be here."""
        try:
            return self.resolve(name)
        except UnknownModel as unknown:
            return await self._guest(name, unknown, fetch=False)

    async def _ask(self, model: str) -> CorralError | None:
        # An error is the task's result: raised, it would end the whole group when nobody waits for it.
        try:
            await self._scheduler.ensure_ready(model, force=True)
        except CorralError as error:
            return error
        return None

    def _replica(self, name: str) -> str | None:
        """The unit that is meant where `name` is that of a replica: `<model>~2`, or so after an alias."""
        called, mark, number = name.rpartition("~")
        if not mark or not called:
            return None
        with suppress(UnknownModel):
            name = f"{self.resolve(called).name}~{number}"
        return name if self._fleet.get(name) is not None else None

    async def stop(self, name: str, *, wait: bool = True) -> ActionResult:
        replica, began = self._replica(name), clock.monotonic()
        model = replica or (await self.known(name)).name
        those = self._fleet.of_model(model) if replica is None else [self._fleet.get(model)]
        units = [unit for unit in those if unit is not None and unit.state is not State.STOPPED]
        if not units:
            if replica is not None or (waited := self._refuse_waiting(model)) == 0:
                return self._result(model, False, began, f"{model} does not run")
            waits = "1 request that waited for it was" if waited == 1 else f"{waited} requests that waited for it were"
            return self._result(model, True, began, f"{model} does not run; {waits} refused")
        self._scheduler.stop_unit(model, "`corral stop`")
        for unit in units:
            if unit.state in (State.BACKOFF, State.FAILED):
                await unit.stop("`corral stop`")
        if wait:
            await asyncio.gather(*(unit.wait_stopped() for unit in units))
            return self._result(model, True, began, f"{model} is stopped")
        return self._result(model, True, began, f"{model} is being stopped")

    def _refuse_waiting(self, model: str) -> int:
        """Has what waits for a model that does not run refused; how many requests that were."""
        place = self._scheduler.place(model)
        waited = len(place.line) if place is not None else 0
        if waited:
            self._scheduler.stop_unit(model, "`corral stop`")
        return waited

    async def restart(self, name: str, *, wait: bool = True) -> ActionResult:
        began = clock.monotonic()
        model = (await self.find(name)).name
        restarting = self._spawn(self._stop_and_ask(model), name=f"restart {model}")
        if not wait:
            return self._result(model, True, began, f"{model} is being restarted")
        if (error := await asyncio.shield(restarting)) is not None:
            raise error
        return self._result(model, True, began, f"{model} is ready again")

    async def _stop_and_ask(self, model: str) -> CorralError | None:
        if self._state(model) is not State.STOPPED:  # else nothing runs, and those who wait for it go on waiting
            await self.stop(model)
        return await self._ask(model)

    async def preview(self, name: str) -> PlanInfo:
        model = await self.known(name)
        adapter = self._adapters[model.engine] if self.planner is None else self.planner
        return views.plan_info(*await self._fleet.preview(model, adapter))

    def reached(self, model: str) -> None:
        for unit in self._fleet.of_model(model):
            self._spawn(rest.notice(unit, self._scheduler), name=f"look whether {unit.name} sleeps")

    async def hand_over(self) -> str:
        if not self.ready or self.give_over is None:
            raise Stopping("Corral cannot hand over now", hint="it is starting, ending or handing over already")
        return self.give_over()

    async def reload(self) -> ReloadResult:
        async with self._reloading:
            loaded = await asyncio.to_thread(self._load_again, self._configured.file)
            if self.desk is not None:
                await self.desk.reload()  # a command may have made keys before it saw this server
            new, made = loaded.settings, changes(self._configured, loaded.settings)
            if self.listeners is not None:
                await self.listeners.update(new)
            await asyncio.to_thread(self._models.library.configure, new)
            # The new way out first: a footprint may be that of a stored model.
            self._guests.specs = {**self._guests.specs, **await specs(self._tunings.over(new), self._adapters)}
            self._configured, self._warnings = new, [str(problem) for problem in loaded.warnings]
            self._scheduler.queue_timeout_s = new.timeouts.queue_s
            self._take_up(frozenset(made.relaunch))
            self._measures.foresee(new.models.values(), lambda each: self._adapters[each.engine].footprint(each))
        await self._settle_conversations()
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
        if "~" in model:
            return unit.state if (unit := self._fleet.get(model)) is not None else State.STOPPED
        states = [unit.state for unit in self._fleet.of_model(model)]
        return State.READY if State.READY in states else states[0] if states else State.STOPPED

    def _result(self, model: str, changed: bool, began: float, text: str) -> ActionResult:
        took_ms = (clock.monotonic() - began) * 1000
        return ActionResult(model, str(self._state(model)), changed, took_ms, text)
