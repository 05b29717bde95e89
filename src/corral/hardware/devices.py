"""`Device`: one place that models can be in, the processor or a GPU, with its memory as it is now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, field, replace
from types import MappingProxyType
from typing import Any, Final

from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory
from corral.lazy_dataclass import dataclass

CPU: Final = "cpu"
MACHINE: Final = "the machine's memory"
"""The source of an integrated GPU's figures where its driver has none."""


@dataclass(frozen=True, slots=True)
class Device:
    """Bytes are None where nothing tells. `shared`: its memory is the machine's own, and `"cpu"` counts it too."""

    name: str  # "cpu", "gpu0" …: the same as long as the machine has the same GPUs
    vendor: str
    words: str  # what people call it
    total_bytes: int | None
    free_bytes: int | None
    source: str  # who says so: "/proc/meminfo", "cgroup", "NVML", "amdgpu", "the engine" …
    shared: bool = False
    address: str | None = None  # PCI
    held: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))  # bytes by process, where it is told
    problem: str | None = None  # why it cannot be used
    utilisation: float | None = None  # how busy it was since the look before, 0 to 1
    temperature_c: float | None = None
    power_w: float | None = None  # what it draws, since the look before where a counter of energy tells
    power_limit_w: float | None = None  # what it may draw

    @property
    def known(self) -> bool:
        """Whether it can be used and its memory is known."""
        return self.problem is None and self.total_bytes is not None and self.free_bytes is not None


@dataclass(frozen=True, slots=True)
class Work:
    """What the processor does, as `Device` has it; None where nothing tells."""

    utilisation: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One GPU as an engine lists it: in its own order, by its own name."""

    name: str  # "CUDA0", "Vulkan1" …
    words: str
    total_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def software(self) -> bool:
        """Whether it is the processor that computes, behind a GPU's interface: its memory is the machine's own."""
        return any(word in self.words.casefold() for word in ("llvmpipe", "lavapipe", "swiftshader"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child said of one look."""

    gpus: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def processor(memory: Memory, work: Work | None = None) -> Device:
    """System memory as a device, with what the processor does."""
    limited = memory.limit_bytes is not None and memory.limit_bytes <= memory.total_bytes
    source = "cgroup" if limited else memory.source
    device = Device(CPU, "", "the processor", memory.usable_bytes, memory.available_bytes, source)
    return device if work is None else replace(device, **asdict(work))


def assemble(
    memory: Memory | None, gpus: Sequence[Gpu], answer: Answer, work: Work | None = None
) -> tuple[Device, ...]:
    """The processor, then the GPUs: cards by their PCI addresses, then those that share the machine's memory.

    `gpus` is what the kernel shows, `answer` what the drivers say; a GPU that only one of them knows is there too.
    `work` is what the processor does.
    """
    told = {str(each.get("address")): each for each in answer.gpus if each.get("address")}
    found = []
    for gpu in gpus:
        found.append(_device(gpu, told.pop(gpu.address or "", None)))
    found += [_device(None, each) for each in told.values()]
    found += [_device(None, each) for each in answer.gpus if not each.get("address")]
    found.sort(key=lambda device: (device.shared, device.address or "~"))
    named = [replace(device, name=f"gpu{number}") for number, device in enumerate(found)]
    if memory is None:
        return tuple(named)
    return (processor(memory, work), *(_within(device, memory) for device in named))


def _device(gpu: Gpu | None, told: Mapping[str, Any] | None) -> Device:
    if told is None:
        assert gpu is not None
        source = gpu.source or ("sysfs" if gpu.memory_bytes is not None else "nothing")
        return Device(
            "", gpu.vendor, gpu.name, gpu.memory_bytes, gpu.free_bytes, source, gpu.shared, gpu.address,
            problem=gpu.problem,
        )  # fmt: skip
    problem = gpu.problem if gpu is not None else None
    return Device(
        name="",
        vendor=str(told["vendor"]),
        words=str(told["name"]) or (gpu.name if gpu is not None else str(told["vendor"])),
        total_bytes=told["total"],
        free_bytes=told["free"],
        source=str(told["source"]),
        shared=bool(told["shared"]),
        address=str(told["address"]) or None,
        held=MappingProxyType({int(pid): int(size) for pid, size in told["held"].items()}),
        problem=problem or told["problem"],
        utilisation=told.get("utilisation"),
        temperature_c=told.get("temperature"),
        power_w=told.get("power"),
        power_limit_w=told.get("power_limit"),
    )


def _within(device: Device, memory: Memory) -> Device:
    """A GPU that shares the machine's memory has no more than the machine has left."""
    if not device.shared or device.problem is not None:
        return device
    total = memory.usable_bytes if device.total_bytes is None else min(device.total_bytes, memory.usable_bytes)
    free = memory.available_bytes if device.free_bytes is None else min(device.free_bytes, memory.available_bytes)
    source = MACHINE if device.total_bytes is None else device.source
    return replace(device, total_bytes=total, free_bytes=min(free, total), source=source)


_LINE = re.compile(r"^ {2}([A-Za-z]+[0-9]+): (.*?)(?: \((\d+) MiB, (\d+) MiB free\))?$", re.MULTILINE)


def parse_listing(text: str) -> list[Listed]:
    """What llama.cpp's `--list-devices` prints. Source: llama.cpp, common/arg.cpp."""
    return [
        Listed(name, words, int(total) << 20 if total else None, int(free) << 20 if free else None)
        for name, words, total, free in _LINE.findall(text)
    ]


def match(listed: Sequence[Listed], devices: Iterable[Device]) -> dict[str, Device]:
    """The devices behind an engine's names for them, as far as they can be told apart: by description and size, else by
    kind and order. GPUs that cannot be used are nobody's."""  # fmt: skip
    left = [each for each in devices if each.name != CPU and each.problem is None]
    found: dict[str, Device] = {}
    for rule in (_same, _same_kind, lambda one, other: True):
        for one in listed:
            if one.name in found:
                continue
            if (device := next((each for each in left if rule(one, each)), None)) is not None:
                found[one.name] = device
                left.remove(device)
    return found


def _same(one: Listed, device: Device) -> bool:
    words = device.words.casefold()
    alike = bool(words) and (words in one.words.casefold() or one.words.casefold() in words)
    near = (
        one.total_bytes is None
        or device.total_bytes is None
        or abs(one.total_bytes - device.total_bytes) * 10 < (device.total_bytes or 1)
    )
    return alike and near


_VENDORS: Final = {"CUDA": "nvidia", "ROCm": "amd", "SYCL": "intel", "Metal": "apple", "MTL": "apple"}


def _same_kind(one: Listed, device: Device) -> bool:
    kind = _VENDORS.get(one.name.rstrip("0123456789"))
    if kind is not None:
        return kind == device.vendor
    near = one.total_bytes is not None and device.total_bytes is not None
    return device.vendor in one.words.casefold() or (
        near and abs((one.total_bytes or 0) - (device.total_bytes or 0)) * 10 < (device.total_bytes or 1)
    )


def complete(devices: Sequence[Device], listed: Sequence[Listed], held: Mapping[str, int]) -> tuple[Device, ...]:
    """`devices` with what `listed` tells of those whose memory nothing else does.

    An engine lists once, and what is free changes: so `held` says, by device, what Corral's own units took since.
    """
    by_name = {one.name: one for one in listed}
    by_device = {device.name: by_name[name] for name, device in match(listed, devices).items()}
    found = []
    for device in devices:
        one = by_device.get(device.name)
        if one is not None and device.problem is None and one.total_bytes is not None:
            if device.total_bytes is None:
                device = replace(device, total_bytes=one.total_bytes, source="the engine")
            if device.free_bytes is None and one.free_bytes is not None:
                free = max(0, one.free_bytes - held.get(device.name, 0))
                device = replace(device, free_bytes=min(free, device.total_bytes or free))
        found.append(device)
    return tuple(found)
