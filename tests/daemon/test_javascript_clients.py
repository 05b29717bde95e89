"""OpenAI's and Ollama's libraries for JavaScript against a real server with keys: a script of each, and what it got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from support.for_clients import AFTERWARDS, WORDS, config_in, key, run_node
from support.ggufs import chain_text
from support.server import Server, until


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, config_in(module_paths.state_dir.parent)) as started:
        yield started


def arguments(choice: Any) -> list[tuple[str, Any]]:
    """The calls of a choice."""
    calls = [call["function"] for call in choice["message"]["tool_calls"]]
    return [(call["name"], json.loads(call["arguments"])) for call in calls]


async def test_openai_js(server: Server, short_tmp: Path) -> None:
    """Lists, chats, streams, tools, embeddings, responses, errors, keys, and a stream broken off."""
    narrow = key(server, models=["chain"], requests_per_minute=1)
    got = await run_node("openai.mjs", short_tmp, f"{server.url}/v1", key(server), narrow)
    assert set(got["models"]) == {"demo", "bert", "text-embedding-3-small", "chain", "caller", "endless"}
    assert (got["model"]["id"], got["model"]["owned_by"]) == ("chain", "corral")
    text = chain_text(WORDS)
    assert got["chat"]["choices"][0]["message"]["content"] == text
    streamed = [choice["delta"].get("content") or "" for piece in got["stream"] for choice in piece["choices"]]
    assert "".join(streamed) == text
    assert sum(map(bool, streamed)) >= len(WORDS)
    assert got["stream"][-1]["usage"]["completion_tokens"] == got["chat"]["usage"]["completion_tokens"] > 0
    assert got["completion"]["choices"][0]["text"] == chain_text(WORDS[:3])
    for name in ("several", "several_streamed"):
        assert [(each["index"], each["message"]["content"]) for each in got[name]] == [(0, text), (1, text)], name
    assert arguments(got["tools"]) == [("weather", {"city": "Rome"})]
    for name in ("forced", "streamed_tools"):
        assert arguments(got[name]) == [("weather", {"city": "Oslo"})], name
        assert got[name]["finish_reason"] == "tool_calls"
    assert got["run"] == {"text": chain_text(AFTERWARDS[1:]), "result": "sun in Rome"}
    assert [len(each["embedding"]) for each in got["embedding"]["data"]] == [64, 64]
    near = pytest.approx(got["floats"]["data"][0]["embedding"], abs=1e-6)
    assert got["embedding"]["data"][0]["embedding"] == near  # those are sent as base64
    assert got["response"]["output_text"] == got["kept"]["output"][0]["content"][0]["text"] == text
    kinds = [event["type"] for event in got["response_stream"]]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    last = got["response_stream"][-1]["response"]
    assert last["usage"]["input_tokens"] > got["response"]["usage"]["input_tokens"]
    _errors(got)
    assert got["aborted"].startswith(WORDS[0]), "and what had come with it"
    assert got["after"]["choices"][0]["message"]["content"] == chain_text(WORDS[:2])
    until(lambda: not any(unit.busy for unit in server.client.units()), "the slots to be free")


def _errors(got: dict[str, Any]) -> None:
    for name in ("unknown", "unknown_stream"):
        unknown = got[name]
        assert (unknown["kind"], unknown["status"], unknown["param"]) == ("NotFoundError", 404, "model")
        assert unknown["code"] == "model_not_found"
        assert "did you mean 'chain'" in unknown["hint"]
    assert (got["bad"]["kind"], got["bad"]["param"]) == ("BadRequestError", "num_ctx")
    assert (got["wrong_key"]["kind"], got["wrong_key"]["status"]) == ("AuthenticationError", 401)
    assert (got["narrow_key"]["kind"], got["narrow_key"]["status"]) == ("PermissionDeniedError", 403)
    assert got["own_model"] is None
    assert (got["limited"]["kind"], got["limited"]["status"]) == ("RateLimitError", 429)


async def test_ollama_js_keys(server: Server, short_tmp: Path) -> None:
    """A key is good for its models and scopes; none and a wrong one are told so, in Ollama's shape."""
    narrow = key(server, models=["chain"])
    got = await run_node("ollama_keys.mjs", short_tmp, server.url, key(server), narrow)
    assert set(got["list"]) >= {"demo:latest", "chain:latest"}
    assert got["chat"] == got["stream"] == chain_text(WORDS)
    assert got["embed"] == 64
    for name in ("none", "wrong", "wrong_list"):
        assert got[name]["status"] == 401, name
        assert "key" in got[name]["message"]
    assert got["others_list"] == ["chain:latest"]
    assert got["other"]["status"] == 403
    assert "demo" in got["other"]["message"]
    assert got["own"] is None
    assert got["pull"]["status"] == got["delete"]["status"] == 403
    assert "pull" in got["pull"]["message"]
