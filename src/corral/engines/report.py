"""What llama.cpp says in its log of the buffers that it made: bytes by device and component. Pure.

It says so at verbosity 4 and above; the size of each buffer is given in hundredths of a MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import PROCESSOR, Parts

WORDY: Final = ("--log-verbosity", "4")
"""The flags with which llama.cpp reports its buffers."""

_BUFFER: Final = re.compile(r"(?P<who>\w+): +(?P<where>\S+) +(?P<kind>\w+) +buffer size = +(?P<mib>[\d.]+) MiB")
_CONTEXT: Final = "constructing llama_context"
_KINDS: Final = {
    "model": "weights", "LoRA": "weights", "KV": "cache", "RS": "cache", "compute": "compute", "output": "compute",
}  # fmt: skip
_AGAIN: Final = frozenset({"compute", "output"})
"""Buffers that one context may make anew, larger: only its last one is there in the end."""
_MIB: Final = 1 << 20
_DONE: Final = re.compile(r"model loaded|all slots are idle")


@dataclass(frozen=True, slots=True)
class Report:
    """Bytes by device, and how many of the processor's weights are pages of the mapped file."""

    devices: Mapping[str, Parts] = field(default_factory=lambda: MappingProxyType({}))
    mapped: int = 0


def is_whole(log: str) -> bool:
    """Whether the engine has got to the end of its load in this log."""
    return _DONE.search(log) is not None


def read_report(log: str, gpus: Mapping[str, str] | Sequence[str] = ()) -> Report | None:
    """What the load that `log` is of made; None where it does not say.

    `gpus` are Corral's names by the engine's ("CUDA0" → "gpu0"), or Corral's in the engine's order.
    """
    sizes: dict[tuple[str, str, str, int], int] = {}
    context = number = 0
    for line in log.splitlines():
        context += _CONTEXT in line
        if (match := _BUFFER.search(line)) is None or match["kind"] not in _KINDS:
            continue
        number += 1
        apart = context if match["kind"] in _AGAIN else number
        sizes[(match["where"], match["kind"], match["who"], apart)] = round(float(match["mib"]) * _MIB)
    if not sizes:
        return None
    names = gpus if isinstance(gpus, Mapping) else _in_order((where for where, *_ in sizes), gpus)
    found: dict[str, Parts] = {}
    mapped = 0
    for (where, kind, *_), size in sizes.items():
        device = _device(where, names)
        found[device] = found.get(device, Parts()) + Parts(**{_KINDS[kind]: size})
        if where == "CPU_Mapped":
            mapped += size
    return Report(MappingProxyType(found), mapped)


def plain(argv: Sequence[str]) -> tuple[str, ...]:
    """`argv` without what only has the engine say more."""
    return tuple(argv[: -len(WORDY)]) if tuple(argv[-len(WORDY) :]) == WORDY else tuple(argv)


def is_host(where: str) -> bool:
    """Whether a buffer of this name is in the machine's memory."""
    return where.startswith("CPU") or where.endswith("_Host")


def _device(where: str, names: Mapping[str, str]) -> str:
    if is_host(where):
        return PROCESSOR
    if where in names:
        return names[where]
    begin = [name for name in names if where.startswith(name)]
    return names[max(begin, key=len)] if begin else where


def _in_order(wheres: Iterable[str], gpus: Sequence[str]) -> dict[str, str]:
    seen = sorted({where for where in wheres if not is_host(where)}, key=_natural)
    return dict(zip(seen, gpus, strict=False))


def _natural(name: str) -> tuple[str, int]:
    digits = re.search(r"\d+", name)
    return re.sub(r"\d.*", "", name), int(digits[0]) if digits else 0
