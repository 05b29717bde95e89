"""The pure translators of chats: anything at all from clients and engines, cut anywhere, in any order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CallerError, CorralError, EngineError, Unparsed
from corral.gateway.dialects import chat, multipart, tool_choice
from corral.gateway.dialects.anthropic import models
from corral.gateway.dialects.anthropic import request as messages
from corral.gateway.dialects.anthropic.answer import Message
from corral.gateway.dialects.anthropic.errors import ANTHROPIC
from corral.gateway.dialects.chain import Chain, Unchanged
from corral.gateway.dialects.dialect import Translation
from corral.gateway.dialects.prepare import bare, is_plain, prepared
from corral.gateway.dialects.reasoning.clean import Cleaned
from corral.gateway.dialects.reasoning.effort import LEVELS, effort_of
from corral.gateway.dialects.reasoning.harmony import Harmony
from corral.gateway.dialects.reasoning.style import Style, style_of
from corral.gateway.dialects.reasoning.think import Think
from corral.gateway.dialects.responses import request as responses
from corral.gateway.dialects.responses.answer import Answering
from corral.gateway.dialects.responses.items import messages_of
from corral.gateway.http import sse
from support.ggufs import CHAT_TEMPLATE, THINKING_TEMPLATE, TOOLS_TEMPLATE

COUNT = itertools.count()


def new_id(kind: str) -> str:
    return f"{kind}_1"


MAKERS: list[Callable[[], Translation]] = [
    lambda: Message("m", "1", thinks=True),
    lambda: Message("m", "1", single=True, prefill="x"),
    lambda: Answering({"id": "resp_1"}, new_id),
    lambda: Cleaned(Harmony),
    lambda: Cleaned(Think),
    lambda: tool_choice.Called("1"),
    lambda: Chain(Cleaned(Harmony), Message("m", "1", thinks=True)),
    lambda: Chain(Chain(Cleaned(Think), tool_choice.Called("1")), Answering({"id": "resp_1"}, new_id)),
    Unchanged,
]

KEYS = st.sampled_from(
    ("model", "messages", "role", "content", "type", "text", "input", "tools", "tool_choice", "name", "max_tokens",
     "system", "thinking", "source", "function", "parameters", "allowed_tools", "n", "num_ctx", "output", "call_id",
     "reasoning", "effort", "stop_sequences", "choices", "delta", "tool_calls", "index", "usage", "finish_reason")
)  # fmt: skip
VALUES = st.sampled_from(
    ("user", "assistant", "system", "text", "tool_use", "tool_result", "thinking", "message", "function", "required",
     "function_call", "function_call_output", "enabled", "input_text", "image", "base64", "any", "auto", "high")
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5),
    max_leaves=14,
)
OBJECT = st.dictionaries(KEYS, JSON, max_size=8)

PIECES = st.sampled_from(
    ("<|channel|>", "analysis", "<|message|>", "<|end|>", "<think>", "</think>", "Four", " ", "\n")
)
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, PIECES | st.text(max_size=4)),
    st.builds(lambda text: {"reasoning_content": text}, st.text(max_size=4)),
    st.builds(
        lambda index, name: {"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": name}}]},
        st.integers(0, 2), st.sampled_from(("one", "two")),
    ),
    st.builds(
        lambda index, text: {"tool_calls": [{"index": index, "function": {"arguments": text}}]},
        st.integers(0, 2), st.sampled_from(("{", '"a":1', "}")),
    ),
    st.just({"role": "assistant", "content": None}),
)  # fmt: skip


def chunk(delta: Any, finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse.event(json.dumps({"id": "chatcmpl-1", "choices": [choice], "object": "chat.completion.chunk"}))


def stream(deltas: list[Any], finish: str = "stop") -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    said = b"".join(chunk(delta) for delta in deltas)
    return said + chunk({}, finish) + sse.event(json.dumps(usage)) + sse.event("[DONE]")


def fed(made: Translation, data: bytes, cuts: list[int]) -> bytes:
    """What comes out when the stream comes in pieces."""
    splitter, out, at = sse.Splitter(), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        if whole := splitter.feed(data[at : max(at, cut)]):
            out += made.events(whole)
        at = max(at, cut)
    return out + made.end(splitter.rest())


@given(st.sampled_from(MAKERS), st.lists(DELTAS, max_size=10), st.lists(st.integers(0, 2000), max_size=12))
def test_any_cut_of_a_stream_gives_the_same(
    make: Callable[[], Translation], deltas: list[Any], cuts: list[int]
) -> None:
    """However an engine's bytes come, the client gets the same ones."""
    data = stream(deltas)
    assert fed(make(), data, cuts) == fed(make(), data, [])


@given(st.lists(DELTAS, max_size=12), st.sampled_from(("stop", "length", "tool_calls")))
def test_anthropics_events_are_in_order(deltas: list[Any], finish: str) -> None:
    """One start, blocks that open and close in turn with rising numbers, the reason, and the end."""
    out = fed(Message("m", "1", thinks=True), stream(deltas, finish), [])
    events = [json.loads(data) for data in chat.datas(out)]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_start") == kinds.count("message_delta") == 1
    assert kinds.count("ping") <= 1
    opened: int | None = None
    following = 0
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert opened is None
            assert event["index"] == following
            opened, following = event["index"], following + 1
        elif event["type"] != "ping":
            assert event["index"] == opened
            opened = None if event["type"] == "content_block_stop" else opened
    assert opened is None


@given(st.lists(DELTAS, max_size=12), st.sampled_from(("stop", "length", "tool_calls")))
def test_responses_events_say_what_the_response_has(deltas: list[Any], finish: str) -> None:
    """Numbers rise by one; what the pieces say is what the last event has."""
    out = fed(Answering({"id": "resp_1"}, new_id), stream(deltas, finish), [])
    events = [json.loads(data) for data in chat.datas(out)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = events[-1]["response"]
    assert events[-1]["type"] == ("response.incomplete" if finish == "length" else "response.completed")
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response["output"]
    for kind, place in (("output_text", "message"), ("reasoning_text", "reasoning")):
        said = "".join(event["delta"] for event in events if event["type"] == f"response.{kind}.delta")
        assert said == "".join(item["content"][0]["text"] for item in done if item["type"] == place)


@given(OBJECT)
def test_no_request_breaks_a_reader(body: dict[str, Any]) -> None:
    """Whatever a client sends is read or refused in words."""
    data = json.dumps(body).encode()
    for counting in (False, True):
        with suppress(CorralError):
            asked = messages.read(data, counting=counting)
            prepared(asked.chat, style_of(THINKING_TEMPLATE, ""))
    with suppress(CorralError):
        wanted = responses.read(data, new_id)
        prepared({**wanted.chat, "messages": messages_of(wanted.items, wanted.instructions)}, Style())
    for style in (Style(), style_of("<|channel|>", "gpt-oss"), style_of(TOOLS_TEMPLATE, "")):
        with suppress(CorralError):
            json.dumps(bare(prepared(body, style).request))


@given(st.lists(OBJECT, max_size=4), OBJECT, st.sampled_from(MAKERS), st.sampled_from((200, 400, 500)))
def test_no_engine_breaks_a_translation(
    events: list[Any], body: Any, make: Callable[[], Translation], status: int
) -> None:
    """Whatever an engine sends is translated or an error of ours."""
    with suppress(CorralError):
        fed(make(), b"".join(sse.event(json.dumps(each)) for each in events), [])
    with suppress(CorralError):
        make().body(status, json.dumps(body).encode())
    with suppress(CorralError):
        make().body(status, b"\xff no JSON")


def test_an_engines_words_are_kept() -> None:
    """Its refusals become errors of the same kind, with what it said."""
    with pytest.raises(CallerError, match="too long"):
        Message("m", "1").body(400, b'{"error": {"message": "too long", "code": 400}}')
    with pytest.raises(EngineError, match="boom"):
        Message("m", "1").events(sse.event('{"error": {"message": "boom"}}'))
    with pytest.raises(Unparsed):
        Cleaned(Harmony).body(500, b'{"error": {"message": "does not match the expected peg-native format"}}')


def test_styles() -> None:
    """What a model needs is judged by its template, architecture and flags."""
    assert style_of(CHAT_TEMPLATE, "llama") == Style()
    assert style_of(TOOLS_TEMPLATE, "qwen2").tools
    thinking = style_of(THINKING_TEMPLATE, "qwen3")
    assert (thinking.cleaner, thinking.thinks, thinking.effort) == ("none", True, "switch")
    assert style_of(THINKING_TEMPLATE, "qwen3", ("--reasoning-format", "none")).cleaner == "think"
    assert style_of(CHAT_TEMPLATE, "qwen3").cleaner == "think"
    opened = style_of(
        "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}", "deepseek2", ("--no-jinja",)
    )
    assert (opened.cleaner, opened.opened) == ("think", True)
    assert not thinking.opened
    gpt = style_of("{# <|channel|> #}", "gpt-oss")
    assert (gpt.cleaner, gpt.effort) == ("harmony", "levels")
    assert style_of("", "gpt-oss", wanted="none").cleaner == "none"
    assert style_of(CHAT_TEMPLATE, "llama", wanted="harmony").cleaner == "harmony"


@pytest.mark.parametrize("asked", [*LEVELS, "lots", 7, None])
def test_efforts(asked: Any) -> None:
    """Every wish becomes a level that the template knows."""
    levels = effort_of(asked, Style(thinks=True, effort="levels"))
    assert levels.fields["chat_template_kwargs"] == {"reasoning_effort": levels.level}
    assert levels.level in ("low", "medium", "high")
    switch = effort_of(asked, Style(thinks=True, effort="switch"), budget=77)
    assert switch.fields["chat_template_kwargs"] == {"enable_thinking": switch.level != "none"}
    assert switch.fields.get("thinking_budget_tokens") == (None if switch.level == "none" else 77)
    assert effort_of(asked, Style()).fields == {}


def test_only_what_matters_is_read() -> None:
    """A request without any of the members that are put right is not taken apart."""
    assert is_plain(b'{"model": "m", "messages": [{"content": "n, tool_choice and num_ctx"}], "stream": true}')
    for member in ("reasoning_effort", "num_ctx", "tool_choice", "n", "chat_template_kwargs"):
        assert not is_plain(b'{"%b" : 1}' % member.encode())


def test_pages_of_models() -> None:
    """Pages go on from each other, either way."""
    entries = [{"id": name, "created": 0} for name in "abcde"]
    first = models.page(entries, {"limit": "2"})
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["a", "b"], True)
    last = models.page(entries, {"limit": "3", "after_id": "b"})
    assert ([each["id"] for each in last["data"]], last["has_more"]) == (["c", "d", "e"], False)
    before = models.page(entries, {"limit": "2", "before_id": "d"})
    assert ([each["id"] for each in before["data"]], before["has_more"]) == (["b", "c"], True)
    assert first["data"][0]["created_at"] == "1970-01-01T00:00:00Z"
    with pytest.raises(CallerError):
        models.page(entries, {"limit": "many"})


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_forms(body: bytes, kind: bytes) -> None:
    """The model in a form is found, and nothing breaks where there is none."""
    multipart.field(kind, body, b"model")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\x00\r\n'
    form += b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--x--\r\n'
    assert multipart.field(b'multipart/form-data; boundary="x"', form, b"model") == "whisper"


def test_errors_have_anthropics_types() -> None:
    """By their status; the hint is a part of the message, which is all that its clients show."""
    error = ANTHROPIC.error(CallerError("no", hint="do"))
    assert error == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no (do)", "code": "bad_request"},
    }
    event = ANTHROPIC.event(EngineError("gone"))
    assert event.startswith(b"event: error\ndata: ")
