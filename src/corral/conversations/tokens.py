"""The tokens of a saved slot, and how much of a request they already hold. No I/O but one small read.

Source: llama.cpp's sequence state file: the magic `ggsq`, a version, a count, so many 32-bit integers, then the state.
Among the integers are the tokens, in newer versions with a few other numbers around them, so that the place is found by
what matches rather than by the version.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from corral.errors import EngineError

_MAGIC = 0x67677371  # "ggsq"
_HEAD = struct.Struct("<III")
_MOST_AROUND = 64
"""So many integers that are no tokens are taken to be possible."""


def read(path: Path, count: int) -> array[int]:
    """The integers of a saved slot of `count` tokens. Raises OSError, and EngineError when it is no such file."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            magic, _, length = _HEAD.unpack(head)
            if magic == _MAGIC and count <= length <= count + _MOST_AROUND:
                found = array("i")
                found.frombytes(file.read(4 * length))
                if len(found) == length:
                    return found
    raise EngineError(
        "the engine's saved slots have a form that is not known", hint="conversations are not kept with this engine"
    )


def shared(request: array[int], held: array[int], count: int) -> int:
    """How many tokens of `request`, from its beginning, the slot whose integers are `held` has."""
    best = 0
    for at in range(max(0, len(held) - count) + 1):
        if best == 0 or held[at : at + best] == request[:best]:
            best = max(best, _common(request, held[at : at + count]))
    return best


def _common(one: array[int], other: array[int]) -> int:
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
