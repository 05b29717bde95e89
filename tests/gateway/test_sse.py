"""Cutting event streams between events."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import EngineError
from corral.gateway.http import sse
from corral.gateway.http.sse import Splitter

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Events with free line ends, and perhaps a torn one at the end."""
    written = []
    for _ in range(draw(st.integers(0, 6))):
        for _ in range(draw(st.integers(1, 3))):
            written.append(b"data: " + draw(st.binary(max_size=8)).translate(None, b"\r\n") + draw(ends))
        written.append(draw(ends))
    if draw(st.booleans()):
        written.append(b"data: torn" + draw(st.sampled_from([b"", b"\n", b"\r", b"\r\n"])))
    return b"".join(written)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted({min(each, len(data)) for each in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks)]


@given(streams(), st.lists(st.integers(0, 200), max_size=20))
def test_events_come_whole_in_order_and_unchanged(data: bytes, at: list[int]) -> None:
    """However the bytes are cut on their way, what comes out is the same bytes, each piece ending at an empty line."""
    splitter = Splitter()
    pieces = [whole for piece in cut(data, at) if (whole := splitter.feed(piece))]
    assert b"".join(pieces) + splitter.rest() == data
    for piece in pieces:
        assert re.search(rb"(\r\n|\n|\r)(\r\n|\n|\r)\Z", piece), piece


@given(streams(), st.lists(st.integers(0, 200), max_size=20))
def test_nothing_whole_is_held_back(data: bytes, at: list[int]) -> None:
    """What is still held never contains an event's end."""
    splitter = Splitter()
    for piece in cut(data, at):
        splitter.feed(piece)
        held = splitter.rest()
        assert b"\n\n" not in held and b"\r\r" not in held and b"\r\n\r\n" not in held


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200))
def test_the_tail_is_the_last_whole_events_within_its_bound(sizes: list[int], bound: int) -> None:
    """The tail ends where the stream stands, starts at an event, and never exceeds its bound."""
    splitter = Splitter(tail_bytes=bound)
    stream = b""
    for i, size in enumerate(sizes):
        event = b"data: %d" % i + b"x" * size + b"\n\n"
        stream += splitter.feed(event)
        assert len(splitter.tail) <= bound
        assert stream.endswith(splitter.tail)
        assert splitter.tail == b"" or splitter.tail.startswith(b"data: ")


def test_a_run_longer_than_the_tail_leaves_its_last_events_in_it() -> None:
    """Many events at once do not empty the tail."""
    splitter = Splitter(tail_bytes=64)
    splitter.feed(b"".join(b"data: %03d\n\n" % i for i in range(100)))
    assert splitter.tail.endswith(b"data: 099\n\n")
    assert splitter.tail.startswith(b"data: ")
    assert len(splitter.tail) <= 64


def test_an_event_without_end_is_bounded() -> None:
    """An engine that never ends its event is an error, not a growing buffer."""
    splitter = Splitter(max_event_bytes=1000)
    with pytest.raises(EngineError, match="more than 1000 bytes"):
        for _ in range(20):
            splitter.feed(b"x" * 100)


@given(st.text(), st.none() | st.integers(0, 10**6))
def test_an_event_of_ours_is_one_event(text: str, number: int | None) -> None:
    """Whatever the data, exactly one event comes out, and every line of the data is in it."""
    made = sse.event(text, id=None if number is None else str(number))
    splitter = Splitter()
    assert splitter.feed(made) == made
    lines = [line.removeprefix(b"data: ") for line in made[:-2].split(b"\n") if line.startswith(b"data: ")]
    assert b"\n".join(lines).decode() == re.sub(r"\r\n|\r", "\n", text.encode(errors="replace").decode())
