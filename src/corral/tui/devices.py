"""Devices as lines: memory by model, utilisation, temperature, power. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corral.api_live import LiveDevice
from corral.lazy_dataclass import dataclass
from corral.tui import figures, marks
from corral.tui.spans import Line, beside, clean, column, cut, line, wide
from corral.units import show_bytes

_NAME = 6
_MOST_NAMED = 12
_BUSY = 0.9
_SMALL = 6


def device_lines(devices: Sequence[LiveDevice], width: int, room: int) -> list[Line]:
    """Two lines a device, or one where there is no room for two; the last line says how many had none."""
    if room <= 0:
        return []
    whole = len(devices) * 2 <= room
    lines: list[Line] = []
    shown = devices if len(devices) <= room else devices[: room - 1]
    bars = _Bars(
        used=_SMALL if width >= 76 and any(each.utilisation is not None for each in devices) else 0,
        power=_SMALL if width >= 100 and any(each.power_limit_w for each in devices) else 0,
    )
    for device in shown:
        lines.append(_first(device, width, bars))
        if whole:
            lines.append(_second(device, width))
    if len(shown) < len(devices):
        lines.append(line((f"and {len(devices) - len(shown)} more devices, for which there is no room", "dim")))
    return lines


@dataclass(frozen=True, slots=True)
class _Bars:
    """How wide the small bars are, on all devices alike."""

    used: int
    power: int


def _first(device: LiveDevice, width: int, bars: _Bars) -> Line:
    name = line((column(device.name, _NAME), "bold"))
    if device.problem is not None:
        return cut((*name, (f"{marks.WARNING} {clean(device.problem)}", "red")), width)
    right = _figures(device, bars)
    if device.total_bytes is None:
        return beside((*name, ("nothing tells how much memory it has", "dim")), right, width)
    taken = device.total_bytes - (device.free_bytes if device.free_bytes is not None else device.total_bytes)
    held = [size for size, _ in _held(device)]
    others = device.others_bytes if device.others_bytes is not None else max(0, taken - sum(held))
    room = max(8, width - _NAME - wide(right) - 1)
    return cut((*name, *marks.memory_bar(held, others, device.total_bytes, room), (" ", ""), *right), width)


def _figures(device: LiveDevice, bars: _Bars) -> Line:
    """Columns of one width on every device, so that they stand below each other."""
    memory = ""
    if device.total_bytes is not None and device.free_bytes is not None:
        memory = figures.gib_pair(device.total_bytes - device.free_bytes, device.total_bytes)
    used = device.utilisation
    style = "" if used is None or used < _BUSY else "bold"
    power = "" if device.power_w is None else f"{device.power_w:.0f}"
    if device.power_w is not None:
        power += f"/{device.power_limit_w:.0f}W" if device.power_limit_w is not None else "W"
    hot = "" if device.temperature_c is None else f"{device.temperature_c:.0f}°C"
    drawn = None if not device.power_limit_w or device.power_w is None else device.power_w / device.power_limit_w
    return (
        (f"{memory:>15}", ""),
        *_small(used, bars.used),
        (f"{'' if used is None else figures.percent(used):>5}", style),
        (f"{hot:>6}", ""),
        *_small(drawn, bars.power),
        (f"{power:>9}", ""),
    )


def _small(share: float | None, width: int) -> Line:
    if not width:
        return ()
    return line(" ", *(marks.bar(share, width, "cyan") if share is not None else (" " * width,)))


def _held(device: LiveDevice) -> list[tuple[int, str]]:
    """What each model holds, the most first."""
    return sorted(((size, name) for name, size in device.by_model.items() if size > 0), reverse=True)


def _second(device: LiveDevice, width: int) -> Line:
    held = _held(device)
    parts = [f"{clean(name)} {show_bytes(size)}" for size, name in held[:_MOST_NAMED]]
    if len(held) > _MOST_NAMED:
        parts.append(f"{len(held) - _MOST_NAMED} more models {show_bytes(sum(size for size, _ in held[_MOST_NAMED:]))}")
    if device.others_bytes:
        parts.append(f"others {show_bytes(device.others_bytes)}")
    text = "  ".join(parts) or "no model holds any of it"
    left, words = line(" " * _NAME, (text, "dim")), clean(device.words)
    if device.budget_bytes is not None:
        budget = f"budget {show_bytes(device.budget_bytes)}"
        both = f"{words}  {budget}"
        words = both if wide(left) + 2 + wide(line(both)) <= width else budget
    return beside(left, line((words, "dim")), width)
