"""The storm: one fault after the other, each in its phase, each judged by what the clients saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.clients import MIXES, End, Outcome
from chaos.faults import ENGINE_ENDS, PHASES, Fault
from chaos.feed import Happened, Late
from chaos.world import PARTNER, World

DETECTED_WITHIN_S = 15.0
RECOVERED_WITHIN_S = 45.0
STEADY = ("prefill", "stream", "idle")
"""Phases in which the engine is ready, and stays so through a daemon's end."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault to come. `moment` and `detail` are drawn from the seed, in [0, 1)."""

    number: int
    kind: type[Fault]
    phase: str
    side: str  # "e": embedded, "s": llama-server
    moment: float
    detail: float

    def __str__(self) -> str:
        return f"fault {self.number} ({self.kind.name}, {self.phase}, {_ENGINES[self.side]})"


_ENGINES = {"e": "embedded", "s": "llama-server"}


STORY = 120
"""Events that are looked through for those of the victim."""


@dataclass(slots=True)
class Record:
    """What came of one fault. Times in seconds; None where there was nothing to see."""

    case: Case
    detected_s: float | None = None  # from the fault to the unit's change of state
    beyond_s: float | None = None  # from there to the replacement's process: all that is not the engine's loading
    ready_s: float | None = None  # from the detection to ready again
    broken_off: int = 0
    refused: int = 0
    unanswered: int = 0
    hit: int = 0  # requests under way at that moment
    lost: list[str] = field(default_factory=list)
    trouble: str = ""
    story: list[str] = field(default_factory=list)  # where something was lost: what the daemon told meanwhile
    took_s: float = 0.0


def plan(kinds: Sequence[type[Fault]], sides: Sequence[str], count: int, seed: int, first: int) -> list[Case]:
    """`count` cases in a drawn order; every kind comes in every phase as long as there are enough of them."""
    chance = random.Random(f"{seed} {first} plan")
    rows = [(kind, phase) for kind in kinds for phase in PHASES]
    drawn = [rows[i % len(rows)] for i in range(count)] if count >= len(rows) else chance.sample(rows, count)
    chance.shuffle(drawn)
    return [
        Case(first + i, kind, phase, chance.choice(list(sides)), chance.random(), chance.random())
        for i, (kind, phase) in enumerate(drawn)
    ]


class Storm:
    """Runs cases in `world`."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.clients, self.feed = world.clients, world.feed
        self.records: list[Record] = []
        self._chance = random.Random(f"{seed} driver")
        self._last = {"e": "eb", "s": "sb"}
        self._judged = 0

    async def run(self, case: Case) -> Record:
        """One fault from bringing the world into its phase to everybody's answer."""
        record = Record(case)
        self.records.append(record)
        target = self._last[case.side] = PARTNER[self._last[case.side]]
        self.clients.mix = MIXES[case.phase]
        fault = case.kind(self.world, target, case.detail)
        began = time.monotonic()
        try:
            await self._bring_about(case, fault)
            await self._strike(record, fault, target)
        except (Late, TimeoutError, AssertionError, OSError) as error:
            record.trouble = f"{type(error).__name__}: {error}"
            self.world.check_daemon()
        finally:
            await fault.undo()
        self._judge(record, fault)
        record.took_s = time.monotonic() - began
        return record

    # Into the phase.

    async def _bring_about(self, case: Case, fault: Fault) -> None:
        target, partner = fault.victim, PARTNER[fault.victim]
        elsewhere = self.world.other_side(target)
        at_target = [target] * 3 + elsewhere
        states, until = self.feed.states, self.feed.until
        match case.phase:
            case "load":
                self.world.aim(elsewhere or [partner])
                await self.world.retire(target)
                if elsewhere:
                    await self.world.retire(partner)
                self.world.aim(at_target)
                await until(lambda: states.get(target) in ("loading", "ready"), f"{target} to load", 30)
                await asyncio.sleep(case.moment * 0.08)
            case "idle":
                self.world.aim(elsewhere or [partner])
                if elsewhere:
                    await self.world.answers(target, self._chance, 30)
                    await self.clients.settled(self.clients.of(target, partner))
                else:
                    self.clients.rest()
                    await self.clients.settled(self.clients.of())
                    await self.world.answers(target, self._chance, 30)
                await asyncio.sleep(case.moment * 0.1)
            case "swap":
                self.world.aim([partner] * 3 + elsewhere)
                await until(lambda: states.get(partner) == "ready", f"{partner} to be ready", 30)
                await self._busy(partner, 4)
                self.world.aim(at_target)
                if case.moment < 0.5:  # the one that goes; in the second half the one that comes
                    fault.victim = partner
                    await asyncio.sleep(case.moment * 0.8)
                    if fault.pid is None:
                        fault.victim = target
                else:
                    await until(lambda: states.get(target) == "loading", f"{target} to load", 30)
                    await asyncio.sleep((case.moment - 0.5) * 0.16)
            case _:
                self.world.aim(at_target)
                await self.clients.settled(self.clients.of(partner))  # or it might get its turn again just then
                await until(lambda: states.get(target) == "ready", f"{target} to be ready", 30)
                await self._busy(target, 8)
                await asyncio.sleep(case.moment * 0.5)

    async def _busy(self, model: str, requests: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.clients.of(model)) < min(requests, self.clients.count // 2):
            if time.monotonic() > deadline:
                raise Late(f"no {requests} requests for {model}")
            await asyncio.sleep(0.005)

    # The fault.

    async def _strike(self, record: Record, fault: Fault, target: str) -> None:
        since = len(self.feed.seen)
        hit = self.clients.of()
        record.hit = len(hit)
        stays = self.feed.pids.get(target) if record.case.phase in STEADY else None
        struck = time.time()
        await fault.inject()
        if fault.ends_engine and not fault.of_daemon and not fault.in_vain:
            victims = self.world.models if fault.everywhere else [fault.victim]
            await self._noticed(record, victims, since, struck)
        if fault.lasts_s:
            await asyncio.sleep(fault.lasts_s)
        self.clients.go_on()
        self.world.aim([target] * 3 + self.world.other_side(target))
        under_way = self.clients.of()
        await fault.undo()
        undone = time.time()
        if fault.of_daemon and stays is not None and self.feed.pids.get(target) != stays:
            record.trouble = f"the engine of {target} was not adopted"
        await self.world.answers(target, self._chance, RECOVERED_WITHIN_S)
        await self.clients.settled(hit | under_way)
        self._look_back(record, fault, target, since, struck, undone)

    async def _noticed(self, record: Record, victims: Sequence[str], since: int, struck: float) -> None:
        def told(event: Happened) -> bool:
            return event.model in victims and event.after in ENGINE_ENDS

        try:
            event = await self.feed.event(since, told, f"the end of {victims}", DETECTED_WITHIN_S)
        except Late as late:
            record.trouble = str(late)
            return
        record.detected_s = max(0.0, event.wall_s - struck)

    def _look_back(self, record: Record, fault: Fault, target: str, since: int, struck: float, undone: float) -> None:
        """The times of the recovery, from the daemon's own events."""
        if fault.of_daemon:
            record.ready_s = self.world.outages[-1][1] - struck
            return
        seen = [event for event in self.feed.seen[since:] if event.wall_s >= struck]
        crashes = [event for event in seen if event.model == fault.victim and "detected_ms" in event.data]
        if record.detected_s is None and crashes and not fault.ends_engine:
            record.detected_s = crashes[0].data["detected_ms"] / 1000
        if fault.victim != target:  # its replacement is not what is waited for
            return
        mine = [event for event in seen if event.model == target]
        ends = [i for i, event in enumerate(mine) if event.after in ("backoff", "failed", "stopped")]
        ready = next((i for i, event in enumerate(mine) if event.after == "ready" and ends and i > ends[0]), None)
        if ready is None:
            return
        ended = max(i for i in ends if i < ready)
        spawned = next((event for event in mine[ended:ready] if event.after == "loading"), None)
        begins = mine[ended].wall_s
        if spawned is not None:
            # Until the cause is gone, and somebody asks, there is nothing to be done.
            if (fault.lasts_s or record.case.phase == "idle") and undone < spawned.wall_s:
                begins = max(begins, undone)
            record.beyond_s = max(0.0, spawned.wall_s - begins)
        record.ready_s = max(0.0, mine[ready].wall_s - begins)

    # What the clients saw.

    def _judge(self, record: Record, fault: Fault) -> None:
        amiss = self.clients.amiss[self._judged :]
        self._judged = len(self.clients.amiss)
        for outcome in amiss:
            if self._excused(outcome, fault):
                record.broken_off += outcome.end is End.BROKEN_OFF
                record.refused += outcome.end is End.REFUSED
                record.unanswered += outcome.end in (End.CUT, End.UNANSWERED)
            else:
                record.lost.append(f"{record.case}: {outcome}")
        if record.lost:
            told = [event for event in self.feed.seen[-STORY:] if event.model == fault.victim]
            record.story = [f"{event.wall_s % 1000:7.3f} {event.unit} {event.text}" for event in told]

    def _excused(self, outcome: Outcome, fault: Fault) -> bool:
        struck = fault.everywhere or outcome.model == fault.victim
        match outcome.end:
            case End.BROKEN_OFF:
                return struck
            case End.REFUSED:
                return struck and outcome.code in fault.excused
            case End.CUT | End.UNANSWERED:
                return any(began <= outcome.ended and outcome.began <= ended for began, ended in self.world.outages)
            case _:
                return False
