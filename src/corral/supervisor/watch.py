"""Looking after ready engines: every few seconds a small question to each, and an end to those that hang.

All are looked at in the same moment, so that an idle machine is woken once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from corral import clock
from corral.engines.plan import LaunchPlan
from corral.supervisor import logs, looks, progress
from corral.supervisor.fair import Fair
from corral.supervisor.liveness import Liveness, Request, Verdict, look_every_s
from corral.supervisor.machine import State
from corral.supervisor.pulse import Pulses
from corral.supervisor.unit import Unit
from corral.units import show_duration

_SPARE_THREADS = 4
"""Beyond its slots: two more requests that wait in it, and two for small questions."""

_LOOKED_AT = (State.READY, State.DRAINING)
_TELL = ("vllm",)  # whose loads take long enough to be told about
_PROGRESS_LINES = 300


class Watch:
    """Watches over `units` for as long as `run` runs. `hang_s` gives the configured bound, which may change."""

    def __init__(
        self,
        units: Callable[[], Iterable[Unit]],
        pulses: Pulses,
        hang_s: Callable[[], float],
        fair: Fair | None = None,
    ) -> None:
        """`fair` is asked at each look whether an engine passes somebody over."""
        self._units, self._pulses, self._hang_s, self._fair = units, pulses, hang_s, fair
        self._known: dict[str, Liveness] = {}  # by unit id, so that a new process begins anew
        self._looking: set[str] = set()
        self._frozen_since: dict[str, float] = {}  # when a load was first seen stopped

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                began = clock.monotonic()
                every_s = look_every_s(self._hang_s())
                looked_at = [unit for unit in self._units() if unit.state in _LOOKED_AT]
                self._drop_gone({unit.name for unit in looked_at})
                for unit in self._units():
                    if unit.state is State.LOADING and (evidence := self._frozen_load(unit, began)):
                        group.create_task(unit.end_hung(evidence), name=f"end {unit.name}")
                    elif unit.state is State.LOADING and unit.log is not None and unit.model.engine in _TELL:
                        group.create_task(self._progress(unit, unit.log), name=f"progress of {unit.name}")
                for unit in looked_at:
                    if unit.name not in self._looking:
                        self._looking.add(unit.name)
                        group.create_task(self._look(unit, unit.name), name=f"look at {unit.name}")
                    if self._fair is not None and self._fair.wanted(unit):
                        group.create_task(self._fair.help(unit), name=f"be fair on {unit.name}")
                await asyncio.sleep(max(0.0, began + every_s - clock.monotonic()))

    async def _progress(self, unit: Unit, log: Path) -> None:
        unit.loads(progress.said(await asyncio.to_thread(logs.tail, log, _PROGRESS_LINES)))

    def _frozen_load(self, unit: Unit, now: float) -> str:
        """What shows that a load stands still for good; empty while nothing does. A slow load shows nothing like it."""
        if unit.running is None or unit.running.pid is None or not looks.frozen(unit.running.pid):
            self._frozen_since.pop(unit.name, None)
            return ""
        hang_s = self._hang_s()
        since = self._frozen_since.setdefault(unit.name, now)
        if now - since < hang_s - 3 * look_every_s(hang_s):
            return ""
        del self._frozen_since[unit.name]
        return f"its process was stopped while it loaded, and stayed so for {show_duration(now - since)}"

    def _drop_gone(self, living: set[str]) -> None:
        for name in self._known.keys() - living - self._looking:
            del self._known[name]
        self._pulses.keep(living)

    async def _look(self, unit: Unit, name: str) -> None:
        try:
            if (plan := unit.plan) is not None:
                await self._look_at(unit, name, plan)
        finally:
            self._looking.discard(name)

    async def _look_at(self, unit: Unit, name: str, plan: LaunchPlan) -> None:
        if (liveness := self._known.get(name)) is None:
            liveness = self._known[name] = Liveness(clock.monotonic(), speaks_while_busy=speaks_while_busy(plan))
        hang_s = self._hang_s()
        within_s = 0.8 * look_every_s(hang_s)  # so that it is over when the next one is due
        asked_at = clock.monotonic()
        status = await looks.health(plan.endpoint, plan.probe.path, within_s)
        if status is None:
            liveness.unanswered(asked_at)
        else:
            liveness.answered(status)
        verdict = self._judge(liveness, name, hang_s)
        if verdict is Verdict.ASK and status is not None:
            liveness.counted(await looks.counters(plan.endpoint, within_s / 4, plan.probe))
        elif verdict is Verdict.DOUBT:
            if await looks.token(plan.endpoint, hang_s, plan.probe):
                liveness.proved()
            else:
                verdict = Verdict.HANGS
                liveness.evidence += ", and makes no token when asked for one"
        if verdict is Verdict.HANGS and unit.name == name:
            await unit.end_hung(liveness.evidence)

    def _judge(self, liveness: Liveness, unit: str, hang_s: float) -> Verdict:
        traffic = self._pulses.of(unit)
        requests = [
            Request(each, each.prompt_bytes, each.stream, each.chunks, each.held)
            for each in traffic.running
            if each.judged
        ]
        rates = traffic.rates
        return liveness.judge(
            requests,
            clock.monotonic(),
            hang_s,
            answers=traffic.answered,
            prompt_per_s=rates.prompt_per_s,
            write_per_s=rates.write_per_s,
            bytes_per_token=rates.bytes_per_token,
        )


def speaks_while_busy(plan: LaunchPlan) -> bool:
    """Whether llama.cpp has threads enough to answer us while all its slots are at work, as it has by default."""
    for flag, value in zip(plan.argv, plan.argv[1:], strict=False):
        if flag == "--threads-http":
            return not value.isdigit() or int(value) >= plan.slots + _SPARE_THREADS
    return True
