"""What targets make of the bytes they are given: pieces, and JSON values of words that mean something. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

_DEEP = 5
_PIECES = 12
"""Of a long input there are at most twice as many or so: otherwise handing them over is all that takes time."""


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` cut somewhere: where is decided by `data` itself, so that each input is cut in one way."""
    chance = zlib.crc32(data)
    most = (1, 3, 17, 64, 400)[chance % 5]
    most = max(most, len(data) // _PIECES)
    at = 0
    while at < len(data):
        chance = (chance * 1103515245 + 12345) & 0x7FFFFFFF
        size = 1 + (chance >> 8) % most
        yield data[at : at + size]
        at += size


class Reader:
    """Takes decisions from bytes; when they have run out, each decision is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        if not self.more:
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def bytes(self) -> bytes:
        """A few bytes as they are."""
        size = self.byte() % 32
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[self.byte() % len(choices)]

    def value(self, words: Sequence[Any], depth: int = 0) -> Any:
        """A JSON value: objects have keys of `words`, and texts, numbers and the rest are of them, too."""
        kind = self.byte() % 8
        if kind < 3 and depth < _DEEP:
            keys = [word for word in words if isinstance(word, str)]
            return {self.one_of(keys): self.value(words, depth + 1) for _ in range(self.byte() % 5)}
        if kind == 3 and depth < _DEEP:
            return [self.value(words, depth + 1) for _ in range(self.byte() % 4)]
        if kind == 4:
            return self.bytes().decode("utf-8", "surrogateescape")
        return self.one_of(words)


ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 10**400, 1.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "a", "\ud800", "\x00", "\u2028", "🐎", [], {}, "9" * 50,
)  # fmt: skip
"""What is a right JSON value, or taken for one by Python, and seldom expected."""


def body(data: bytes, words: Sequence[Any]) -> bytes:
    """A request's or an answer's JSON: `data` itself when it is text; else what its bytes spell, of `words`."""
    if data[:1] >= b"\t":
        return data
    return json.dumps(Reader(data[1:]).value(words)).encode()


def is_json(data: bytes) -> Any:
    """What some JSON says. Raises AssertionError when it is none that a strict reader takes."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON: {data[:200]!r}")

    try:
        return json.loads(data.decode(), parse_constant=refuse)
    except ValueError as exc:
        raise AssertionError(f"no JSON: {exc}: {data[:300]!r}") from exc
