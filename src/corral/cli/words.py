"""How the values of the wire types read in a table or a sentence. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from corral.api import DeviceInfo, UnitInfo
from corral.cli.table import Cell
from corral.units import show_bytes, show_duration

if TYPE_CHECKING:
    from corral.api_live import LiveUnit

_STATE_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "failed": "red",
    "stopped": "dim",
    "sleeping": "cyan",
    "stored": "dim",
    "running": "yellow",
    "paused": "cyan",
    "done": "green",
    "cancelled": "dim",
}


def state(name: str) -> Cell:
    return Cell(name, (_STATE_STYLES[name],) if name in _STATE_STYLES else ())


def size(count: int | None) -> str:
    return "-" if count is None else show_bytes(count)


def number(value: int | None) -> str:
    return "-" if value is None else str(value)


def count(value: int | None) -> str:
    """A number of parameters as people say it: 362 M, 7.2 B."""
    if value is None:
        return "-"
    for letter, factor in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 1000)):
        if value >= factor:
            return f"{value / factor:.3g} {letter}"
    return str(value)


def computes_on(unit: UnitInfo | LiveUnit) -> str:
    """The devices of the unit: `"gpu0"`, or `"degraded: cpu"` where it lacks one that it should have."""
    return f"degraded: {unit.device}" if unit.degraded and unit.state != "stopped" else unit.device


def memory(unit: UnitInfo) -> str:
    """What the unit holds; a tilde marks a figure that is predicted, not measured."""
    if unit.held_bytes is not None:
        return show_bytes(unit.held_bytes)
    return "-" if unit.footprint_bytes is None else f"~{show_bytes(unit.footprint_bytes)}"


def until(unit: UnitInfo) -> str:
    """When the unit will be stopped for being idle."""
    if unit.busy or unit.queued:
        return "busy"
    if unit.idle_stop_in_s is not None:
        return show_duration(max(0.0, unit.idle_stop_in_s))
    return "never" if unit.state == "ready" else "-"


def idle(timeout_s: float | None) -> str:
    return "never" if timeout_s is None else show_duration(timeout_s)


def clock(wall_s: float) -> str:
    """Local time of day with milliseconds."""
    return datetime.fromtimestamp(wall_s).strftime("%H:%M:%S.%f")[:-3]


def moment(wall_s: float) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(wall_s).strftime("%Y-%m-%d %H:%M:%S")


def rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:.1f} tokens/s"


def milliseconds(ms: float | None) -> str:
    return "-" if ms is None else show_duration(ms / 1000)


def share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.0f} %"


def heat(celsius: float | None) -> str:
    return "-" if celsius is None else f"{celsius:.0f} °C"


def power(watts: float | None, limit: float | None) -> str:
    """`"85 of 300 W"`, or what is known of it."""
    if watts is None:
        return "-" if limit is None else f"? of {limit:.0f} W"
    return f"{watts:.0f} W" if limit is None else f"{watts:.0f} of {limit:.0f} W"


def device(info: DeviceInfo) -> str:
    """A device's memory in one line: `"4.1 GiB of 64 GiB free, 12 GiB ours, budget 32 GiB"`."""
    if info.problem is not None:
        return f"{info.words}: {info.problem}"
    if info.total_bytes is None or info.free_bytes is None:
        return f"{info.words}: nothing tells how much memory it has"
    said = [f"{show_bytes(info.free_bytes)} of {show_bytes(info.total_bytes)} free"]
    if info.used_bytes:
        said.append(f"{show_bytes(info.used_bytes)} held by engines")
    if info.budget_bytes is not None:
        said.append(f"budget {show_bytes(info.budget_bytes)}")
    return ", ".join(said)
