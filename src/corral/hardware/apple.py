"""What a Mac says of itself: the kernel's variables and the memory's pages."""

from __future__ import annotations

import subprocess

from corral.hardware.cpu import Cpu
from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory

DEADLINE_S = 5.0
_NAMES = (
    "hw.memsize", "hw.physicalcpu", "hw.logicalcpu", "machdep.cpu.brand_string", "hw.machine", "iogpu.wired_limit_mb",
)  # fmt: skip
_SMALL = 36 << 30


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def parse_vm_stat(text: str) -> int:
    """The bytes that `vm_stat` counts as free, inactive, speculative or purgeable: what programs may still have."""
    first, _, rest = text.partition("\n")
    digits = "".join(char for char in first if char.isdecimal())
    page = int(digits) if digits else 4096
    counts = parse_sysctl(rest)
    names = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
    return page * sum(int(counts.get(name, "0").rstrip(".") or 0) for name in names)


def working_set_bytes(memsize: int, wired_limit_mb: str | None) -> int:
    """How much of the memory a Mac's GPU may use: what `iogpu.wired_limit_mb` sets, else what macOS leaves it.

    Metal calls it recommendedMaxWorkingSetSize. It is about two thirds of the memory of a Mac with up to 36 GB, and
    three quarters of a larger one's; an engine that lists the GPU tells the exact figure.
    """
    if wired_limit_mb is not None and wired_limit_mb.isdecimal() and int(wired_limit_mb):
        return min(memsize, int(wired_limit_mb) << 20)
    return memsize * 2 // 3 if memsize <= _SMALL else memsize * 3 // 4


def read_mac() -> tuple[Memory, Cpu, list[Gpu]]:
    """Starts `sysctl` and `vm_stat`, each with a deadline. Raises OSError or subprocess.SubprocessError."""
    told = parse_sysctl(_output("/usr/sbin/sysctl", "-i", *_NAMES))  # -i: names that this Mac lacks are left out
    total = int(told.get("hw.memsize", "0"))
    logical = int(told.get("hw.logicalcpu", "1"))
    model, machine = told.get("machdep.cpu.brand_string", ""), told.get("hw.machine", "")
    memory = Memory(total, min(total, parse_vm_stat(_output("/usr/bin/vm_stat"))), source="vm_stat")
    cpu = Cpu(model, machine, int(told.get("hw.physicalcpu", logical)), logical, float(logical))
    if machine != "arm64":
        return memory, cpu, []
    most = working_set_bytes(total, told.get("iogpu.wired_limit_mb"))
    free, name = min(most, memory.available_bytes), f"{model} (shares the machine's memory)"
    return memory, cpu, [Gpu("apple", name, "Metal", None, most, free, shared=True, source="hw.memsize")]


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout
