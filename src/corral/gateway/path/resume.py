"""`Resume`: a stream on its way to a client, and what becomes of it when its engine dies."""

from __future__ import annotations

import asyncio

from corral.errors import EngineGone
from corral.gateway.dialects.dialect import Translation
from corral.gateway.dialects.usage import Usage, usage_of
from corral.gateway.path.again import Tries
from corral.gateway.path.continued import TARGETS, Shaped, rest_of
from corral.gateway.path.sent import Sent
from corral.scheduler.lease import Lease

_LARGE_BYTES = 256 << 10  # from this size on a body is read in a thread
_NDJSON = b"application/x-ndjson"


class Resume:
    """One stream. Every run of events passes through `passed` before it goes out or is translated."""

    def __init__(self, target: bytes, body: bytes, sent: Sent | None = None) -> None:
        """`sent` is what went out before, on the fast path."""
        self._target, self._body = target, body
        self._sent = sent or Sent()
        self._sent.unframed()
        self._shaped: Shaped | None = None
        self._mark = False
        self._failed = False
        self._translation: Translation | None = None

    @property
    def going_on(self) -> bool:
        """An engine was asked for the rest."""
        return self._shaped is not None

    @property
    def tokens(self) -> int:
        """How many the client has, as far as events tell."""
        return self._sent.read().tokens

    def told_by(self, translation: Translation | None) -> Translation | None:
        """`translation`, which was made for this try; or the one in which the answer began."""
        if self._shaped is None:
            self._translation = translation
        return self._translation

    def passed(self, events: bytes) -> bytes:
        """Whole events as they go out; empty when nothing of them does."""
        if self._shaped is not None:
            events = self._shaped.events(events)
        if events:
            self._sent.keep(events)
        return events

    def marked(self, said: bytes, kind: bytes, lease: Lease) -> bytes:
        """What goes out, and where the rest begins, that it does."""
        if not self._mark or not said:
            return said
        self._mark = False
        if kind[:17].lower() == b"text/event-stream":
            return b": corral.resumed unit=%b\n\n%b" % (lease.unit.encode("ascii", "replace"), said)
        if kind.startswith(_NDJSON) and said.startswith(b"{") and not said.startswith(b"{}"):
            return b'{"corral_resumed":true,' + said[1:]
        return said

    def usage(self, end: bytes) -> Usage | None:
        """What all of the answer took, as the engines say; `end` is that of the last one's."""
        return usage_of(end) if self._shaped is None else self._shaped.usage

    async def rest(self, lease: Lease, tries: Tries, error: EngineGone) -> bytes | None:
        """What to ask the next engine for, now that `lease` was lost with `error`; None when that is not possible."""
        if self._failed:
            return None
        if len(self._body) < _LARGE_BYTES:
            body = rest_of(self._target, self._body, self._sent)
        else:
            body = await asyncio.to_thread(rest_of, self._target, self._body, self._sent)
        if body is None or not await tries.more(lease, error):
            return None
        self._shaped = Shaped(self._sent)
        self._mark = True
        return body

    def refused(self, status: int) -> EngineGone:
        """What there is to say when the next engine does not go on."""
        self._failed = True
        return EngineGone(
            f"the engine died before its answer was whole, and its successor did not go on with it ({status})",
            hint="ask again",
            sent_any=True,
            untouched=False,
        )


def resume(target: bytes, body: bytes, sent: Sent | None = None) -> Resume | None:
    """For a stream of `target`; None where nothing could go on from what its client has."""
    return Resume(target, body, sent) if target in TARGETS else None
