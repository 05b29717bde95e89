"""`probe()`: everything that is known of this machine without starting an engine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from corral.hardware.apple import read_mac
from corral.hardware.cpu import Cpu, read_cpu
from corral.hardware.gpus import NVIDIA_SMI, Gpu, parse_nvidia_smi, read_gpus
from corral.hardware.memory import Memory, read_memory

NVIDIA_SMI_S = 5.0


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as this process may use it. `notes` say what could not be found out, and why."""

    system: str
    memory: Memory | None
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()


def probe(root: Path = Path("/"), *, ask_driver: bool = True) -> Hardware:
    """Blocks for file reads and, where `nvidia-smi` is on PATH and a GPU is there, for that (with a deadline).

    Never raises: what cannot be read becomes a note.
    """
    system = f"{platform.system()} {platform.release()}"
    fallback = Cpu("", platform.machine(), os.cpu_count() or 1, os.cpu_count() or 1, float(os.cpu_count() or 1))
    try:
        if sys.platform == "darwin":
            memory, cpu, gpus = read_mac()
            return Hardware(system, memory, cpu, tuple(gpus))
        memory, cpu, gpus = read_memory(root), read_cpu(root), read_gpus(root)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Hardware(system, None, fallback, (), (f"memory and processor cannot be read: {error}",))
    notes: list[str] = []
    if ask_driver and any(gpu.vendor == "nvidia" and gpu.problem is None for gpu in gpus):
        gpus = _with_driver(gpus, notes)
    return Hardware(system, memory, cpu, tuple(gpus), tuple(notes))


def _with_driver(gpus: list[Gpu], notes: list[str]) -> list[Gpu]:
    """`gpus` with the memory of NVIDIA's, as their driver's own tool tells it."""
    program = shutil.which(NVIDIA_SMI[0])
    if program is None:
        notes.append("nvidia-smi is not on PATH: how much memory the GPUs have is not known")
        return gpus
    try:
        run = subprocess.run([program, *NVIDIA_SMI[1:]], capture_output=True, text=True, timeout=NVIDIA_SMI_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        notes.append(f"nvidia-smi did not answer: {error}")
        return gpus
    told = {gpu.node: gpu for gpu in parse_nvidia_smi(run.stdout)}
    if run.returncode != 0 or not told:
        notes.append(f"nvidia-smi ended with {run.returncode}: {(run.stderr or run.stdout).strip()[:200]}")
    return [
        replace(gpu, memory_bytes=told[gpu.node].memory_bytes, free_bytes=told[gpu.node].free_bytes)
        if gpu.vendor == "nvidia" and gpu.node in told
        else gpu
        for gpu in gpus
    ]
