"""Answers as servers stream them: what a piece is, when it came, and what was counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.measure.answer import KEPT_BYTES, Answer, Shot

STREAMS = Path(__file__).with_name("streams")


def recorded(name: str) -> list[bytes]:
    """The events that a real engine sent, the name of its model apart."""
    return [line for line in (STREAMS / f"{name}.sse").read_bytes().split(b"\n") if line]


LLAMA = recorded("llama-server-11434")


def played(lines: list[bytes], *, from_s: float = 10.0, step_s: float = 1.0) -> Shot:
    """One event a step, from `from_s` on; sent at 9."""
    answer = Answer()
    for number, line in enumerate(lines):
        answer.take(line + b"\n\n", from_s + number * step_s)
    return answer.shot(9.0, from_s + len(lines) * step_s)


def test_a_stream_of_llama_server() -> None:
    """Each event with choices is a piece, the one that ends the answer too; the event with usage is none."""
    shot = played(LLAMA)
    assert (shot.problem, shot.tokens, shot.prompt, shot.cached, shot.counted) == ("", 3, 11, 0, True)
    assert (shot.ttft, shot.latency, shot.gaps, shot.finish) == (1.0, 5.0, (1.0, 1.0, 1.0, 1.0), "length")
    assert shot.tpot == 2.0 and shot.text == 11.0  # the first piece has the role alone, as in `vllm bench serve`
    assert shot.timings is not None and shot.timings["prompt_n"] == 11


def test_a_plain_completion_of_llama_server() -> None:
    """Its last event has choices and usage both."""
    shot = played(recorded("llama-server-11434-plain"))
    assert (shot.problem, shot.tokens, shot.prompt, shot.gaps, shot.text) == ("", 2, 3, (1.0, 1.0), 10.0)


def test_a_single_token_has_no_time_between() -> None:
    """TPOT leaves the first token out, so of one there is none."""
    one = LLAMA[5].replace(b'"completion_tokens":3', b'"completion_tokens":1')
    shot = played([LLAMA[1], LLAMA[4], one, LLAMA[6]])
    assert (shot.tokens, shot.tpot, shot.ttft) == (1, None, 1.0)


def test_a_stream_without_usage() -> None:
    """Pieces with text are counted, and that they were is told."""
    shot = played([*LLAMA[:5], LLAMA[6]])
    assert (shot.tokens, shot.counted, shot.prompt, shot.problem) == (3, False, None, "")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (LLAMA[:3], "the stream was cut"),
        ([LLAMA[5], LLAMA[6]], "the stream ended without a token"),
        (
            [LLAMA[0], b'data: {"error":{"message":"out of memory","code":500}}'],
            "an error in the stream: out of memory",
        ),
        ([LLAMA[0], b'data: {"error":"no"}', LLAMA[5]], "an error in the stream: no"),
        ([LLAMA[0], b"data: {broken", LLAMA[5]], "an event that is no JSON: b'{broken'"),
        ([], "the stream was cut"),
    ],
)
def test_what_goes_wrong_is_said(lines: list[bytes], problem: str) -> None:
    """A stream that broke off, that had an error in its midst, or that held nothing, is no good one."""
    assert played(lines).problem == problem


@given(st.data())
def test_bytes_may_be_cut_anywhere(data: st.DataObject) -> None:
    """However the network cuts it, and with comments, other fields and either kind of line's end, it is the same."""
    ending = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    extra = [b": still there", b"event: message"]
    whole = b"".join(b"".join(each + ending for each in (*extra, line)) for line in LLAMA)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    answer = Answer()
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        answer.take(whole[begin:end], 10.0)
    shot = answer.shot(9.0, 11.0)
    told = (shot.problem, shot.tokens, shot.prompt, shot.cached, shot.ttft, len(shot.gaps))
    assert told == ("", 3, 11, 0, 1.0, 4)


events = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "usage", "error", "content", "completion_tokens", "text"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(events | st.binary(max_size=20), max_size=6))
def test_strange_servers_are_borne(found: list[Any]) -> None:
    """Whatever JSON a server sends, or bytes that are none, there is a shot of it."""
    answer = Answer()
    for each in found:
        line = each if isinstance(each, bytes) else json.dumps(each).encode()
        answer.take(b"data: " + line + b"\n\n", 1.0)
    shot = answer.shot(0.0, 2.0)
    assert shot.problem and shot.tokens >= 0  # none of them says [DONE]


def test_a_long_answer_is_not_kept_whole() -> None:
    """What waits to be read is bounded."""
    answer = Answer()
    line = LLAMA[1] + b"\n\n"
    count = 3 * KEPT_BYTES // len(line)
    for number in range(count):
        answer.take(line, float(number))
        assert len(answer.kept) * len(line) <= KEPT_BYTES + len(line)
    answer.take(b"data: [DONE]\n\n", float(count))
    assert answer.shot(0.0, float(count)).tokens == count
