"""`LiveView`: what `GET /control/live` tells, made of what is known at this moment. Nothing is waited for."""

from __future__ import annotations

import os
from typing import Final

from corral import __version__, clock, views
from corral.api import DeviceInfo
from corral.api_live import Live, LiveDevice, LiveUnit
from corral.events import EventLog
from corral.measures import Measures
from corral.metrics.fold import Fold
from corral.metrics.recent import Rate, Recent
from corral.model_plane import ModelPlane, download_info
from corral.scheduler.loop import Scheduler
from corral.supervisor.fleet import Fleet
from corral.supervisor.unit import Unit

EVENTS: Final = 50
ENDED_S: Final = 60.0
"""A download that ended is shown for so long."""


class LiveView:
    """Reads what others know anyway. One event loop."""

    def __init__(
        self, fleet: Fleet, scheduler: Scheduler, measures: Measures, models: ModelPlane, events: EventLog, fold: Fold
    ) -> None:
        self._fleet, self._scheduler, self._measures = fleet, scheduler, measures
        self._models, self._events, self._fold = models, events, fold
        self._started_wall_s = clock.wall()

    def now(self, requests: Rate) -> Live:
        """Everything at this moment. `requests` are those that ended in each of the last seconds."""
        now, wall_s, whole = clock.monotonic(), clock.wall(), self._fold.all
        median, high = whole.first_token_s(now)
        return Live(
            wall_s=wall_s,
            version=__version__,
            pid=os.getpid(),
            started_wall_s=self._started_wall_s,
            in_flight=self._scheduler.in_flight,
            waiting=self._scheduler.waiting,
            tokens_per_s=round(whole.tokens.now, 3),
            requests_per_s=round(requests.now, 3),
            first_token_p50_ms=_ms(median),
            first_token_p95_ms=_ms(high),
            devices=[self._device(each) for each in self._measures.latest()],
            units=[self._unit(unit, now) for unit in self._fleet],
            downloads=[
                download_info(view)
                for view, _ in self._models.downloads_now()
                if not view.over or (view.finished or 0.0) > wall_s - ENDED_S
            ],
            events=self._events.since(max(0, self._events.last_seq - EVENTS))[-EVENTS:],
            history=_rounded(whole.tokens),
        )

    def _device(self, device: DeviceInfo) -> LiveDevice:
        by_model: dict[str, int] = {}
        for unit, sizes in self._measures.held.items():
            if size := sizes.get(device.name):
                model = unit.partition("~")[0]
                by_model[model] = by_model.get(model, 0) + size
        return LiveDevice(
            name=device.name,
            words=device.words,
            total_bytes=device.total_bytes,
            free_bytes=device.free_bytes,
            budget_bytes=device.budget_bytes,
            by_model=by_model,
            others_bytes=device.others_bytes,
            utilisation=device.utilisation,
            temperature_c=device.temperature_c,
            power_w=device.power_w,
            power_limit_w=device.power_limit_w,
            problem=device.problem,
        )

    def _unit(self, unit: Unit, now: float) -> LiveUnit:
        name, plan = unit.model.name, unit.plan
        place, recent = self._scheduler.place(name), self._fold.by_unit.get(name) or Recent()
        median, high = recent.first_token_s(now)
        held = self._measures.held.get(name) if unit.running is not None else None
        waits = place is not None and place.first and bool(place.line)
        return LiveUnit(
            model=name.partition("~")[0],
            unit=unit.name if unit.generation else name,
            state=str(unit.state),
            engine=plan.engine if plan is not None else unit.model.engine,
            runner=unit.model.runner,
            device="+".join(plan.devices) if plan is not None else "",
            degraded=(plan.degraded or None) if plan is not None else None,
            reason=unit.reason,
            busy=len(place.leases) if place is not None else 0,
            slots=plan.slots if plan is not None else unit.model.parallel,
            queued=len(place.line) if place is not None and place.first else 0,
            tokens_per_s=None if recent.tokens.is_silent else round(recent.tokens.now, 3),
            first_token_p50_ms=_ms(median),
            first_token_p95_ms=_ms(high),
            context=plan.context if plan is not None else unit.model.context or 0,
            context_used=recent.fill(now),
            held_bytes=sum(held.values()) if held else None,
            load_ms=unit.load_ms,
            restarts=unit.restarts,
            requests=recent.requests,
            errors=recent.errors,
            idle_stop_in_s=views.idle_stop_in_s(unit, place, now),
            expected_wait_s=self._scheduler.expected_wait_s(name) if waits else None,
            since_wall_s=unit.since_wall_s,
            history=_rounded(recent.tokens),
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _rounded(rate: Rate) -> list[float]:
    return [round(each, 1) for each in rate.history]
