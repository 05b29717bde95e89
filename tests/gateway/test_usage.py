"""What an answer took, read from its end: the quick way finds what a reader of JSON finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.dialects.tally import Tally, prompts_of
from corral.gateway.dialects.usage import Usage, usage_of

COUNT = st.one_of(st.integers(0, 1 << 54), st.sampled_from([-1, True, None, 1.5, "3", 10**15]))


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value < 1 << 53 else 0


@given(
    COUNT, COUNT, st.one_of(st.none(), COUNT), st.booleans(), st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")])
)
def test_counts_are_read_in_whatever_way_they_are_written(
    prompt: object, completion: object, cached: object, turned: bool, quoted: bool, marks: tuple[str, str]
) -> None:
    """In either order, with more or less beside them, near or after words that look alike."""
    pairs = [("prompt_tokens", prompt), ("completion_tokens", completion)]
    usage: dict[str, object] = dict(reversed(pairs) if turned else pairs)
    usage["total_tokens"] = 7
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    text = '{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}' if quoted else "words"
    body = json.dumps({"content": text, "usage": usage}, separators=marks).encode()
    found = Usage(_count(prompt), _count(completion), _count(cached))
    assert usage_of(body) == found
    assert usage_of(b"data: %b\n\ndata: [DONE]\n\n" % body) == found


def test_numbers_that_are_none_are_not_read() -> None:
    """JSON has no leading zeros, and what is cut off says nothing."""
    assert usage_of(b'{"usage":{"prompt_tokens":01,"completion_tokens":1,"total_tokens":2}}') is None
    assert usage_of(b'{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2') is None


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"input_tokens": 9, "output_tokens": 22, "total_tokens": 31, "input_tokens_details": {"cached_tokens": 8}},
         Usage(9, 22, 8)),
        ({"cache_read_input_tokens": 8, "input_tokens": 1, "output_tokens": 2}, Usage(9, 2, 8)),
        ({"output_tokens": 2}, Usage(0, 2)),
        ({"total_tokens": 7}, Usage(7, 0)),
    ],
)  # fmt: skip
def test_other_dialects_usage_is_read(usage: dict[str, Any], found: Usage) -> None:
    """As llama.cpp's own `/v1/responses`, `/v1/messages` and vLLM's `/rerank` say it."""
    assert usage_of(json.dumps({"usage": usage}).encode()) == found


def test_which_requests_ask_for_several_answers() -> None:
    """By what engines read, at this path; text that looks like it does not count."""
    for body, prompts in (
        ({"prompt": "hi"}, None), ({"prompt": "hi", "n": 1}, None), ({"prompt": [1, 2]}, None),
        ({"prompt": ["a"]}, None), ({"prompt": ["a", 1]}, None), ({"prompt": '"n": 2, "prompt": ["a", "b"]'}, None),
        ({"prompt": ["a", "b"]}, 2), ({"prompt": [{"prompt_string": "a"}] * 3}, 3), ({"prompt": [[1], "a"]}, 2),
        ({"prompt": "hi", "n": 2}, 1), ({"prompt": "hi", "n_cmpl": 2, "n": 1}, 1), ({"prompt": ["a", "b"], "n": 2}, 2),
        ({"logit_bias": {"n": 1}, "n": 3}, 1),
    ):  # fmt: skip
        for separators in ((",", ":"), (", ", " : ")):
            assert prompts_of(b"/completion", json.dumps(body, separators=separators).encode()) == prompts
    chat = json.dumps({"messages": [], "prompt": ["a", "b"]}).encode()
    assert prompts_of(b"/v1/chat/completions", chat) is None
    assert prompts_of(b"/completion", b'{"prompt": ["a", ') is None


def _event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_the_ends_of_a_streams_answers_are_added_up() -> None:
    """Once each, whatever figures the pieces before them have; a prompt that got several answers was read once."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    timings = {"cache_n": 1, "prompt_n": 4, "predicted_n": 3}
    said, done = {"index": 0, "finish_reason": None}, {"index": 1, "finish_reason": "stop"}
    texts, chats, asked, native = Tally(2), Tally(), Tally(), Tally(2)
    for _ in range(2):
        texts.feed(_event(choices=[said], timings=timings) + _event(choices=[done], usage=usage, timings=timings))
        chats.feed(_event(choices=[done], timings=timings))
        asked.feed(_event(choices=[done], usage=usage) + _event(choices=[], usage=usage))
        native.feed(_event(content="a", stop=False, timings=timings) + _event(stop=True, timings=timings))
    assert texts.streamed() == Usage(10, 6, 0, 2)
    assert chats.streamed() == Usage(5, 6, 1, 2)
    assert asked.streamed() == Usage(5, 6, 0, 2)
    assert native.streamed() == Usage(10, 6, 2, 2)
    assert (texts.events, Tally().streamed()) == (4, None)
    texts.feed(b'data: {"usage"\n\ndata: [1, "usage"]\n\ndata: {"choices": [3], "usage": 4}\n\n')


def test_plain_answers_are_added_up() -> None:
    """Each of `/completion`'s list; of choices with the figures of the first, the others are judged by their words, and
    then the figures are known of one answer alone."""
    each = {"tokens_predicted": 3, "tokens_evaluated": 2}
    assert Tally(2).plain(json.dumps([each, each]).encode()) == Usage(4, 6, 0, 2)
    choices = [{"text": "abcd"}, {"text": "abcdef"}, {"text": ""}, {"message": {"content": "ab"}}]
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    merged = {"choices": choices, "usage": usage, "timings": {"cache_n": 0}}
    assert Tally(4).plain(json.dumps(merged).encode()) == Usage(20, 2 + 3 + 1 + 1)
    del merged["timings"]  # vLLM says it of all
    assert Tally(4).plain(json.dumps(merged).encode()) == Usage(5, 2)
    for odd in (b"", b"[", b"[]", b"[1]", b"{}", b'{"usage": {}, "timings": {}, "choices": [1, 2]}', b"[{}, {}]"):
        Tally(2).plain(odd)
