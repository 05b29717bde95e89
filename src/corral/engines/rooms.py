"""`room_of`: what one model may use of each device: the budget, or what the machine has less what others use. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import count
from types import MappingProxyType
from typing import Final

from corral.config.settings import HEADROOM, headroom_on
from corral.engines.placement import Room
from corral.hardware.devices import CPU, Device, Listed, match
from corral.lazy_dataclass import dataclass
from corral.units import show_bytes

GRAIN: Final = 32
"""What others use counts in parts of so many of a device, rounded up: a little more or less of it moves no layer."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory as it is now, and what of it models may take."""

    devices: Sequence[Device] = ()
    budgets: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    headroom: int | Mapping[str, int] = HEADROOM
    ours: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({})
    )  # bytes that Corral's own engines hold

    def left_alone(self, name: str) -> int:
        return headroom_on(self.headroom, name)


def room_of(machine: Machine, listed: Sequence[Listed]) -> Room:
    """The room of a model whose engine lists the GPUs `listed`. Empty where the memory of one of them, or the
    machine's own, is not known.
    """
    processor = next((each for each in machine.devices if each.name == CPU), None)
    if processor is None or processor.total_bytes is None:
        return Room()
    found = {CPU: _usable(machine, CPU, processor.total_bytes, _others(machine, processor))}
    words = [f"cpu {_words(machine, CPU)}"]
    names: list[str] = []
    shared: list[str] = []
    behind = match(listed, machine.devices)
    taken = {device.name for device in machine.devices}
    fresh = (name for number in count() if (name := f"gpu{number}") not in taken)
    for one in _distinct(listed):
        device = behind.get(one.name)
        name = device.name if device is not None else next(fresh)
        total = one.total_bytes or (device.total_bytes if device is not None else None)
        if total is None:
            return Room()
        if device is not None and device.total_bytes is not None:
            total = min(total, device.total_bytes)
        found[name] = _usable(machine, name, total, _others(machine, device) if device is not None else 0)
        names.append(one.name)
        if one.software or (device is not None and device.shared):
            shared.append(name)
        words.append(f"{name} {_words(machine, name)}")
    return Room(MappingProxyType(found), tuple(names), tuple(shared), ", ".join(words))


def _usable(machine: Machine, name: str, total: int, others: int) -> int:
    most = max(0, total - machine.left_alone(name))
    budget = machine.budgets.get(name)
    return max(0, most - others) if budget is None else min(budget, most)


def _others(machine: Machine, device: Device) -> int:
    """What neither Corral's engines nor the headroom account for, in whole grains."""
    if device.total_bytes is None or device.free_bytes is None:
        return 0
    used = max(0, device.total_bytes - device.free_bytes - machine.ours.get(device.name, 0))
    grain = max(1, device.total_bytes // GRAIN)
    return -(-used // grain) * grain


def _words(machine: Machine, name: str) -> str:
    if name in machine.budgets:
        return f"by its budget of {show_bytes(machine.budgets[name])}"
    return f"less {show_bytes(machine.left_alone(name))} and what others use"


def _distinct(listed: Sequence[Listed]) -> list[Listed]:
    """`listed` without GPUs that a second backend shows once more: Vulkan, beside a vendor's own."""
    own = {one.words.casefold() for one in listed if not one.name.startswith("Vulkan")}
    return [one for one in listed if not (one.name.startswith("Vulkan") and one.words.casefold() in own)]
