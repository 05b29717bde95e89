"""The tokens of a saved slot, and how much of a request they already hold. No I/O but one small read.

Source: llama.cpp's sequence state file: the magic `ggsq`, a version, a count, so many 32-bit integers, then the state.
The integers are the tokens or, since version 4, have them after a -1, another number and their count.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from corral.errors import EngineError

_MAGIC = 0x67677371  # "ggsq"
_HEAD = struct.Struct("<III")
_MOST = 4  # times as many integers as tokens: what has more is something else
_MARK = -1
_BEFORE = 3  # numbers before the tokens where the first is the mark


def read(path: Path, count: int) -> array[int]:
    """The tokens of a saved slot that has `count`. Raises OSError, and EngineError when it is no such file."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            magic, _, length = _HEAD.unpack(head)
            if magic == _MAGIC and count <= length <= _MOST * (count + _BEFORE):
                found = array("i")
                found.frombytes(file.read(4 * length))
                if length == count and len(found) == count:
                    return found
                if len(found) == length >= count + _BEFORE and found[0] == _MARK and found[2] == count:
                    return found[_BEFORE : _BEFORE + count]
    raise EngineError(
        "the engine's saved slots have a form that is not known", hint="conversations are not kept with this engine"
    )


def shared(one: array[int], other: array[int]) -> int:
    """How many tokens both begin with."""
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
