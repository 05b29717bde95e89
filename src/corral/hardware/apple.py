"""What a Mac says of itself: the kernel's variables and the memory's pages."""

from __future__ import annotations

import subprocess

from corral.hardware.cpu import Cpu
from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory

DEADLINE_S = 5.0
_NAMES = ("hw.memsize", "hw.physicalcpu", "hw.logicalcpu", "machdep.cpu.brand_string", "hw.machine")


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


def read_mac() -> tuple[Memory, Cpu, list[Gpu]]:
    """Starts `sysctl` and `vm_stat`, each with a deadline. Raises OSError or subprocess.SubprocessError."""
    told = parse_sysctl(_output("/usr/sbin/sysctl", *_NAMES))
    total = int(told.get("hw.memsize", "0"))
    logical = int(told.get("hw.logicalcpu", "1"))
    model, machine = told.get("machdep.cpu.brand_string", ""), told.get("hw.machine", "")
    memory = Memory(total, min(total, parse_vm_stat(_output("/usr/bin/vm_stat"))))
    cpu = Cpu(model, machine, int(told.get("hw.physicalcpu", logical)), logical, float(logical))
    gpus = [Gpu("apple", f"{model} (shares the machine's memory)", "Metal", None)] if machine == "arm64" else []
    return memory, cpu, gpus


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout
