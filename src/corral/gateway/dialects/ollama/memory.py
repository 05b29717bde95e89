"""The `context` of `generate`: the conversation so far as a list of numbers, for the client to send back.

Ollama gives the tokens. Here the numbers hold the messages themselves, packed: the chat template then sees every turn,
nothing has to be asked of the engine, and there are fewer numbers than tokens. They are as opaque to a client as
tokens are, and are told from those of another server by their first number and a checksum.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from corral.errors import CallerError

_MARK: Final = 0xC0221
_MAX_NUMBERS: Final = 4 << 20
_MAX_BYTES: Final = 64 << 20

Message = dict[str, Any]


def remembered(messages: list[Message]) -> list[int]:
    """`messages` (roles and texts) as numbers below 2^24."""
    packed = zlib.compress(json.dumps(messages, ensure_ascii=False).encode(errors="replace"), 6)
    padded = packed + bytes(-len(packed) % 3)
    body = [int.from_bytes(padded[at : at + 3], "big") for at in range(0, len(padded), 3)]
    check = zlib.crc32(packed)
    return [_MARK, len(packed), check >> 16, check & 0xFFFF, *body]


def recall(numbers: Any) -> list[Message]:
    """The messages in what `remembered` gave; none in an empty list or null. Raises CallerError."""
    if numbers is None or numbers == []:
        return []
    if not isinstance(numbers, list) or len(numbers) > _MAX_NUMBERS:
        raise _foreign()
    whole = all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 1 << 24 for each in numbers)
    if not whole or len(numbers) < 5 or numbers[0] != _MARK:
        raise _foreign()
    _, length, high, low, *body = numbers
    packed = b"".join(each.to_bytes(3, "big") for each in body)
    if not len(packed) - 3 < length <= len(packed) or zlib.crc32(packed[:length]) != high << 16 | low:
        raise _foreign()
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(packed[:length], _MAX_BYTES)
        found = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as exc:
        raise _foreign() from exc
    if not isinstance(found, list) or not all(_sound(each) for each in found):
        raise _foreign()
    return [{"role": each["role"], "content": each["content"]} for each in found]


def _sound(message: Any) -> bool:
    return (
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
    )


def _foreign() -> CallerError:
    return CallerError(
        "the context is none that this server gave",
        hint="send back the `context` of an earlier answer unchanged, or leave it out; /api/chat needs none",
        param="context",
    )
