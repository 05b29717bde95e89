"""The processor: its name, and the cores this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from corral.hardware.memory import read_cgroup_directories
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Cpu:
    """`usable` counts cores, in parts too: a container may be given one and a half."""

    model: str
    architecture: str
    physical: int
    logical: int
    usable: float
    features: frozenset[str] = frozenset()  # instruction sets, by the kernel's names


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What `/proc/cpuinfo` tells."""

    model: str
    physical: int  # 0 = it does not say
    logical: int
    features: frozenset[str]


def parse_cpuinfo(text: str) -> CpuInfo:
    """`/proc/cpuinfo` of x86 and Arm kernels alike; a machine that does not name its processor has an empty model."""
    model, logical, features = "", 0, frozenset[str]()
    cores: set[tuple[str, str]] = set()
    for block in text.split("\n\n"):
        fields = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        if "processor" in fields:
            logical += 1
            if "core id" in fields:
                cores.add((fields.get("physical id", "0"), fields["core id"]))
        model = model or fields.get("model name") or fields.get("Model") or fields.get("Hardware") or ""
        features = features or frozenset((fields.get("flags") or fields.get("Features") or "").split())
    return CpuInfo(model, len(cores), logical, features)


def parse_quota(text: str) -> float | None:
    """`cpu.max` (v2), or v1's quota and period joined by a space, as cores; None for no quota."""
    words = text.split()
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal() or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def read_cpu(root: Path = Path("/")) -> Cpu:
    """Of this process on Linux, seen through the files under `root`. Raises OSError where there is no /proc."""
    info = parse_cpuinfo((root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    logical = info.logical or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if root == Path("/") and hasattr(os, "sched_getaffinity") else logical
    usable = float(allowed)
    for directory in read_cgroup_directories(root, "cpu"):
        here = root / directory.relative_to("/")
        for text in (
            _text(here / "cpu.max"),
            f"{_text(here / 'cpu.cfs_quota_us')} {_text(here / 'cpu.cfs_period_us')}",
        ):
            quota = parse_quota(text)
            if quota is not None:
                usable = min(usable, quota)
    return Cpu(info.model, platform.machine(), info.physical or logical, logical, usable, info.features)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
