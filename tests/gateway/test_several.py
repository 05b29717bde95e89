"""Several answers as the choices of one, whatever engines send; with real engines they are in `test_openai_gaps`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CallerError
from corral.gateway.dialects.several import Several, single, wanted
from corral.gateway.dialects.usage import Usage
from corral.gateway.http import sse
from gateway.test_translators import DELTAS, OBJECT, stream


@given(st.lists(OBJECT, max_size=4), OBJECT)
def test_no_engine_breaks_it(events: list[Any], body: Any) -> None:
    """What goes out is events and JSON."""
    made = Several({"stream_options": {"include_usage": True}})
    for _ in range(2):
        made.events(b"".join(sse.event(json.dumps(each)) for each in events))
        made.events(b": a comment\n\ndata: 1\n\ndata:\n\n")
        made.body(json.dumps(body).encode())
        made.body(b"\xff no JSON")
        made.ended(None, 1)
    assert isinstance(json.loads(made.whole())["choices"], list)
    made.last()


@given(st.lists(DELTAS, max_size=5))
def test_a_stream_has_one_end(deltas: list[Any]) -> None:
    """Counts and the end come once, behind all answers."""
    made, out = Several({"stream_options": {"include_usage": True}}), b""
    for made.index in range(3):
        out += made.events(stream(deltas))
        made.ended(Usage(5, 7, 2), 1)
    out += made.last()
    *chunks, counted, end = out.removesuffix(b"\n\n").split(b"\n\n")
    assert end == b"data: [DONE]"
    usage = json.loads(counted.removeprefix(b"data: "))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 21, 26)
    indices = [json.loads(each.removeprefix(b"data: "))["choices"][0]["index"] for each in chunks]
    assert indices == sorted(indices) and set(indices) == {0, 1, 2}
    assert b"usage" not in b"".join(chunks)


def test_what_no_engine_said_is_counted() -> None:
    """Pieces of a cut answer are added to what is known, and stand for it where nothing is."""
    made = Several({})
    made.ended(None, 4)
    assert (made.usage, made.unsaid) == (None, 4)
    made.ended(Usage(5, 7), 1)
    made.ended(None, 2)
    assert made.usage == Usage(5, 13)


def test_an_error_is_the_end() -> None:
    """Nobody takes what came for the whole."""
    made = Several({})
    assert b'"error"' in made.events(b'data: {"error":{"message":"x"}}\n\n')
    assert made.failed and made.last() == b""


def test_which_are_asked_for_singly() -> None:
    """Those that the engine does not make at once; what is no number is its own to refuse."""
    for number, at_once, found in ((None, 1, 1), (1, 1, 1), (2, 1, 2), (2, 2, 1), (3, 2, 3), ("2", 1, 1), (0, 1, 1)):
        assert wanted({"n": number}, at_once) == found
    with pytest.raises(CallerError, match="128"):
        wanted({"n": 129}, 1)
    assert single({"n": 2, "seed": 5, "a": 1}, 1) == {"seed": 6, "a": 1}
    assert single({"n": 2, "seed": -1}, 1) == {"seed": -1}
    assert single({"n": 2, "stream": True}, 0) == {"stream": True, "stream_options": {"include_usage": True}}
