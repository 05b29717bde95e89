"""The child program that asks drivers how much memory GPUs have: one line of JSON for each line it is given.

Drivers hang and crash, and take whoever asks with them: so a process of its own asks. Run as `python -I gpu_child.py
[--root DIR] [--library DIR] [--patience SECONDS]`. A request is `{"pids": [1, 2]}`, the processes whose device memory
is wanted too. It ends at the end of its input, and by the alarm when a driver keeps it longer than its patience.

NVIDIA's figures come from NVML; AMD's and Intel's from sysfs. A process's memory on AMD and Intel cards comes from the
fdinfo of its descriptors. Source: the kernel's Documentation/gpu/amdgpu/driver-misc and drm-usage-stats.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

if "--library" in sys.argv:
    sys.path.insert(0, sys.argv[sys.argv.index("--library") + 1])

_AMD, _INTEL = "0x1002", "0x8086"
_AMD_PROCESSOR = "0x1022"  # who makes the functions beside an integrated GPU, and none beside a card
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NVIDIA = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")
_IN_SYSTEM = ("gtt", "system", "smem", "stolen-system", "cpu")


def main(arguments: list[str]) -> None:
    """Answers until there is no more input."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    root, patience = options.get("--root", "/"), float(options.get("--patience", "30"))
    nvidia = _Nvidia()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, patience)  # its default action ends this process, whatever it is stuck in
        request = json.loads(line)
        notes: list[str] = []
        gpus = [*(nvidia.look(notes) if _has_nvidia(root) else ()), *sysfs(root)]
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
        return gpu


def _gpu(vendor: str, address: str, name: str, source: str) -> dict[str, Any]:
    return {
        "vendor": vendor, "address": address, "name": name, "source": source, "total": None, "free": None,
        "shared": False, "in_system": 0, "held": {}, "problem": None,
    }  # fmt: skip


def sysfs(root: str) -> Iterator[dict[str, Any]]:
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
            yield found


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
