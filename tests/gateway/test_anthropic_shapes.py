"""Anthropic's wire shapes, byte by byte where its clients depend on them, on a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.gateway.dialects.anthropic.table import FILES, REFUSED
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import Answer, ask
from support.ggufs import THINKING_TEMPLATE, write_chain

MESSAGES = "/v1/messages"
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def served(stable: Stable, short_tmp: Path) -> Stable:
    words = ("<think>", "Hm.", "</think>", "Four.")
    model = write_chain(short_tmp / "m.gguf", words, template=THINKING_TEMPLATE)
    add_llama(stable, "m", model, "-c", "2048", "-t", "1")
    await stable.open()
    return stable


def events(answer: Answer) -> list[tuple[str, dict[str, Any]]]:
    """Each event's name and data."""
    found = []
    for block in answer.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_stream_as_it_is_on_the_wire(served: Stable) -> None:
    """Names, order and members of every event, thoughts with their signature, one ping."""
    body = {"model": "m", "max_tokens": 20, "messages": HI, "stream": True,
            "thinking": {"type": "enabled", "budget_tokens": 1024}}  # fmt: skip
    answer = await ask(served.address, "POST", MESSAGES, body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    said = events(answer)
    assert all(name == data["type"] for name, data in said)
    kinds = [name for name, _ in said]
    thoughts = kinds.index("content_block_stop") - 3
    assert kinds == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * thoughts,
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = said[0][1]["message"]
    assert set(message) == {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
    assert (message["type"], message["role"], message["content"], message["stop_reason"]) == (
        "message", "assistant", [], None,
    )  # fmt: skip
    assert said[1][1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert said[2 + thoughts][1]["delta"] == {"type": "signature_delta", "signature": ""}
    assert said[-4][1]["delta"] == {"type": "text_delta", "text": " Four."}
    assert said[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    usage = said[-2][1]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == sum(
        message["usage"][name] for name in ("input_tokens", "cache_read_input_tokens")
    )
    assert usage["output_tokens"] > 3


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"name": "a"}]}, "tools.0.input_schema"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"system": 7}, "system"),
    ],
)
async def test_what_is_wrong_is_named(served: Stable, change: dict[str, Any], names: str) -> None:
    """The member that is wrong stands in the message, as Anthropic has it."""
    body = {"model": "m", "max_tokens": 20, "messages": HI} | change
    answer = await ask(
        served.address, "POST", MESSAGES, {key: value for key, value in body.items() if value is not None}
    )
    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["message"].startswith(f"{names}: ")


async def test_what_is_not_offered_says_so(served: Stable) -> None:
    """Routes that Corral does not have answer in Anthropic's shape, at the root and under the prefix."""
    for prefix in ("", "/anthropic"):
        for row in (*REFUSED, *FILES):
            method = "POST" if row.method == "*" else row.method
            path = prefix + row.path.replace("{id}", "x")
            answer = await ask(served.address, method, path, {}, {"anthropic-version": "2023-06-01"})
            assert (answer.status, answer.json["type"]) == (501, "error"), path
            assert answer.json["error"]["code"] == "not_offered"
            assert row.words[:20] in answer.json["error"]["message"]
