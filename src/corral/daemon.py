"""The composition root: builds every part once, owns the TaskGroup and the signals, ends everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral import __version__, clock, journal, views
from corral.access.desk import Desk
from corral.access.gate import AccessGate
from corral.access_plane import AccessPlane
from corral.at_start import preload, warm
from corral.config.load import Loaded
from corral.config.paths import Paths
from corral.config.settings import Settings
from corral.config.tuning import Tunings
from corral.control_plane import ControlPlane
from corral.conversations.keeper import KeptConversations
from corral.conversations.shelf import Shelf
from corral.engine_room import ENGINES, ByEngine, Needs, Runners
from corral.engines.stored import FromStore
from corral.errors import CorralError, Stopping
from corral.events import EventLog
from corral.facts import policy, specs
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from corral.hardware.watch import Watcher
from corral.ledger import ledger as ledgers
from corral.log import Console
from corral.measures import Measures, listed
from corral.metrics.record import Recorder
from corral.model_plane import ModelPlane
from corral.models.fetching.job_view import JobView
from corral.models.library import Library
from corral.observability.afterwards import Afterwards
from corral.observability.engine_metrics import EngineMetrics
from corral.observability.gauges import Gauges
from corral.observability.live import LiveView
from corral.observability.metering import Metering
from corral.observability.places import Places
from corral.observability.request_log import chosen
from corral.parts import Parts
from corral.runners import nursery
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.serve_options import ServeOptions
from corral.state_lock import StateLock, write_daemon_file
from corral.supervisor import logs
from corral.supervisor.adopt import adopt_survivors
from corral.supervisor.fair import Fair
from corral.supervisor.fleet import Fleet, Relay, units_in
from corral.supervisor.keep import Keeper
from corral.supervisor.machine import State
from corral.supervisor.means import Means
from corral.supervisor.pulse import Pulses
from corral.supervisor.reasons import explain
from corral.supervisor.watch import Watch
from corral.tasks import Tasks, done_before

if TYPE_CHECKING:
    from corral.handover.give import GivingOver
    from corral.handover.go_on import GoingOn
    from corral.handover.take import Taken

_IDLE_LOOK_S = 1.0


class Daemon:
    """One server's life, from the warden's link to the last engine's end."""

    def __init__(
        self,
        options: ServeOptions,
        paths: Paths,
        loaded: Loaded,
        load_again: Callable[[Path | None], Loaded],
        lock: StateLock,
        taken: Taken | None,
        opened: Mapping[str, list[socket.socket]],
    ) -> None:
        """`lock` is the state directory's; `taken` is what an earlier server handed over; `opened` are sockets that
        listen already, by address."""
        self.options, self.paths = options, paths
        self._lock, self._taken, self._opened = lock, taken, opened
        self._giving: GivingOver | None = None  # while another server takes over
        self._going_on: GoingOn | None = None
        self._engines_stay = False
        self.events = EventLog()
        self._loaded, self._load_again = loaded, load_again
        self._journal = journal.Journal(paths.state_dir, say=partial(self._tell, "journal.failing"))
        before = journal.last(paths.state_dir)
        self.events.resume(before, journal.next_number(before))
        self.events.keep = self._journal.take
        self._tunings = Tunings(paths.state_dir / "tunings.json")
        self._settings = self._tunings.over(loaded.settings)  # as started; the control plane has the current ones
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._group: Tasks
        self._plane: ControlPlane | None = None
        self._loop: asyncio.AbstractEventLoop

    async def run(self) -> int:
        """Serves until `end`; everything it started has ended when it returns."""
        console = Console(
            self.events, lambda: chosen(self.options, self._current).format,
            level=self.options.log_level, quiet=self.options.quiet,
        )  # fmt: skip
        failure: CorralError | None = None
        self._loop = asyncio.get_running_loop()
        async with await WardenLink.connect(self.paths) as link, Tasks() as self._group:
            parts = await self._build(ProcessRunner(link, self.paths))
            afterwards = Afterwards(
                parts.metering, self.options, self.paths, lambda: self._current, self.events, console.write,
                parts.desk.label_of,
            )  # fmt: skip
            parts.plane.requests = afterwards.requests
            background = [
                asyncio.create_task(console.run(), name="console"),  # to the very end
                self._spawn(self._idle(parts), name="idle exit"),
                self._spawn(logs.keep_bounded(parts.fleet.live_logs), name="cap logs"),
                self._spawn(parts.runner.keep_nursery(partial(self._tell, "warden.nursery")), name="nursery"),
                self._spawn(self._journal.run(), name="journal"),
                self._spawn(parts.desk.run(), name="keys and usage"),
                self._spawn(parts.watch.run(), name="watch engines"),
                self._spawn(parts.metering.run(), name="metering"),
                self._spawn(afterwards.run(), name="request log"),
                self._spawn(parts.gpu_return(self.events, self._spawn).run(), name="return to GPUs"),
                self._spawn(parts.measures.sample(parts.scheduler_works, parts.scheduler.memory_seen), name="sample"),
            ]
            with self._signals(parts.plane):
                try:
                    await self._open(parts)
                    await self._end.wait()
                except CorralError as error:
                    failure = error  # raised below: out of the group it would come wrapped
                    # Engines that ran before this server are not its to end when it cannot even come up.
                    self._engines_stay = self._engines_stay or parts.scheduler.resident > 0
                parts.plane.ready = False
                giving = self._giving if self._giving is not None and self._giving.is_ready else None
                if giving is not None or self._engines_stay:
                    await self._leave(parts, giving)
                else:
                    await self._close(parts)
            await parts.runners.aclose()
            await afterwards.aclose()
            for task in background:
                task.cancel()
        self.events.post("server.ended", "ended")
        await self._journal.flush()
        console.flush()
        if failure is not None:
            raise failure
        return 0

    async def _build(self, runner: ProcessRunner) -> Parts:
        settings = self._settings
        models = ModelPlane(self._library, self.events)
        ledger = ledgers.Ledger(self.paths.state_dir / ledgers.FILE, self._warn_of_ledger)
        watcher = Watcher(own=lambda: measures.own(), listed=listed)
        measures = Measures(
            lambda: fleet,
            watcher,
            ledger,
            settings=lambda: self._current,
            events=self.events,
            spawn=self._spawn,
            measured=lambda name, footprint, real: scheduler.measured(name, footprint, real=real),
        )
        kept = KeptConversations(
            Shelf(self.paths.conversations_dir),
            self.events,
            self._spawn,
            plan_of=lambda model: fleet.plan(model),
            busy=lambda model: scheduler.is_busy(model),
            most=lambda: self._current.conversations_bytes,
        )
        await kept.open()
        desk = Desk(self.paths.access_file, partial(self._tell, "access.warning"))
        await desk.open()
        say = partial(self._tell, "runner.warning")
        needs = Needs(self.paths, ledger, measures.machine, kept.folder, runner, say)
        from_store = FromStore(ByEngine(needs), models.library.ready, self.paths.cache_dir / "templates")
        adapters = dict.fromkeys(ENGINES, from_store)
        await models.open()
        relay = Relay(from_store.release, measures.unit_ready)
        pulses, runners = Pulses(), Runners(needs)
        means = Means(
            self.paths, self.events, adapters, runners, relay, self._spawn, from_store.release, pulses.answered,
            lambda unit, footprint: scheduler.planned(unit, footprint),
        )  # fmt: skip
        fleet = Fleet(settings, means)
        facts = await specs(settings, adapters)
        scheduler = Scheduler(
            facts,
            policy(settings),
            units=fleet,
            events=self.events,
            group=self._group,
            queue_timeout_s=settings.timeouts.queue_s,
            first_generations={name: logs.last_generation(self.paths, name) for name in units_in(settings)},
            look=measures.look,
        )
        scheduler.degraded = fleet.degraded
        relay.to = keeper = Keeper(scheduler, fleet.get, scheduler.ensure_ready, events=self.events, spawn=self._spawn)
        self._plane = plane = ControlPlane(
            self._loaded,
            self._load_again,
            paths=self.paths,
            events=self.events,
            adapters=adapters,
            fleet=fleet,
            scheduler=scheduler,
            spawn=self._spawn,
            specs=facts,
            models=models,
            held=from_store.held,
            journal=self._journal,
            measures=measures,
            tunings=self._tunings,
        )
        models.users = plane
        scheduler.on_idle, plane.conversations, models.forget_conversations = kept.idle, kept, kept.clear
        fair = Fair(pulses, scheduler.pause, self.events)
        watch = Watch(lambda: fleet, pulses, lambda: plane.settings.timeouts.hang_s, fair)
        plane.desk, plane.planner = desk, from_store.preview()
        gate = AccessGate(desk, lambda: plane.settings, insecure=self.options.insecure)
        access = AccessPlane(desk, gate, self.events)
        recorder = Recorder()
        places = Places(self.paths, models.library, self._spawn)
        metering = Metering(recorder, pulses, self.events, places, lambda: plane.settings, desk.label_of)
        metering.show(
            Gauges(fleet, scheduler, measures, models, desk, places, lambda: plane.settings),
            LiveView(fleet, scheduler, measures, models, self.events, metering.fold),
            EngineMetrics(lambda: fleet, self._spawn, metering.engine_failed),
        )
        app = build(
            plane, scheduler, models=models, pulses=pulses, conversations=kept, gate=gate, access=access,
            recorder=recorder, metering=metering,
        )  # fmt: skip
        listeners = plane.listeners = Listeners(app)
        return Parts(
            runner, runners, adapters, from_store, fleet, scheduler, plane, models, listeners, keeper, watch, kept,
            measures, desk, recorder, metering,
        )  # fmt: skip

    @property
    def _current(self) -> Settings:
        return self._settings if self._plane is None else self._plane.settings

    def _library(self, listener: Callable[[JobView], None]) -> Library:
        def warn(text: str) -> None:
            self.events.post("registry.warning", text)

        return Library(self.paths, self._settings, listener=listener, warn=warn)

    def end(self, why: str) -> None:
        """Begins the shutdown; a second call makes it hurry."""
        if self._end.is_set():
            self._hurry.set()
        else:
            running = self._plane.listeners.unanswered if self._plane and self._plane.listeners else 0
            self.events.post("server.ending", views.ending(why, running, self._current.timeouts.drain_s))
            self._end.set()

    def _end_without_engines(self) -> None:
        self._engines_stay = True
        self.end("SIGUSR1: the engines stay for the next server")

    async def _open(self, parts: Parts) -> None:
        settings = self._settings
        for departed in [each for runner in parts.runners.of_the_past() for each in await runner.departed()]:
            name = departed.unit.rpartition(".")[0]
            tail = await asyncio.to_thread(logs.tail, departed.log, 20)
            why = explain(departed.exit, tail, name).text
            text = f"{departed.unit} ended while no server ran: {why}"
            self.events.post("unit.ended", text, model=name, unit=departed.unit, why=why)
        if (taken := self._taken) is not None:  # told before the engines are, so that a story knows how they ran on
            self.events.post("server.handover", views.taking_over(taken.pid, taken.version), pid=taken.pid)
        await self._adopt(parts)
        await parts.measures.recall()
        await parts.listeners.open(settings, self.paths.control_socket, self._opened)
        addresses = parts.plane.addresses
        facts = {"pid": os.getpid(), "socket": str(self.paths.control_socket), "listen": addresses}
        self._go_on(parts)
        write_daemon_file(self.paths, {**facts, "version": __version__, "started_wall_s": clock.wall()})
        parts.plane.ready = True
        for warning in parts.plane.warnings:
            self.events.post("config.warning", warning)
        self.events.post("server.ready", f"listening on {', '.join(addresses)}", pid=os.getpid())
        views.greet(self.options, addresses, settings)
        if nursery.wanted(settings.models.values()):
            parts.runner.expect_embedded()
        self._spawn(asyncio.to_thread(warm, parts.adapters, settings), name="warm")
        parts.measures.foresee(settings.models.values(), lambda each: parts.adapters[each.engine].footprint(each))
        for model in settings.models.values():
            if model.preload:
                self._spawn(preload(parts.plane, model.name), name=f"preload {model.name}")
        parts.scheduler.keep_hours()

    async def _adopt(self, parts: Parts) -> None:
        """Takes over the engines that ran on, those of stored models too."""
        found = [each for runner in parts.runners.of_the_past() for each in await runner.survivors()]
        for survivor in found:
            with suppress(CorralError):  # not in the store any more, so that it will be stopped
                await parts.plane.known(survivor.plan.model)
        settings = parts.plane.settings
        adopted = await adopt_survivors(
            found, parts.fleet, settings, parts.adapters, self.events, parts.scheduler.adopt
        )
        for name in parts.from_store.held():
            if name not in adopted:
                parts.from_store.release(name)

    def _go_on(self, parts: Parts) -> None:
        """Goes on with what an earlier server handed over."""
        parts.plane.give_over = partial(self._give_over, parts)
        if (taken := self._taken) is None:
            if self.options.handover:
                self.events.post("server.handover", "no server runs that could hand over: started as ever")
            return
        from corral.handover.go_on import GoingOn  # for the few servers that take over

        running = [unit.name for unit in parts.fleet if unit.state is State.READY]
        held = {name: count for name, count in taken.held.items() if (u := parts.fleet.get(name)) and u.running}
        taken.held = held
        self.events.post("server.handover", views.took_over(taken.pid, running, held), pid=taken.pid)
        self._going_on = GoingOn(taken, parts.listeners, parts.scheduler.lease, self._spawn)

    def _give_over(self, parts: Parts) -> str:
        """Begins a handover to the server that waits for it. Raises StateInUse, Stopping."""
        from corral.handover.give import GivingOver
        from corral.handover.take import connect

        if self._giving is not None or self._end.is_set():
            raise Stopping("Corral is handing over or ending already", hint="try again when it has")
        moving = (State.STARTING, State.LOADING, State.STOPPING, State.DRAINING)
        self._giving = giving = GivingOver(
            connect(self.paths),
            parts.listeners,
            parts.scheduler,
            lambda: not any(unit.state in moving for unit in parts.fleet),
        )
        self._spawn(self._hand_over(parts, giving), name="hand over")
        return "another server takes over"

    async def _hand_over(self, parts: Parts, giving: GivingOver) -> None:
        if not await giving.prepare(parts.plane.settings.timeouts.drain_s):
            self.events.post("server.handover", "the server that was to take over went away: this one goes on")
            self._giving = None
        elif not self._end.is_set():
            self.end("another server takes over, with the engines")

    async def _leave(self, parts: Parts, giving: GivingOver | None) -> None:
        """Leaves the engines to the next server; to one that takes over, everything but the running answers. Bounded
        by the drain timeout."""
        parts.keeper.close()
        parts.kept.close()
        parts.scheduler.let_go()
        if giving is None:
            await self._drain(parts)
        self._group.cancel()
        await parts.models.close()
        await parts.measures.aclose()
        await self._journal.flush()
        await parts.desk.flush()  # the next server counts on from what it finds
        self.events.keep = lambda entry: None  # the journal is the other's
        if self._going_on is not None:
            self._going_on.close()
        self._lock.release()
        if giving is not None:
            giving.give()
            await done_before(self._hurry, giving.until_answered(parts.plane.settings.timeouts.drain_s))
            giving.close()
            await parts.listeners.close(0.0)
        await parts.desk.close(last=False)
        with suppress(CorralError):
            await parts.runner.link.bye()
        await parts.runner.link.aclose()

    async def _close(self, parts: Parts) -> None:
        """Drains, then stops every engine. Bounded by the drain and stop timeouts."""
        timeouts = parts.plane.settings.timeouts
        if self._giving is not None:
            self._giving.close()
        if self._going_on is not None:
            self._going_on.close()
        parts.keeper.close()
        parts.kept.close()
        parts.scheduler.close()
        await self._drain(parts)
        await parts.desk.close()
        await asyncio.gather(parts.models.close(), *(unit.stop("Corral ends") for unit in parts.fleet))
        await parts.measures.aclose()
        await parts.runner.link.shutdown(timeouts.stop_s)
        await parts.runner.link.aclose()

    async def _drain(self, parts: Parts) -> None:
        """Lets running answers end, unless somebody hurries."""
        if not await done_before(self._hurry, parts.listeners.close(parts.plane.settings.timeouts.drain_s)):
            await parts.listeners.close(0.0)

    async def _idle(self, parts: Parts) -> None:
        """Ends the server once nothing was asked of it for the time given by `--idle-exit`."""
        limit = self.options.idle_exit_s
        if limit is None:
            return
        busy_at = clock.monotonic()
        while not self._end.is_set():
            await asyncio.sleep(min(_IDLE_LOOK_S, limit / 4 + 0.01))
            if parts.listeners.in_flight or parts.scheduler.in_flight or parts.scheduler.waiting or parts.models.busy:
                busy_at = clock.monotonic()
            elif clock.monotonic() - busy_at >= limit:
                self.end(f"idle for {limit:.0f} s")

    def _tell(self, kind: str, why: str) -> None:
        self.events.post(kind, why)

    def _warn_of_ledger(self, why: str) -> None:
        with suppress(RuntimeError):  # called in the ledger's thread, perhaps after the loop's end
            self._loop.call_soon_threadsafe(self.events.post, "ledger.warning", why)

    def _spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        return self._group.create_task(work, name=name)

    @contextlib.contextmanager
    def _signals(self, plane: ControlPlane) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled: dict[int, Callable[[], Any]] = {
            signal.SIGINT: lambda: self.end("Ctrl-C"),
            signal.SIGTERM: lambda: self.end("SIGTERM"),
            signal.SIGUSR1: self._end_without_engines,
            signal.SIGHUP: lambda: self._spawn(plane.reload_quietly(), name="reload"),
        }
        for number, action in handled.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
