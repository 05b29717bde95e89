"""Translations put together, and the one that changes nothing. Pure."""

from __future__ import annotations

from corral.gateway.dialects.dialect import Translation, kept


class Unchanged:
    """What comes goes out."""

    kind = b"text/event-stream"

    def events(self, whole: bytes) -> bytes:
        return whole

    def end(self, rest: bytes) -> bytes:
        return rest

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        return status, body


class Chain:
    """`inner`, whose events are again OpenAI's, and `outer` over what comes out of it."""

    def __init__(self, inner: Translation, outer: Translation) -> None:
        self._inner, self._outer = inner, outer
        self.kind = outer.kind

    def events(self, whole: bytes) -> bytes:
        made = self._inner.events(whole)
        return self._outer.events(made) if made else b""

    def end(self, rest: bytes) -> bytes:
        made = self._inner.end(b"")
        return (self._outer.events(made) if made else b"") + self._outer.end(rest)

    async def keep(self) -> None:
        await kept(self._outer)

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        return self._outer.body(*self._inner.body(status, body))
