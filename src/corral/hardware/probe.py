"""`probe()`: everything that is known of this machine without starting an engine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from corral.hardware.apple import read_mac
from corral.hardware.asking import ask_once, command, worth_asking
from corral.hardware.cpu import Cpu, read_cpu
from corral.hardware.devices import CPU, MACHINE, Answer, Device, assemble
from corral.hardware.gpus import Gpu, read_gpus
from corral.hardware.memory import Memory, read_memory
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as this process may use it. `notes` say what could not be found out, and why."""

    system: str
    memory: Memory | None
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The same by device: `"cpu"`, then `"gpu0"` …."""
        return assemble(self.memory, self.gpus, Answer())


def probe(root: Path = Path("/"), *, argv: list[str] | None = None) -> Hardware:
    """Blocks for file reads and, where a GPU is there, for a child that asks its driver (with a deadline).

    Never raises: what cannot be read becomes a note.
    """
    system = f"{platform.system()} {platform.release()}"
    fallback = Cpu("", platform.machine(), os.cpu_count() or 1, os.cpu_count() or 1, float(os.cpu_count() or 1))
    try:
        if sys.platform == "darwin":
            memory, cpu, found = read_mac()
            return Hardware(system, memory, cpu, tuple(found))
        memory, cpu, gpus = read_memory(root), read_cpu(root), read_gpus(root)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Hardware(system, None, fallback, (), (f"memory and processor cannot be read: {error}",))
    if not worth_asking(gpus, root):
        return Hardware(system, memory, cpu, tuple(gpus))
    answer = ask_once(argv or command(root))
    known = assemble(memory, gpus, answer)
    return Hardware(system, memory, cpu, _with_memory(gpus, known), answer.notes)


def read_basics(root: Path, *, gpus: bool) -> tuple[Memory, list[Gpu] | None]:
    """Memory and, with `gpus`, which GPUs the kernel shows; no driver is asked. Raises as reading files does."""
    if sys.platform == "darwin":
        memory, _, found = read_mac()
        return memory, found
    return read_memory(root), read_gpus(root) if gpus else None


def _with_memory(gpus: list[Gpu], devices: tuple[Device, ...]) -> tuple[Gpu, ...]:
    """The kernel's `gpus` with what their drivers told, then those that only a driver knows."""
    told = {each.address: each for each in devices if each.name != CPU}
    found = []
    for gpu in gpus:
        device = told.pop(gpu.address, None)
        found.append(gpu if device is None else _merged(gpu, device))
    return (*found, *(_merged(Gpu(each.vendor, each.words, None, None, address=each.address), each)
                      for each in told.values()))  # fmt: skip


def _merged(gpu: Gpu, device: Device) -> Gpu:
    told = device.source != MACHINE
    return replace(
        gpu,
        name=device.words,
        memory_bytes=device.total_bytes if told else None,
        free_bytes=device.free_bytes if told else None,
        shared=device.shared,
        source=device.source if told else "",
        problem=device.problem,
    )
