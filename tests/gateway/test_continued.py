"""What a client has of a stream, and how another engine is asked for the rest: the pure part."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.dialects.usage import usage_of
from corral.gateway.path.continued import CHATS, TARGETS, Shaped, rest_of
from corral.gateway.path.passage import in_chunk
from corral.gateway.path.sent import HELD_BYTES, Sent

HEAD = {"id": "chatcmpl-1", "created": 7, "model": "m", "system_fingerprint": "b1"}
TEXTS = b"/v1/completions"

words = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=40)


def event(choice: dict[str, Any] | None, ascii_only: bool = False, **more: Any) -> bytes:
    choices = [] if choice is None else [{"finish_reason": None, "index": 0, **choice}]
    chunk = {"choices": choices, **HEAD, **more}
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=ascii_only, separators=(",", ":")).encode()


def begin() -> bytes:
    return event({"delta": {"role": "assistant", "content": None}})


def said(events: bytes) -> str:
    sent = Sent()
    sent.keep(events)
    return sent.read().text


@given(words, st.integers(1, 9), st.booleans(), st.booleans(), st.booleans())
def test_the_text_is_that_of_the_events(texts: list[str], run: int, framed: bool, ascii_only: bool, chat: bool) -> None:
    """However many come at once, in chunks or not, and however they are written."""
    shape = (lambda text: {"delta": {"content": text}}) if chat else (lambda text: {"text": text})
    events = [*([begin()] if chat else []), *(event(shape(text), ascii_only) for text in texts)]
    sent = Sent(framed=framed)
    for at in range(0, len(events), run):
        piece = b"".join(events[at : at + run])
        sent.keep(in_chunk(piece) if framed else piece)
    sent.unframed()
    sent.keep(event(shape("!")))
    sent.read()
    assert sent.text == "".join(texts) + "!"
    assert sent.tokens == len(texts) + 1
    assert sent.whole
    assert not sent.finished
    assert sent.head == HEAD


def test_a_long_text_takes_little_memory() -> None:
    """Events are read when they are many: what stays is the text."""
    sent = Sent()
    sent.keep(begin())
    for _ in range(5000):
        sent.keep(event({"delta": {"content": " word"}}))
        assert sum(map(len, sent._held)) <= HELD_BYTES + 1000
    assert sent.read().text == " word" * 5000


def test_text_that_looks_like_events_is_text() -> None:
    """Nothing that a model says is taken for anything else."""
    odd = ['"delta":{"content":"x"}', '{"text":"y"}', '"index":0', "data: z\n\n", '","finish_reason":"stop"', "[DONE]"]
    assert said(begin() + b"".join(event({"delta": {"content": text}}) for text in odd)) == "".join(odd)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_nothing_that_an_engine_sends_breaks_it(pieces: list[bytes]) -> None:
    """It is read, or not; never a failure."""
    sent = Sent()
    for piece in pieces:
        sent.keep(b"data: " + piece + b"\n\n")
    for target in TARGETS:
        rest_of(target, b'{"stream": true, "messages": [{"role": "user"}], "prompt": "x"}', sent)
    Shaped(sent).events(b"".join(b"data: %b\n\n" % piece for piece in pieces))


keys = st.sampled_from(
    ["choices", "delta", "content", "text", "index", "finish_reason", "usage", "timings", "prompt_n", "predicted_n",
     "predicted_ms", "prompt_tokens", "id", "messages", "role", "prompt", "max_tokens", "stop", "error", "x"]
)  # fmt: skip
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(keys, json_values, max_size=5), max_size=5), st.dictionaries(keys, json_values))
def test_no_shape_of_them_does(chunks: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """Right JSON in wrong places neither."""
    events = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    sent = Sent()
    sent.keep(events)
    for target in TARGETS:
        rest_of(target, json.dumps({**body, "stream": True}).encode(), sent)
    Shaped(sent).events(events)


def request(**more: Any) -> bytes:
    return json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def having(*texts: str) -> Sent:
    sent = Sent()
    sent.keep(begin() + b"".join(event({"delta": {"content": text}}) for text in texts))
    return sent


def test_the_rest_is_asked_for() -> None:
    """The text as the beginning of the answer, and the bound less what came."""
    asked = json.loads(rest_of(CHATS, request(max_tokens=10, seed=3), having("a", "b")) or b"")
    assert asked["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ab"}]
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    assert (asked["max_tokens"], asked["seed"], asked["stream"]) == (8, 3, True)
    text = Sent()
    text.keep(event({"text": "c"}))
    for prompt, expected in (("ab", "abc"), ([1, 2], [1, 2, "c"])):
        asked = json.loads(rest_of(TEXTS, request(prompt=prompt, n_predict=-1), text) or b"")
        assert (asked["prompt"], asked["n_predict"]) == (expected, -1)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{}]}, {"n": 2}, {"response_format": {"type": "json_schema"}}, {"grammar": "x"}, {"logprobs": True},
        {"max_tokens": 2}, {"stream": False}, {"messages": []}, {"messages": [{"role": "assistant", "content": "x"}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_asked_for(more: dict[str, Any]) -> None:
    """What ties an answer to its beginning, what is at its end, and what an engine would read in another way."""
    assert rest_of(CHATS, request(), having("a", "b")) is not None
    assert rest_of(CHATS, request(**more), having("a", "b")) is None


@pytest.mark.parametrize(
    "last",
    [
        event({"delta": {}, "finish_reason": "stop"}),
        event({"delta": {"tool_calls": [{"index": 0}]}}),
        event({"delta": {"content": "x"}, "index": 1}),
        b'data: {"error": {}}\n\n',
        b"data: [DONE]\n\n",
    ],
    ids=["finished", "called", "another", "failed", "done"],
)
def test_answers_that_nothing_goes_on_from(last: bytes) -> None:
    """Those that were over, and those that were more than a text."""
    sent = having("a")
    sent.keep(last)
    assert rest_of(CHATS, request(), sent) is None


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_both_engines_count(before: int, cached: int, after: int) -> None:
    """`usage` and `timings` of the rest come to those of an engine that did it all."""
    prompt = 20
    sent = having(*["x"] * before)
    read = max(0, prompt + before - cached)
    timings = {"prompt_n": read, "prompt_ms": 5.0, "cache_n": cached, "predicted_n": after, "predicted_ms": 2.0 * after}
    usage = {"prompt_tokens": prompt + before, "completion_tokens": after, "total_tokens": prompt + before + after}
    if cached > prompt + before:
        return
    for more in ({"timings": timings}, {"usage": usage}):
        sent.read()
        shaped = Shaped(sent)
        out = shaped.events(event({"delta": {}, "finish_reason": "stop"}, **more))
        assert shaped.usage == usage_of(out)
        assert shaped.usage is not None
        assert shaped.usage[:2] == (prompt, before + after)
    assert json.loads(out[6:])["usage"]["total_tokens"] == prompt + before + after


def test_that_an_answer_begins_is_said_once() -> None:
    """The second engine's own beginning is left out, and its name for the answer is the first one's."""
    sent = having("a")
    sent.read()
    other = event({"delta": {"content": "b"}}).replace(b"chatcmpl-1", b"chatcmpl-2")
    assert Shaped(sent).events(begin() + other) == event({"delta": {"content": "b"}})


@given(st.lists(st.integers(1, 220), min_size=1, max_size=6))
def test_frames_in_the_middle_of_events_are_no_text(cuts: list[int]) -> None:
    """Wherever an engine's chunks end."""
    sent = Sent(framed=True)
    sent.keep(in_chunk(begin()))
    sent.read()
    whole = b"".join(event({"delta": {"content": f" wo\\nrd{i}"}}) for i in range(3))
    ends = sorted({min(cut * 3, len(whole)) for cut in cuts} | {len(whole)})
    sent.keep(b"".join(in_chunk(whole[start:end]) for start, end in zip([0, *ends], ends, strict=False)))
    assert sent.read().text == " wo\\nrd0 wo\\nrd1 wo\\nrd2"
    assert (sent.tokens, sent.whole) == (3, True)
