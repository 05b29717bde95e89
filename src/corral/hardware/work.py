"""What the processor does: how busy it is, how hot, what it draws, by what Linux writes down for everybody to read.

Source: Linux, filesystems/proc.rst (/proc/stat), hwmon/{coretemp,k10temp}.rst, ABI/testing/sysfs-class-thermal and
power/powercap/powercap.rst. The counters of energy may be read by root alone since CVE-2020-8694.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from corral import clock
from corral.hardware.devices import Work
from corral.lazy_dataclass import dataclass

_CHIPS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cputemp", "via_cputemp")
"""What the drivers of processors' own sensors are called."""
_ZONES: Final = ("x86_pkg_temp", "cpu")
"""How the thermal zones of processors begin, where there is no such chip: most Arm machines."""
_LABELS: Final = ("Package id", "Tdie", "Tctl")
"""The sensors that stand for the whole processor, the best first; without one, the hottest core does."""
_APART_S: Final = 0.1
"""Counters read closer together than that say little: the figures before stand."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counters that only rise, as they stood."""

    at: float
    busy: int
    all: int
    energy: tuple[int | None, ...]  # microjoules, by package


class WorkMeter:
    """Reads them, and remembers counters from one reading to the next. One thread at a time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._sensors: list[Path] = []
        self._packages: list[Path] = []
        self._before: _Counted | None = None
        self._last = Work()

    def find(self) -> None:
        """Looks for sensors and counters: again when some may have come. Blocks briefly."""
        self._sensors = _chips(self._root / "sys/class/hwmon") or _zones(self._root / "sys/class/thermal")
        zones = _sorted(self._root / "sys/class/powercap")
        # Only whole packages: their parts are in them, and the whole machine ("psys") is not the processor.
        self._packages = [each for each in zones if _text(each / "name").startswith("package")]

    def read(self) -> Work:
        """Since the reading before, what is counted; now, the rest. Blocks briefly. Never raises."""
        now, before = self._counted(), self._before
        if before is not None and now.at - before.at < _APART_S:
            return self._last
        self._before = now
        temperatures = [value for each in self._sensors if (value := _number(each)) is not None]
        self._last = Work(
            utilisation=None if before is None else _share(before, now),
            temperature_c=round(max(temperatures) / 1000, 1) if temperatures else None,
            power_w=None if before is None else self._power(before, now),
            power_limit_w=self._limit(),
        )
        return self._last

    def _counted(self) -> _Counted:
        busy, total = parse_stat(_text(self._root / "proc/stat"))
        energy = tuple(_number(each / "energy_uj") for each in self._packages)
        return _Counted(clock.monotonic(), busy, total, energy)

    def _power(self, before: _Counted, now: _Counted) -> float | None:
        if len(before.energy) != len(now.energy) or not now.energy:
            return None
        used = 0
        for package, old, new in zip(self._packages, before.energy, now.energy, strict=True):
            if old is None or new is None:
                return None  # not for this user to read
            round_again = _number(package / "max_energy_range_uj") if new < old else 0
            if round_again is None or new + round_again < old:
                return None
            used += new + round_again - old
        return round(used / 1e6 / (now.at - before.at), 3)

    def _limit(self) -> float | None:
        limits = [_number(each / "constraint_0_power_limit_uw") for each in self._packages]
        told = [each for each in limits if each]
        return round(sum(told) / 1e6, 3) if told and len(told) == len(limits) else None


def parse_stat(text: str) -> tuple[int, int]:
    """Busy and all ticks of `/proc/stat`, of all cores; zeros where it has none. Guests' time is in `user` already."""
    words = text.partition("\n")[0].split()
    if not words or words[0] != "cpu" or not all(each.isdecimal() for each in words[1:]):
        return 0, 0
    ticks = list(map(int, words[1:9]))
    idle = sum(ticks[3:5])  # idle, and waiting for a disk
    return sum(ticks) - idle, sum(ticks)


def _share(before: _Counted, now: _Counted) -> float | None:
    passed = now.all - before.all
    return round(min(1.0, max(0.0, (now.busy - before.busy) / passed)), 4) if passed > 0 else None


def _chips(folder: Path) -> list[Path]:
    """The files with the temperatures of whole processors, else those of their cores."""
    found = []
    for chip in _sorted(folder):
        if _text(chip / "name") not in _CHIPS:
            continue
        inputs = {each: _text(each.with_name(each.name.replace("_input", "_label"))) for each in _inputs(chip)}
        best = next(
            (chosen for label in _LABELS if (chosen := [each for each in inputs if inputs[each].startswith(label)])), []
        )
        found += best or list(inputs)
    return found


def _inputs(chip: Path) -> list[Path]:
    return [each for each in _sorted(chip) if each.name.startswith("temp") and each.name.endswith("_input")]


def _zones(folder: Path) -> list[Path]:
    return [each / "temp" for each in _sorted(folder) if _text(each / "type").startswith(_ZONES)]


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() and text.isascii() else None
