"""`Key` and `Figures`: what was loaded, and what that took. Plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final

from corral.lazy_dataclass import dataclass

COMPONENTS: Final = ("weights", "cache", "compute", "other")
"""`other` is what a process holds beside what its engine reports: its program, a driver's context."""

Parts = Mapping[str, int]
"""Bytes by component."""


@dataclass(frozen=True, slots=True)
class Key:
    """Loads with the same key take the same memory."""

    model: str  # the content of its files: a digest, or path, size, time of change and inode
    engine: str  # with its version
    settings: str  # a hash of what else matters


@dataclass(frozen=True, slots=True)
class Figures:
    """The most that loads of one key took, and how long the newest one was."""

    devices: Mapping[str, Parts] = field(default_factory=lambda: MappingProxyType({}))
    load_s: float | None = None
    loads: int = 1
    at_wall_s: float = 0.0  # of the newest load

    @property
    def bytes_by_device(self) -> dict[str, int]:
        return {name: sum(parts.values()) for name, parts in self.devices.items()}

    def after(self, earlier: Figures | None) -> Figures:
        """These of a new load, with what earlier ones took more."""
        if earlier is None:
            return self
        names = dict.fromkeys((*earlier.devices, *self.devices))
        devices = {name: _most(earlier.devices.get(name, {}), self.devices.get(name, {})) for name in names}
        load_s = self.load_s if self.load_s is not None else earlier.load_s
        return Figures(MappingProxyType(devices), load_s, earlier.loads + self.loads, self.at_wall_s)


def _most(one: Parts, other: Parts) -> Parts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in COMPONENTS if name in one or name in other}


def dump_devices(devices: Mapping[str, Parts]) -> str:
    """For the file."""
    return json.dumps({name: dict(parts) for name, parts in devices.items()}, sort_keys=True)


def load_devices(text: str) -> Mapping[str, Parts]:
    """The reverse. Raises ValueError for anything else."""
    data: Any = json.loads(text)
    found: dict[str, Parts] = {}
    for name, parts in (data if isinstance(data, dict) else {"": None}).items():
        if not isinstance(parts, dict) or not all(type(size) is int and size >= 0 for size in parts.values()):
            raise ValueError(f"{name} has no sizes")
        found[name] = {each: parts[each] for each in COMPONENTS if each in parts}
    return MappingProxyType(found)
