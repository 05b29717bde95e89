"""Targets: what the gateway looks for in bodies that it passes on."""

from __future__ import annotations

import json
import re
from typing import Any

from corral.access.origin import Rules, Said, host_name, is_allowed_origin, is_own_host, is_own_page
from corral.errors import BadReference, CallerError, EngineError
from corral.gateway.dialects.multipart import field
from corral.gateway.dialects.usage import usage_of
from corral.gateway.http.sse import Splitter
from corral.gateway.path.peek import glance, peek, splice
from corral.hidden import unsigned
from corral.refs_parse import parse_ref
from fuzz.material import ODD, body, pieces

_WORDS = ("model", "stream", "messages", "m", "mod\u0065l", 'a"model":', "\\", *ODD)
_NAME = 'other "name" ü'


def names(data: bytes) -> None:
    """A body whose model is found is one JSON object with that model; another one put in changes no other byte."""
    for given in (data, body(data, _WORDS)):
        _named(given)


def _named(given: bytes) -> None:
    seen = glance(given)
    try:
        found = peek(given)
    except CallerError as exc:
        assert exc.hint
        assert seen is None, f"the fast path takes what the other refuses ({exc.message}): {given!r}"
        return
    said = _strict(given)
    assert found.model == said.get("model") and found.stream is (said.get("stream") is True)
    assert seen is None or (*seen[:2], seen[2].keys()) == (found.model, found.stream, said.keys())
    made = splice(given, found, _NAME)
    if found.span is not None:
        start, end = found.span
        assert json.loads(given[start:end]) == found.model
        assert made == given[:start] + json.dumps(_NAME).encode() + given[end:]
    assert _strict(made) == {**said, "model": _NAME}


class _Number(str):
    __slots__ = ()


def _strict(given: bytes) -> dict[str, Any]:
    """Numbers stay as they are written."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs)

    found = json.loads(given.decode(), object_pairs_hook=members, parse_int=_Number, parse_float=_Number,
                       parse_constant=lambda name: 1 / 0)  # fmt: skip
    assert isinstance(found, dict)
    return found


def events(data: bytes) -> None:
    """Whole events, unchanged and in order, and the same ones however they come."""
    seen = []
    for parts in ([data], list(pieces(data))):
        splitter, runs = Splitter(), []
        for part in parts:
            if run := splitter.feed(part):
                runs.append(run)
        assert b"".join(runs) + splitter.rest() == data
        assert splitter.holding == bool(splitter.rest())
        assert all(re.search(rb"(\r\n|\n|\r)(\r\n|\n|\r)\Z", run) for run in runs)
        assert b"".join(runs).endswith(splitter.tail)
        seen.append(([each for run in runs for each in _events_in(run)], _events_in(splitter.rest())))
    assert seen[0] == seen[1], seen
    small = Splitter(max_event_bytes=40, tail_bytes=16)
    try:
        for part in pieces(data):
            small.feed(part)
            assert len(small.rest()) <= 40 and len(small.tail) <= 16
    except EngineError as exc:
        assert exc.hint


def _events_in(data: bytes) -> list[list[bytes]]:
    """By the standard: lines end in CR LF, LF or CR, and an empty one ends an event; one without a line is none."""
    found: list[list[bytes]] = []
    lines: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", data):
        if line:
            lines.append(line)
        elif lines:
            found.append(lines)
            lines = []
    return [*found, lines] if lines else found


_USED = ("usage", "timings", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens",
         "cache_n", "prompt_n", "predicted_n", *ODD)  # fmt: skip


def usage(data: bytes) -> None:
    """Counts that are none is nothing said; what is said is whole numbers, none below 0."""
    for given in (data, body(data, _USED)):
        found = usage_of(given)
        assert found is None or all(type(count) is int and count >= 0 for count in found)


def fields(data: bytes) -> None:
    """Short texts that clients choose: multipart fields, references, hosts and origins. Each is read or refused."""
    kind, _, rest = data.partition(b"\n")
    field(kind, rest, b"model")
    field(b"multipart/form-data; boundary=x", data, b"model")
    try:
        ref = parse_ref(data.decode("utf-8", "replace"))
    except BadReference as exc:
        assert exc.hint
    else:
        read = parse_ref(str(ref))
        assert str(read) == str(ref) and read.name == ref.name
        if ref.kind != "url" or unsigned(ref.repository) == ref.repository:
            assert read == ref, "a reference written out is itself"
    name = host_name(kind)
    own = is_own_host(kind, Rules())
    assert not own or not kind or re.search(r"\A[0-9a-f:.]+(%.*)?\Z|(\A|\.)localhost\Z|\.internal\Z", name, re.DOTALL)
    for tls in (False, True):
        said = Said(kind, rest or None, b"cross-site" if data[-1:] > b"m" else None)
        if is_own_page(said, tls=tls) and said.origin is not None:
            assert said.origin.lower().partition(b"://")[2] == kind.lower(), "an origin that is not this host's"
    is_allowed_origin(rest, Rules(origins=("https://*.example.org",)))
