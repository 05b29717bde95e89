"""ollama-js as a client: one run of tests/clients/npm/ollama.mjs, and what it got."""

from __future__ import annotations

from pathlib import Path

from gateway.stable import Stable
from gateway.wire import until
from support.for_clients import run_node


async def test_ollama_js(ollama_stable: Stable, short_tmp: Path) -> None:
    """Lists, chats, streams, a context, tools, thoughts, embeddings, errors, and a stream broken off."""
    url = f"http://{ollama_stable.address}"
    got = await run_node("ollama.mjs", short_tmp, url, "chain", "tools", "think", "bert", "endless")
    assert set(got["list"]) > {"demo:latest", "chain:latest"}
    assert (got["chat"]["message"]["content"], got["chat"]["done_reason"]) == ("Corral keeps models", "length")
    assert "".join(piece["message"]["content"] for piece in got["stream"]) == "Corral keeps models"
    assert (got["stream"][-1]["done"], got["stream"][-1]["eval_count"]) == (True, 3)
    assert got["generate"]["response"] == "Corral keeps models"
    assert got["again"]["prompt_eval_count"] > got["generate"]["prompt_eval_count"]
    (call,) = got["tools"]
    assert call["function"]["arguments"] == {"city": "Paris"}
    assert (got["thinking"]["content"], got["thinking"]["thinking"].strip()) == ("It is four.", "hm, let me see")
    assert len(got["embed"]["embeddings"]) == 2
    assert got["show"]["capabilities"] == ["completion"]
    assert "org/chain:f16" in got["ps"]
    assert got["unknown"]["status"] == 404
    assert "model 'nobody' not found" in got["unknown"]["message"]
    assert "abort" in got["aborted"]["message"].lower()
    await until(lambda: not ollama_stable.held, "the slots to be free")
