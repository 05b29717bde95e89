"""llama.cpp's cache of earlier prompts: how large it may become, and what of it counts. Pure.

The server keeps the states of prompts that a slot has left behind in the machine's memory, up to `--cache-ram` MiB
(8192 if nothing is said); it makes room before it takes one more, and takes none that is larger than the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from corral.engines import flags
from corral.engines.placement import Room
from corral.engines.plan import Footprint
from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import PROCESSOR

MOST: Final = 8 << 30
"""llama.cpp's own bound."""
MOST_UNKNOWING: Final = 1 << 30
"""Ours where it is not known how much memory there is."""
SHARE: Final = 16
"""At most the so-manieth part of what models may use of the machine's memory."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Prompts:
    """The bytes that count, the flags that bound them, and a word where nothing does."""

    bytes: int = 0
    arguments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def counted(self, footprint: Footprint) -> Footprint:
        """`footprint` with them."""
        if not self.bytes:
            return footprint
        sizes = dict(footprint.bytes_by_device)
        sizes[PROCESSOR] = sizes.get(PROCESSOR, 0) + self.bytes
        return replace(footprint, bytes_by_device=MappingProxyType(sizes), growth=self.bytes)


def prompts_of(args: Sequence[str], footprint: Footprint, room: Room) -> Prompts:
    """Of a model that generates, on a build that knows the flag. What `args` say holds.

    Else the cache may become as large as the slots' own (so that as many tokens again are remembered), a sixteenth of
    the memory that models may use, and no larger than what this model leaves of it.
    """
    if (said := flags.last_value(args, "--cache-ram")) is not None:
        return _as_asked(said)
    slots = sum(parts.cache for parts in footprint.parts.values())
    most = min(MOST, slots)
    if room:
        whole = room.bytes_by_device[PROCESSOR]
        most = min(most, whole // SHARE, max(0, whole - footprint.bytes_by_device.get(PROCESSOR, 0)))
    else:
        most = min(most, MOST_UNKNOWING)
    mib = -(-most // _MIB) if most == slots else most // _MIB
    return Prompts(mib * _MIB, ("--cache-ram", str(mib)))


def _as_asked(said: str) -> Prompts:
    try:
        mib = int(said)
    except ValueError:
        return Prompts()  # the engine will say what is wrong with it
    if mib < 0:
        return Prompts(
            warnings=("nothing bounds its cache of earlier prompts (--cache-ram -1), and it is not counted",)
        )
    return Prompts(mib * _MIB)
