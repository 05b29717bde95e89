"""Which header fields cross the gateway, each way. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from corral.errors import CallerError
from corral.scheduler.lease import Lease
from corral.units import parse_duration

Fields = list[tuple[bytes, bytes]]

EVENTS: Fields = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
"""Of an event stream of ours."""

# RFC 9110, section 7.6.1: they speak of one connection only.
_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_UP = _HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-request-id",
    b"http2-settings",
    # Keys are Corral's business: an engine must neither see nor log them.
    b"authorization",
    b"proxy-authorization",
    b"x-api-key",
    b"cookie",
    b"x-corral-keep-alive",
    # With it, llama.cpp goes on with an answer whose client has left.
    b"x-conversation-id",
}
_NOT_DOWN = _HOP | {b"content-length", b"date", b"server", b"proxy-authenticate"}
# llama.cpp lets every web page read its answers; who may read Corral's is not for an engine to say.
_CORS = b"access-control-"
_FORM = b"application/x-www-form-urlencoded"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


def first(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of `name` (in lower case)."""
    for key, value in fields:
        if key == name:
            return value
    return None


def upward(fields: Sequence[tuple[bytes, bytes]], request_id: bytes, *, identity: bool) -> Fields:
    """A request's fields as the engine gets them; `identity` asks it for an answer that is not compressed."""
    skipped = _NOT_UP
    for key, value in fields:
        if key == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            skipped = skipped | {token.strip() for token in value.lower().split(b",")}
    if identity:
        kept = [field for field in fields if field[0] not in skipped and field[0] != b"accept-encoding"]
    else:
        kept = [field for field in fields if field[0] not in skipped]
    kind = first(kept, b"content-type")
    # vLLM takes no body that is not called JSON. curl calls any a form, and small clients say nothing of it.
    if kind == _FORM or (kind is None and _with_body(fields)):
        kept = of_json(kept)
    kept.append((b"x-request-id", request_id))
    return kept


def _with_body(fields: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in fields)


NO_RETRY: Final = (b"x-should-retry", b"false")
"""For the SDKs of OpenAI and Anthropic, which try any status from 500 on again."""


def of_json(fields: Fields) -> Fields:
    """`fields` for a body that is JSON and was made here."""
    kept = [field for field in fields if field[0] not in (b"content-type", b"content-encoding")]
    return [*kept, (b"content-type", b"application/json")]


def downward(fields: Sequence[tuple[bytes, bytes]]) -> Fields:
    """An engine's fields as the client gets them; the length is left to whoever sends the body."""
    skipped = _NOT_DOWN
    for key, value in fields:
        if key == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            skipped = skipped | {token.strip() for token in value.lower().split(b",")}
    return [field for field in fields if field[0] not in skipped and not field[0].startswith(_CORS)]


def of_lease(lease: Lease) -> Fields:
    """Who answered, what the wait consisted of, in milliseconds, and what the answer had to do without."""
    fields = [*_of_lease(lease.model, lease.unit, lease.queued_ms, lease.load_ms, lease.swap_ms)]
    if lease.queue_position:
        fields.append((b"x-corral-queue-position", b"%d" % lease.queue_position))
    if lease.degraded:
        fields.append((b"x-corral-degraded", " ".join(lease.degraded.split()).encode("ascii", "replace")[:200]))
    if lease.waited_for:
        fields.append(waited_for(lease.waited_for))
    return fields


def waited_for(words: str) -> tuple[bytes, bytes]:
    """The memory that a request's start lacked."""
    return b"x-corral-waited-for", " ".join(words.split()).encode("ascii", "replace")[:300]


@lru_cache(maxsize=128)  # those who did not wait, which are most, all have the same
def _of_lease(
    model: str, unit: str, queued_ms: float, load_ms: float, swap_ms: float
) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-corral-model", model.encode("ascii", "replace")),
        (b"x-corral-unit", unit.encode("ascii", "replace")),
        (b"x-corral-queue-ms", b"%.1f" % queued_ms),
        (b"x-corral-load-ms", b"%.1f" % load_ms),
        (b"x-corral-swap-ms", b"%.1f" % swap_ms),
    )


def keep_alive_s(value: bytes | None) -> float | None:
    """What a request says of its model's idle time: a duration, 0 for none, -1 for never; None when it says nothing.

    Raises CallerError.
    """
    if value is None:
        return None
    text = value.decode("ascii", "replace").strip()
    if text in ("-1", "never"):
        return float("inf")
    try:
        return parse_duration(text)
    except (ValueError, OverflowError):
        raise CallerError(
            f"X-Corral-Keep-Alive is no duration: {text[:40]!r}", hint="send such as 5m, 0 for none, or -1 for never"
        ) from None


def sane_id(value: bytes | None) -> bytes | None:
    """A request id as a client gave it, unless it is too long or has signs that do not belong into logs."""
    return value if value is not None and _SANE_ID.fullmatch(value) else None
