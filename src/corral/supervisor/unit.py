"""One supervised engine with one model: starts it, sees it ready, notices its end, stops it.

A unit decides nothing about when to run; its owner, the scheduler, does. It reports through `means.Listener`.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from corral import clock
from corral.config.settings import ModelSettings, Timeouts
from corral.engines.placement import Step
from corral.engines.plan import Endpoint, LaunchPlan
from corral.errors import Bug, CorralError, StartFailed
from corral.runners.runner import Exit, Running
from corral.supervisor import backoff, ends, logs, reasons, served
from corral.supervisor.ahead import Ahead
from corral.supervisor.ends import Ends, how, in_a_row, last_words, oom_kills, shown
from corral.supervisor.fallback import Fallback, gave_up
from corral.supervisor.files import Identity, identity
from corral.supervisor.machine import Event, Machine, State
from corral.supervisor.means import Means
from corral.supervisor.planning import endpoint_of, plan_start
from corral.supervisor.probe import wait_ready
from corral.supervisor.stuck import until_stuck

MAKING_ROOM = "making room"
"""How the reason of a stop begins that is made for another model's sake."""
_SERVING = (State.READY, State.DRAINING)
_PASSING_TRIES = 3
"""Failures in a row from which on a start that was broken off from outside counts as one that failed."""
_STOP_GRACE_S = 6.0
"""How long beyond the stop timeout a stop waits for an end that somebody else asked for."""
_TOLD_WITHIN_S = 1.0
"""How soon after the runner is done with a process its end has been told here too."""


class Unit:
    """The engine of one model through all its generations. Not thread-safe; one event loop owns it."""

    def __init__(self, model: ModelSettings, timeouts: Timeouts, means: Means) -> None:
        self.model = model
        self.timeouts = timeouts
        self.machine = Machine(model.name)
        self.generation = 0
        self.plan: LaunchPlan | None = None
        self.running: Running | None = None
        self.log: Path | None = None
        self.since_wall_s = clock.wall()
        self.ready_wall_s: float | None = None
        self.load_ms: float | None = None
        self.restarts = 0
        self.reason: str | None = None
        self.last_error: CorralError | None = None
        self._failures = 0
        self._ready_at = 0.0
        self._stop_asked = False
        self._files: Identity = ()  # the model's, as they were when the newest start began
        self.ends = Ends()
        self.fallback = Fallback()
        self._ahead: Ahead | None = None
        self._oom_kills: int | None = None  # the kernel's count when the process was started
        self._means = means
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def name(self) -> str:
        """The unit id of the newest generation, `<model>.<generation>`."""
        return f"{self.model.name}.{self.generation}"

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine listens. Raises Bug before the first start."""
        if self.plan is None:
            raise Bug(f"unit {self.name} has no endpoint yet")
        return self.plan.endpoint

    def memory_bytes(self) -> int | None:
        if self.running is None or self.plan is None:
            return None
        return self._means.runners[self.plan.runner].memory_bytes(self.running)

    def expect(self, model: ModelSettings, generation: int) -> None:
        """Begins what a start with these will need and what may be done while something else still runs."""
        if self._ended.is_set():  # its own last process still holds what a plan would
            self._prepare(model, generation)

    async def check(self, model: ModelSettings, generation: int) -> bool:
        """Whether a start with these can be planned. Where it cannot, that was a start that failed, and is reported as
        one, although nothing was stopped for it."""
        ahead = self._prepare(model, generation)
        if await ahead.is_made():
            return True
        if self.generation < generation:  # it has not been started meanwhile
            await self.start(model, generation, ahead)
        return False

    def forgo(self) -> None:
        """The expected start does not come. Nothing where none was expected."""
        if self._ahead is not None:
            self._ahead.drop()

    async def start(self, model: ModelSettings, generation: int, ahead: Ahead | None = None) -> None:
        """Brings a new process up with `model`'s settings, as it was prepared, and reports how that went. Never raises
        CorralError."""
        self.model, self.generation = model, generation
        self._stop_asked = False
        self.restarts += self.state in (State.BACKOFF, State.FAILED)
        self.ends.begin()
        self._ended.clear()
        self.plan, self.running = None, None
        began = clock.monotonic()
        self._move(Event.START_ASKED, "")
        try:
            await self._bring_up(began + self.timeouts.start_s, ahead or self._prepare(model, generation))
        except CorralError as error:
            await self._start_failed(error)
            return
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            failed = StartFailed(
                f"{model.name} could not be started: {error.strerror or error}{where}",
                hint="`corral doctor` checks directories, disk space and limits",
                model=model.name,
            )
            await self._start_failed(failed)
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the unit between two states
            bug = Bug(f"{type(error).__name__}: {error}", model=model.name, unit=self.name)
            self._means.events.post("bug", str(bug), model=model.name, unit=self.name)
            await self._start_failed(bug)
            return
        finally:
            self.forgo()
        self.load_ms = (clock.monotonic() - began) * 1000
        self._became_ready(Event.BECAME_READY, f"loaded in {self.load_ms:.0f} ms", load_ms=round(self.load_ms, 1))

    async def stop(self, why: str) -> None:
        """Ends the process, TERM first and KILL after the stop timeout, and reports it.

        Waiting is bounded: of what not even KILL ends within some seconds, an event tells; its end is still awaited.
        """
        self.forgo()
        if self.ends.ailment is not None and why == self.ends.ailment.text and self.state in _SERVING:
            if self.running is not None:  # what follows is what follows a crash; nothing of it is worth waiting for
                await self.running.stop(0.0)
            return
        if not why.startswith(MAKING_ROOM):  # pushed aside, it comes back as it was
            self.fallback.rested()
        if self.state in (State.BACKOFF, State.FAILED):
            self._failures = 0
            self._move(Event.STOP_ASKED, why)
            return
        if self.state is State.STOPPED:
            return
        grace_s = self.timeouts.stop_s + _STOP_GRACE_S
        if self.state is not State.STOPPING:
            self._stop_asked = True
            self._move(Event.STOP_ASKED, why)
            if self.running is not None:
                await self.running.stop(self.timeouts.stop_s)
                grace_s = _TOLD_WITHIN_S
        try:
            async with asyncio.timeout(grace_s):
                await self._ended.wait()
        except TimeoutError:
            self.warn(f"{self.name} has not ended, although it was killed")

    async def end_hung(self, evidence: str) -> None:
        """Kills a process that hangs: what follows is what follows a crash. `evidence` says in words what was seen.

        There is no TERM first: one that is stopped would not hear it, and nothing of it is worth waiting for.
        """
        may_hang = (State.LOADING, State.READY, State.SLEEPING, State.DRAINING)
        if self.state not in may_hang or self.running is None or self.ends.hung:
            return
        self._says_it_hangs(evidence)
        await self.running.stop(0.0)

    def _says_it_hangs(self, evidence: str) -> None:
        self.ends.hung = evidence
        text = f"{self.name} hangs and is {ends.fate(self.plan)}: {evidence}"
        self._means.events.post("unit.hung", text, model=self.model.name, unit=self.name, evidence=evidence)

    def ails(self, generation: int, said: str) -> str | None:
        """Takes up what a ready engine's own error says of it (`ailing`). Why it must be stopped, as `stop` wants it;
        None when that is known already, or it is another process by now."""
        if generation != self.generation or self.state not in _SERVING or self.ends.told or ends.borrowed(self.plan):
            return None
        self.ends.ailment = reason = reasons.of_itself(said, self.model.name)
        text = f"{self.name} answers with an error of its own and is replaced: {said[:300]}"
        self._means.events.post("unit.ails", text, model=self.model.name, unit=self.name, said=said[:300])
        return reason.text

    async def blameless(self, generation: int, within_s: float) -> bool:
        """Whether that process, once ready, ended for a reason that has nothing to do with the requests it had, or did
        not end at all: one without memory for another thread drops connections and lives on. Waits until its end is
        known, `within_s` at most."""
        found = self.ends.blameless(generation)
        if found is None and generation == self.generation:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._ended.wait()
            found = self.ends.blameless(generation)
            return (found is None and generation == self.generation and self.running is not None) or bool(found)
        return bool(found)

    def mended(self) -> bool:
        """Whether the model's files are others than those of the start that failed: it is worth a try now. Blocks."""
        if self.state not in (State.BACKOFF, State.FAILED) or identity(self.model) == self._files:
            return False
        self._failures = 0
        return True

    async def wait_stopped(self) -> None:
        """Returns once there is no process."""
        await self._ended.wait()

    def shows(self, event: Event, why: str) -> None:
        """Takes up that it has gone to sleep or woken (`rest`), and tells."""
        self._move(event, why)
        told = self._means.listener.unit_slept if event is Event.SLEPT else self._means.listener.unit_ready
        told(self.model.name, self.generation)

    def loads(self, progress: str) -> None:
        """How far its load is, as far as its log tells."""
        if self.state is State.LOADING and progress and progress != self.reason:
            self.reason = progress
            self._means.events.post("unit.progress", f"{self.name} {progress}", model=self.model.name, unit=self.name)

    def warn(self, text: str) -> None:
        self._means.events.post("unit.warning", text, model=self.model.name, unit=self.name)

    def drain(self, why: str) -> None:
        """Shows that no new work comes; what runs goes on."""
        if self.machine.allows(Event.DRAIN_ASKED):
            self._move(Event.DRAIN_ASKED, why)

    def adopt(self, plan: LaunchPlan, running: Running, log: Path, started_wall_s: float) -> None:
        """Takes over an engine of an earlier daemon that has just answered its probe."""
        self.generation, self.plan, self.running, self.log = plan.generation, plan, running, log
        self.fallback.adopted(self.model, plan, clock.monotonic())
        self._ended.clear()
        self._became_ready(Event.ADOPTED, "it was running already")
        self.ready_wall_s = started_wall_s

    async def _bring_up(self, deadline: float, ahead: Ahead) -> None:
        model = self.model
        self.plan, self.log = await ahead.take()
        if self._stop_asked:
            raise StartFailed(f"{model.name} was stopped before it started")
        self.fallback.gpu_missed(self.plan, clock.monotonic())
        for warning in self.plan.warnings:
            self.warn(warning)
        self.running = await self._means.runners[self.plan.runner].start(self.plan, self.log)
        self._oom_kills = await asyncio.to_thread(oom_kills)
        if self._stop_asked:  # asked while it was being spawned
            await self.running.stop(self.timeouts.stop_s)
            raise StartFailed(f"{model.name} was stopped before it was ready")
        said, facts = ends.spawned(self.plan, self.running), gave_up(self.plan)
        self._move(Event.SPAWNED, said, pid=self.running.pid, **facts)
        await self._until_ready(self.plan, self.running, deadline)
        self.plan = await served.known(self.plan)
        if self._stop_asked:  # asked in the moment it became ready
            raise StartFailed(f"{model.name} was stopped as it became ready")

    def _prepare(self, model: ModelSettings, generation: int) -> Ahead:
        if self._ahead is None or not self._ahead.serves(model, generation):
            self.forgo()
            make = partial(self._make, model, generation, self.fallback.for_start(model))
            forgone, told = partial(self._means.forgone, model.name), self._means.planned
            self._ahead = Ahead(
                model, generation, make, forgone, self._ahead, lambda plan: told(model.name, plan.footprint)
            )
            self._means.spawn(self._ahead.run(), name=f"prepare {model.name}.{generation}")
        return self._ahead

    def _make(self, model: ModelSettings, generation: int, step: Step) -> tuple[LaunchPlan, Path]:
        self._files = identity(model)
        if (socket := endpoint_of(self._means.paths, model.name, generation).socket) is not None:
            socket.unlink(missing_ok=True)
        plan = plan_start(self._means.paths, self._means.adapters[model.engine], model, generation, step)
        return plan, logs.prepare(self._means.paths, model.name, generation)

    async def _until_ready(self, plan: LaunchPlan, running: Running, deadline: float) -> None:
        probing = asyncio.create_task(wait_ready(plan.endpoint, plan.probe, deadline), name=f"probe {plan.unit}")
        dying = asyncio.create_task(running.wait(), name=f"wait {plan.unit}")
        sticking = asyncio.create_task(until_stuck(running.pid, self.timeouts.hang_s), name=f"stuck {plan.unit}")
        try:
            await asyncio.wait({probing, dying, sticking}, return_when=asyncio.FIRST_COMPLETED)
            if dying.done():
                raise await self._why_ended(dying.result())
            if sticking.done() and not probing.done():
                self._says_it_hangs(sticking.result())
                raise await self._why_ended(await running.stop(0.0))
            if not probing.result():
                raise StartFailed(
                    f"{plan.model}{ends.at(plan)} was not ready within {self.timeouts.start_s:.0f} s",
                    hint="raise timeouts.start, or see `corral logs` for what it is doing",
                    model=plan.model,
                    log_tail=shown(await last_words(self.log, self.model.engine)),
                )
        finally:
            for task in (probing, dying, sticking):
                task.cancel()
            await asyncio.gather(probing, dying, sticking, return_exceptions=True)

    async def _start_failed(self, error: CorralError) -> None:
        if self.running is not None:
            await self.running.stop(self.timeouts.stop_s)
        if self._stop_asked:
            self._finished(Event.EXITED, self.machine.history[-1].why if self.machine.history else "")
            self._means.listener.unit_ended(self.model.name, self.generation, None, 0.0)
            return
        if self._steps_down(error):
            self._means.listener.unit_ended(self.model.name, self.generation, None, clock.monotonic())
            return
        error = self.fallback.told(error)
        # What was done to it from outside says nothing about the next try: whoever waits goes on waiting.
        passing = error.details.get("kind") in reasons.PASSING and self._failures < _PASSING_TRIES
        retry_at = self._failed(error.message, error, at_once=passing)
        self._means.listener.unit_ended(self.model.name, self.generation, None if passing else error, retry_at)

    def _became_ready(self, event: Event, why: str, **facts: Any) -> None:
        self._ready_at, self.ready_wall_s = clock.monotonic(), clock.wall()
        self.last_error = None
        self._move(event, why, **facts)
        self._means.spawn(self._watch(self.generation), name=f"watch {self.name}")
        self._means.listener.unit_ready(self.model.name, self.generation)

    async def _watch(self, generation: int) -> None:
        """Waits for the end of a ready process, asked for or not."""
        if (running := self.running) is None:
            return
        exit_ = await running.wait()
        error = None if self.state is State.STOPPING else await self._why_ended(exit_)
        self.ends.came(generation, exit_, error)
        if error is None or self.state is State.STOPPING:  # a stop may have been asked while the reason was looked for
            self._failures = 0
            self._finished(Event.EXITED, how(exit_))
            self._means.listener.unit_ended(self.model.name, generation, None, 0.0)
            return
        ailed = self.ends.ailment is not None
        if clock.monotonic() - self._ready_at > backoff.LONGEST_S or (self._means.answered(self.name) and not ailed):
            self._failures = 0  # it was of use: not one crash after another
        seen = {"detected_ms": round(max(0.0, clock.wall() - exit_.at_wall_s) * 1000, 1)} if exit_.at_wall_s else {}
        seen |= {"ailed": True} if ailed else {}
        if self._steps_down(error, **seen):
            self._means.listener.unit_ended(self.model.name, generation, None, clock.monotonic())
            return
        error = self.fallback.told(error)
        retry_at = self._failed(error.message, error, at_once=True, **seen)
        # One crash too many counts as a start that failed: who waits is told, instead of waiting for the next.
        told = self.last_error if self.state is State.FAILED else None
        self._means.listener.unit_ended(self.model.name, generation, told, retry_at)

    def _steps_down(self, error: CorralError, **seen: float) -> bool:
        """Whether the next start is by another plan, and so may come at once."""
        if (how := self.fallback.after(error, self.plan, clock.monotonic())) is None:
            return False
        self.last_error = error
        self._finished(Event.FAILED, error.message, cause=error.details.get("kind"), **seen)
        text, facts = f"{self.name} is started again {how}", {"next": how, "rung": self.fallback.rung}
        self._means.events.post("unit.fallback", text, model=self.model.name, unit=self.name, **facts)
        return True

    async def _why_ended(self, exit_: Exit) -> CorralError:
        tail = await last_words(self.log, self.model.engine)
        if (known := self.ends.known(self.model.name, tail, ends.fate(self.plan))) is not None:
            return known
        before, after = self._oom_kills, await asyncio.to_thread(oom_kills)
        killed = None if before is None or after is None else after - before
        reason = reasons.explain(exit_, tail, self.model.name, oom_kills=killed, engine=self.model.engine)
        tail = shown(tail)
        return StartFailed(reason.text, hint=reason.hint, model=self.model.name, kind=reason.kind, log_tail=tail)

    def _failed(self, why: str, error: CorralError, *, at_once: bool, **seen: float) -> float:
        """Moves to backoff or failed and returns when the next try may be made."""
        self._failures += 1
        self.last_error = error
        # The first restart after a crash of a unit that had been ready needs no pause.
        pause = backoff.wait_s(self._failures - 1 if at_once else self._failures, random.random())
        ends = self.fallback.exhausted or backoff.gave_up(self._failures)
        event = Event.GAVE_UP if ends else Event.FAILED
        cause = {"cause": error.details["kind"]} if error.details.get("kind") else {}
        facts = {"hint": error.hint, "failures": self._failures, "retry_in_s": round(pause, 3), **cause, **seen}
        self._finished(event, why, **facts)
        if ends:
            self.last_error = in_a_row(self.machine.history, self._failures, error, self.model.name)
        return clock.monotonic() + pause

    def _finished(self, event: Event, why: str, **facts: Any) -> None:
        if (socket := ends.own_socket(self.plan)) is not None:
            socket.unlink(missing_ok=True)
        self.running, self.ready_wall_s = None, None
        self._move(event, why, **facts)
        self._ended.set()

    def _move(self, event: Event, why: str, **facts: Any) -> None:
        now = clock.wall()
        step = self.machine.move(event, at_wall_s=now, generation=self.generation, why=why)
        self.since_wall_s = now
        self.reason = why or None
        self._means.events.post(
            "unit.state",
            f"{self.name}: {step.before} → {step.after}" + (f" ({why})" if why else ""),
            model=self.model.name,
            unit=self.name,
            before=str(step.before),
            after=str(step.after),
            event=str(event),
            why=why,
            **facts,
        )
