"""`Heads`: heads of requests that were read before, so that the same one need not be read again. Pure.

A client sends nearly the same head with each of its requests: all that differs is the length of the body. So a head is
remembered by its bytes without the digits of that length. What was found right stays right with other digits.
"""

from __future__ import annotations

import re

from corral.gateway.http.head import Head

MOST = 128
"""Of those with a body, and of those without."""
MAX_BYTES = 2048
"""Of a head that is remembered: half a megabyte in all, at most."""

_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,15})\r\n", re.IGNORECASE)


def around(data: bytes) -> tuple[bytes, bytes] | None:
    """The bytes of a head before and after the digits of its length; None when it declares none."""
    length = _LENGTH.search(data)
    return (data[: length.start(1)], data[length.end(1) :]) if length is not None else None


class Heads:
    """The heads of one listener's clients that were used last."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}  # without the digits of their length
        self._bare: dict[bytes, Head] = {}  # those that declare none

    def find(self, data: bytes) -> tuple[Head, int | None, int] | None:
        """The head at the beginning of `data`, where all of it is there and known; the length that it declares in
        place of its own; and where it ends."""
        end = data.find(b"\r\n\r\n", 0, MAX_BYTES) + 4
        if end < 4:
            return None
        length = _LENGTH.search(data, 0, end)
        if length is None:
            head = self._bare.get(data[:end])
            return (head, None, end) if head is not None else None
        known = self._known.get(data[: length.start(1)] + data[length.end(1) : end])
        if known is None:
            return None
        return known, int(length[1]), end

    def remember(self, data: bytes, head: Head) -> None:
        """`head` was read from exactly `data`, all at once, and is right. It must not be changed any more."""
        if len(data) > MAX_BYTES:
            return
        length = _LENGTH.search(data)
        if (length is None) is not (head.length is None):
            return  # it is written in some other way
        key = data if length is None else data[: length.start(1)] + data[length.end(1) :]
        home = self._bare if length is None else self._known
        if len(home) >= MOST:
            del home[next(iter(home))]
        home[key] = head
