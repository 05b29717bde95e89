"""`Gauges`: how everything is at this moment, as samples of the catalogue's metrics. Nothing is waited for."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from corral import __version__, clock, views
from corral.access.desk import Desk
from corral.access.keys import Key
from corral.api import DeviceInfo
from corral.config.settings import Settings
from corral.measures import Measures
from corral.metrics.sums import Labels
from corral.model_plane import ModelPlane
from corral.models.fetching.job_view import JobView
from corral.observability.places import Places
from corral.scheduler.loop import Scheduler
from corral.supervisor.fleet import Fleet
from corral.supervisor.machine import State
from corral.supervisor.unit import Unit

Samples = dict[str, dict[Labels, float]]
"""By metric, then by labels."""

MOST_KEYS: Final = 100
_BREAKER: Final = {State.BACKOFF: 1, State.FAILED: 2}
_DOWNLOADS: Final = ("queued", "resolving", "running", "paused", "done", "failed", "cancelled")
_DEVICE_GAUGES: Final[Mapping[str, Callable[[DeviceInfo], float | None]]] = {
    "corral_device_memory_total_bytes": lambda each: each.total_bytes,
    "corral_device_memory_free_bytes": lambda each: each.free_bytes,
    "corral_device_memory_others_bytes": lambda each: each.others_bytes,
    "corral_device_memory_budget_bytes": lambda each: each.budget_bytes,
    "corral_device_utilisation_ratio": lambda each: each.utilisation,
    "corral_device_temperature_celsius": lambda each: each.temperature_c,
    "corral_device_power_watts": lambda each: each.power_w,
    "corral_device_power_limit_watts": lambda each: each.power_limit_w,
}


class Gauges:
    """Reads what others know anyway. One event loop."""

    def __init__(
        self,
        fleet: Fleet,
        scheduler: Scheduler,
        measures: Measures,
        models: ModelPlane,
        desk: Desk,
        places: Places,
        settings: Callable[[], Settings],
    ) -> None:
        self._fleet, self._scheduler, self._measures = fleet, scheduler, measures
        self._models, self._desk, self._places, self._settings = models, desk, places, settings
        self._started_wall_s = clock.wall()
        self._progress = Progress()

    def now(self, key_name: Callable[[str], str], fill: Callable[[str], int | None]) -> Samples:
        """All of them. `key_name` gives a key's label, `fill` the tokens of a unit's longest conversation of late."""
        found: Samples = {}
        self._units(found, fill)
        self._devices(found)
        self._downloads(found)
        self._keys(found, key_name)
        self._process(found)
        return found

    def watch_downloads(self) -> None:
        """To be called every second: what a download brings shows between two looks."""
        self._progress.look(self._models.downloads_now(), clock.monotonic())

    def _units(self, found: Samples, fill: Callable[[str], int | None]) -> None:
        states = dict.fromkeys(map(str, State), 0)
        flight: dict[Labels, float] = {(name,): 0 for name in self._settings().models}
        waiting = dict(flight)
        for unit in self._fleet:
            states[unit.state] += 1
            name = unit.model.name
            model = name.partition("~")[0]
            _put(found, "corral_unit_state", (model, name, str(unit.state)), 1)
            _put(found, "corral_breaker_state", (name,), _BREAKER.get(unit.state, 0))
            if (place := self._scheduler.place(name)) is not None:
                flight[model,] = flight.get((model,), 0) + len(place.leases)
                if place.first:
                    waiting[model,] = len(place.line)
            if unit.plan is not None and unit.running is not None:
                self._running(found, unit, (model, name), fill)
        found["corral_units"] = {(state,): count for state, count in states.items()}
        found["corral_requests_in_flight"], found["corral_requests_waiting"] = flight, waiting

    def _running(self, found: Samples, unit: Unit, labels: Labels, fill: Callable[[str], int | None]) -> None:
        plan, (_, name) = unit.plan, labels
        assert plan is not None
        place = self._scheduler.place(name)
        _put(found, "corral_unit_slots", labels, plan.slots)
        _put(found, "corral_unit_busy_slots", labels, len(place.leases) if place is not None else 0)
        _put(found, "corral_unit_context_tokens", labels, plan.context)
        _put(found, "corral_unit_context_used_tokens", labels, fill(name) or 0)
        _put(found, "corral_unit_degraded", labels, 1 if plan.degraded else 0)
        footprint = plan.footprint
        for device, size in footprint.predicted.items():
            _put(found, "corral_footprint_bytes", (*labels, device, "predicted"), size)
        for device, size in footprint.bytes_by_device.items() if footprint.origin == "measured" else ():
            _put(found, "corral_footprint_bytes", (*labels, device, "measured"), size)
        for device, size in self._measures.held.get(name, {}).items():
            _put(found, "corral_unit_memory_bytes", (*labels, device), size)

    def _devices(self, found: Samples) -> None:
        for device in self._measures.latest():
            _put(found, "corral_device_info", (device.name, device.vendor, device.words), 1)
            for metric, read in _DEVICE_GAUGES.items():
                if (value := read(device)) is not None:
                    _put(found, metric, (device.name,), value)

    def _downloads(self, found: Samples) -> None:
        downloads = self._models.downloads_now()
        self._progress.look(downloads, now := clock.monotonic())
        counts = dict.fromkeys(_DOWNLOADS, 0)
        for view, _ in downloads:
            counts[view.state] += 1
        running = [view for view, _ in downloads if view.state == "running"]
        found["corral_downloads"] = {(state,): count for state, count in counts.items()}
        found["corral_download_bytes_total"] = {(): self._progress.brought}
        found["corral_download_bytes_per_second"] = {(): sum(view.bytes_per_s or 0.0 for view in running)}
        found["corral_download_stalled_seconds"] = {(): self._progress.stalled_s(now)}
        if self._places.found.store_bytes is not None:
            found["corral_store_bytes"] = {(): self._places.found.store_bytes}
        for place, disk in self._places.found.disks.items():
            _put(found, "corral_disk_free_bytes", (place,), disk.free)
            _put(found, "corral_disk_total_bytes", (place,), disk.total)

    def _keys(self, found: Samples, key_name: Callable[[str], str]) -> None:
        for key, used in self._desk.totals().items():
            for kind, count in (("prompt", used.prompt), ("completion", used.completion)):
                labels = (key_name(key), kind)
                _put(found, "corral_key_tokens_total", labels, count, add=True)
        limited = [key for key in self._desk.keys.values() if key.revoked_wall_s is None and _budgets(key)]
        for each in limited[:MOST_KEYS]:
            taken, name, limits = self._desk.taken(each), key_name(each.id), each.limits
            for period, limit, used_tokens in (
                ("day", limits.tokens_per_day, taken.day),
                ("month", limits.tokens_per_month, taken.month),
            ):
                if limit is not None:
                    _put(found, "corral_key_budget_tokens", (name, period), limit, add=True)
                    _put(found, "corral_key_budget_used_tokens", (name, period), used_tokens or 0, add=True)

    def _process(self, found: Samples) -> None:
        build = (__version__, platform.python_version(), sys.platform)
        found["corral_build_info"] = {build: 1}
        found["corral_start_time_seconds"] = {(): round(self._started_wall_s, 3)}
        found["process_resident_memory_bytes"] = {(): views.own_memory_bytes()}
        found["process_cpu_seconds_total"] = {(): round(time.process_time(), 3)}
        with suppress(OSError):  # no such folder on this platform
            found["process_open_fds"] = {(): len(os.listdir("/proc/self/fd"))}  # noqa: PTH208 - the number alone


class Progress:
    """What downloads have brought, and since when each brings nothing."""

    def __init__(self) -> None:
        self.brought = 0
        self._seen: dict[str, tuple[int, float]] = {}  # by id: how far it was, and since when

    def look(self, downloads: list[tuple[JobView, int]], now: float) -> None:
        """`downloads` come with what each had when it was first heard of."""
        before, self._seen = self._seen, {}
        for view, began in downloads:
            done, since = before.get(view.id, (began, now))
            if view.state != "running" or view.done != done:
                since = now
            self.brought += max(0, view.done - done)
            self._seen[view.id] = (view.done, since)

    def stalled_s(self, now: float) -> float:
        return round(max((now - since for _, since in self._seen.values()), default=0.0), 3)


def _budgets(key: Key) -> bool:
    return key.limits.tokens_per_day is not None or key.limits.tokens_per_month is not None


def _put(found: Samples, metric: str, labels: Labels, value: float, *, add: bool = False) -> None:
    series = found.setdefault(metric, {})
    series[labels] = series.get(labels, 0) + value if add else value
