"""The child program that asks drivers what GPUs have and do: one line of JSON for each line it is given.

Drivers hang and crash, and take whoever asks with them: so a process of its own asks. Run as `python -I gpu_child.py
[--root DIR] [--library DIR] [--patience SECONDS]`. A request is `{"pids": [1, 2]}`, the processes whose device memory
is wanted too. It ends at the end of its input, and by the alarm when a driver keeps it longer than its patience.

NVIDIA's figures come from NVML; AMD's and Intel's from sysfs. A process's memory on AMD and Intel cards comes from the
fdinfo of its descriptors. Source: the kernel's Documentation/gpu/amdgpu/driver-misc and drm-usage-stats, for power and
temperature amdgpu/thermal, hwmon/sysfs-interface and ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

if "--library" in sys.argv:
    sys.path.insert(0, sys.argv[sys.argv.index("--library") + 1])

_AMD, _INTEL = "0x1002", "0x8086"
_AMD_PROCESSOR = "0x1022"  # who makes the functions beside an integrated GPU, and none beside a card
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NVIDIA = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")
_IN_SYSTEM = ("gtt", "system", "smem", "stolen-system", "cpu")
_CORE = 0  # NVML_TEMPERATURE_GPU
_APART_S = 0.1  # counters read closer together than that say little: the rate before stands


def main(arguments: list[str]) -> None:
    """Answers until there is no more input."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    root, patience = options.get("--root", "/"), float(options.get("--patience", "30"))
    nvidia, meters = _Nvidia(), Meters()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, patience)  # its default action ends this process, whatever it is stuck in
        request = json.loads(line)
        notes: list[str] = []
        gpus = [*(nvidia.look(notes) if _has_nvidia(root) else ()), *sysfs(root, meters)]
        held = usage(root, request.get("pids", []))
        for gpu in gpus:
            gpu["held"].update(_on(gpu, held))
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps({"gpus": gpus, "notes": notes}) + "\n")
        sys.stdout.flush()


def _has_nvidia(root: str) -> bool:
    """Whether NVIDIA's driver is there: Linux's own, or that of the Windows around it."""
    return any(os.path.exists(os.path.join(root, name)) for name in _NVIDIA)  # noqa: PTH110, PTH118


class _Nvidia:
    """NVML, loaded at the first look; begun anew after an error of the whole library."""

    def __init__(self) -> None:
        self._library: Any = None
        self._known: list[tuple[Any, str, str]] | None = None  # handle (or an error), address, name
        self._why_not = ""

    def look(self, notes: list[str]) -> list[dict[str, Any]]:
        if self._why_not:
            notes.append(self._why_not)
            return []
        if self._library is None:
            try:
                import pynvml
            except ImportError as error:
                self._why_not = f"NVIDIA's GPUs cannot be asked: {error}"
                return self.look(notes)
            self._library = pynvml
        library = self._library
        try:
            if self._known is None:
                library.nvmlInit()
                self._known = [self._found(number) for number in range(library.nvmlDeviceGetCount())]
            return [self._figures(*each) for each in self._known]
        except library.NVMLError as error:
            self._known = None
            if error.value not in (library.NVML_ERROR_LIBRARY_NOT_FOUND, library.NVML_ERROR_DRIVER_NOT_LOADED):
                notes.append(f"NVML says: {error}")
            else:
                self._why_not = f"NVML says: {error}"  # a later driver is found by a later child
                notes.append(self._why_not)
            return []

    def _found(self, number: int) -> tuple[Any, str, str]:
        library = self._library
        try:
            handle = library.nvmlDeviceGetHandleByIndex(number)
            address = _text(library.nvmlDeviceGetPciInfo(handle).busId).lower()
            name = _text(library.nvmlDeviceGetName(handle))
        except library.NVMLError as error:
            if error.value == library.NVML_ERROR_UNINITIALIZED:
                raise
            return error, "", "NVIDIA GPU"
        return handle, address[-12:], name  # NVML writes the PCI domain with eight digits, the kernel with four

    def _figures(self, handle: Any, address: str, name: str) -> dict[str, Any]:
        library = self._library
        gpu = _gpu("nvidia", address, name, "NVML")
        if isinstance(handle, library.NVMLError):
            self._known = None  # it may be back at the next look
            return gpu | {"problem": f"NVML says: {handle}"}
        try:
            memory = library.nvmlDeviceGetMemoryInfo(handle)
            gpu |= {"total": int(memory.total), "free": int(memory.free)}
        except library.NVMLError as error:
            if error.value == library.NVML_ERROR_UNINITIALIZED:
                raise
            if error.value != library.NVML_ERROR_NOT_SUPPORTED:
                self._known = None
                return gpu | {"problem": f"NVML says: {error}"}
            gpu["shared"] = True  # one memory with the processor: there is none of its own to report
        for ask in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            try:
                for process in getattr(library, ask)(handle):
                    if process.usedGpuMemory is not None:  # not told on Windows, nor across containers
                        gpu["held"][str(process.pid)] = int(process.usedGpuMemory)
            except library.NVMLError:
                continue  # the card's figures stand without it
        return gpu | self._telemetry(handle)

    def _telemetry(self, handle: Any) -> dict[str, float]:
        """How busy, how hot, what it draws: what this card does not tell is missing."""
        library, found = self._library, {}
        for name, function, more, factor in (
            ("utilisation", "nvmlDeviceGetUtilizationRates", (), 0.01),
            ("temperature", "nvmlDeviceGetTemperature", (_CORE,), 1.0),
            ("power", "nvmlDeviceGetPowerUsage", (), 0.001),
            ("power_limit", "nvmlDeviceGetEnforcedPowerLimit", (), 0.001),
        ):
            try:
                told = getattr(library, function)(handle, *more)
                found[name] = round(float(getattr(told, "gpu", told)) * factor, 3)
            except (library.NVMLError, AttributeError):  # an older driver, or an older library
                continue
        return found


class Meters:
    """Rates of counters that only rise, between the looks of one child."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def rate(self, folder: str, name: str) -> float | None:
        """What the counter in that file gained per second since the look before; None at the first one."""
        value, now, key = _number(folder, name), time.monotonic(), f"{folder}/{name}"
        if value is None:
            return None
        at, before = self._before.get(key, (now, value))
        if key in self._before and now - at < _APART_S:
            return self._rates.get(key)
        self._before[key] = (now, value)
        if now > at and value >= before:
            self._rates[key] = (value - before) / (now - at)
        else:
            self._rates.pop(key, None)  # the first look, or a counter that began anew
        return self._rates.get(key)


def _gpu(vendor: str, address: str, name: str, source: str) -> dict[str, Any]:
    return {
        "vendor": vendor, "address": address, "name": name, "source": source, "total": None, "free": None,
        "shared": False, "in_system": 0, "held": {}, "problem": None,
        "utilisation": None, "temperature": None, "power": None, "power_limit": None,
    }  # fmt: skip


def sysfs(root: str, meters: Meters) -> Iterator[dict[str, Any]]:
    """The AMD and Intel GPUs below `root` whose driver writes their memory down."""
    devices = os.path.join(root, "sys/bus/pci/devices")  # noqa: PTH118 - pathlib would double this child's start
    for address in _listed(devices):
        folder = os.path.join(devices, address)  # noqa: PTH118
        vendor = _read(folder, "vendor")
        if vendor == _AMD and _read(folder, "class").startswith("0x03"):
            found = _amd(folder, address, devices)
        elif vendor == _INTEL and _read(folder, "class").startswith("0x03"):
            found = _intel(folder, address)
        else:
            continue
        if found is not None:
            yield found | _telemetry(folder, meters)


def _telemetry(folder: str, meters: Meters) -> dict[str, float]:
    """How busy an AMD or Intel GPU is, how hot, what it draws. One that sleeps is not woken for it."""
    if _read(os.path.join(folder, "power"), "runtime_status") == "suspended":  # noqa: PTH118
        return {"utilisation": 0.0}
    busy = _number(folder, "gpu_busy_percent")
    found = {"utilisation": _awake(folder, meters) if busy is None else min(1.0, busy / 100)}
    for sensors in _sensors(folder)[:1]:
        celsius, drawn = _celsius(sensors), _first(sensors, ("power1_average", "power1_input"))
        energy = [meters.rate(sensors, name) for name in ("energy1_input", "energy2_input")] if drawn is None else []
        watts = next((each for each in energy if each is not None), drawn)
        limit = _first(sensors, ("power1_cap", "power1_max", "power2_max", "power1_rated_max"))
        found["temperature"] = None if celsius is None else celsius / 1000
        found["power"] = None if watts is None else watts / 1e6
        found["power_limit"] = limit / 1e6 if limit else None  # 0: there is none
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def _sensors(folder: str) -> list[str]:
    """The folders of a card's sensors, those of the whole card before those of one of its parts (`i915_gt0`)."""
    here = os.path.join(folder, "hwmon")  # noqa: PTH118
    found = [os.path.join(here, each) for each in _listed(here)]  # noqa: PTH118
    return sorted(found, key=lambda each: ("_gt" in _read(each, "name"), each))


def _celsius(sensors: str) -> int | None:
    """A card's own temperature, in thousandths: at its edge, as AMD calls it, or of its package, as Intel does."""
    found: dict[str, int] = {}
    for number in range(1, 9):
        value = _number(sensors, f"temp{number}_input")
        if value is not None:
            found.setdefault(_read(sensors, f"temp{number}_label"), value)
    return next((found[label] for label in ("edge", "pkg") if label in found), next(iter(found.values()), None))


def _awake(folder: str, meters: Meters) -> float | None:
    """The share of the time in which an Intel GPU was not idle, of its busiest part: as near as its driver tells
    everybody."""
    shares = []
    for card in _listed(os.path.join(folder, "drm")):  # noqa: PTH118
        here = os.path.join(folder, "drm", card)  # noqa: PTH118
        parts = [os.path.join(here, "gt", each) for each in _listed(os.path.join(here, "gt"))]  # noqa: PTH118
        for part in parts or [os.path.join(here, "power")]:  # noqa: PTH118
            shares.append(meters.rate(part, "rc6_residency_ms"))
    for tile in _listed(folder):
        for part in _listed(os.path.join(folder, tile)) if tile.startswith("tile") else ():  # noqa: PTH118
            idle = os.path.join(folder, tile, part, "gtidle")  # noqa: PTH118
            shares.append(meters.rate(idle, "idle_residency_ms"))
    told = [each for each in shares if each is not None]
    return max(0.0, 1 - min(told) / 1000) if told else None


def _first(folder: str, names: tuple[str, ...]) -> int | None:
    return next((value for name in names if (value := _number(folder, name)) is not None), None)


def _amd(folder: str, address: str, devices: str) -> dict[str, Any] | None:
    total, used = _number(folder, "mem_info_vram_total"), _number(folder, "mem_info_vram_used")
    if total is None or used is None:
        return None
    gpu = _gpu("amd", address, _read(folder, "product_name"), "amdgpu")
    slot = address.rpartition(".")[0]
    beside = (each for each in _listed(devices) if each.rpartition(".")[0] == slot)
    gpu |= {"total": total, "free": max(0, total - used)}
    if any(_read(os.path.join(devices, each), "vendor") == _AMD_PROCESSOR for each in beside):  # noqa: PTH118
        more, taken = _number(folder, "mem_info_gtt_total") or 0, _number(folder, "mem_info_gtt_used") or 0
        gpu |= {"shared": True, "total": total + more, "free": max(0, total - used) + max(0, more - taken)}
        gpu["in_system"] = max(0, more - taken)
    return gpu


def _intel(folder: str, address: str) -> dict[str, Any] | None:
    if address.startswith("0000:00:"):  # the processor's own
        return _gpu("intel", address, "", "sysfs") | {"shared": True}
    total = free = None
    for card in _listed(os.path.join(folder, "drm")):  # noqa: PTH118
        here = os.path.join(folder, "drm", card)  # noqa: PTH118
        total = total or _number(here, "lmem_total_bytes")
        free = free or _number(here, "lmem_avail_bytes")
    for tile in _listed(folder):
        if tile.startswith("tile"):
            total = (total or 0) + (_number(os.path.join(folder, tile), "physical_vram_size_bytes") or 0)  # noqa: PTH118
    return _gpu("intel", address, "", "sysfs") | {"total": total or None, "free": free}


def usage(root: str, pids: list[int]) -> dict[tuple[str, str], tuple[int, int]]:
    """Bytes on the card and in system memory, by (PCI address, process), of what `pids` have open."""
    clients: dict[tuple[str, str, str], tuple[int, int]] = {}
    for pid in map(str, pids):
        folder = os.path.join(root, "proc", pid, "fdinfo")  # noqa: PTH118
        for number in _listed(folder):
            text = _read(folder, number)
            if "drm-pdev:" in text:
                address, client, sizes = parse_fdinfo(text)
                clients[(address, pid, client)] = sizes  # several descriptors of one client tell the same
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (address, pid, _), (card, system) in clients.items():
        before = found.get((address, pid), (0, 0))
        found[(address, pid)] = (before[0] + card, before[1] + system)
    return found


def parse_fdinfo(text: str) -> tuple[str, str, tuple[int, int]]:
    """One descriptor's PCI address, client and bytes (on the card, in system memory)."""
    fields = {
        name.strip(): value.split() for name, colon, value in (x.partition(":") for x in text.splitlines()) if colon
    }
    # `drm-pdev` has colons itself, which `partition` leaves whole.
    address = " ".join(fields.get("drm-pdev", []))
    regions: dict[str, int] = {}
    for prefix in ("drm-total-", "drm-memory-", "drm-resident-"):  # the later ones are nearer to the truth
        for name, words in fields.items():
            if name.startswith(prefix) and words and words[0].isdecimal():
                regions[name[len(prefix) :]] = int(words[0]) * _UNITS.get("".join(words[1:2]), 1)
    system = sum(size for region, size in regions.items() if region.startswith(_IN_SYSTEM))
    return address, " ".join(fields.get("drm-client-id", [])), (sum(regions.values()) - system, system)


def _on(gpu: dict[str, Any], held: dict[tuple[str, str], tuple[int, int]]) -> dict[str, int]:
    found = {}
    for (address, pid), (card, system) in held.items():
        if address == gpu["address"] and pid not in gpu["held"]:
            found[pid] = card + (system if gpu["shared"] else 0)
    return found


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:  # noqa: PTH118, PTH123
            return file.read().strip()
    except OSError:
        return ""


def _number(folder: str, name: str) -> int | None:
    text = _read(folder, name)
    return int(text) if text.isdecimal() and text.isascii() else None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
