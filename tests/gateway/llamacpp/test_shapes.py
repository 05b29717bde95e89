"""llama.cpp's routes by plain HTTP: what its own server and router answer, as recorded of build 11434."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from corral.config.settings import Listen
from corral.errors import QueueFull
from corral.gateway.dialects.llamacpp.table import DISABLED, REFUSED, ROUTES
from gateway.llamacpp.conftest import send
from gateway.stable import Stable
from gateway.test_listen import free_port
from gateway.wire import Answer, ask, connected, until


def shape(value: Any) -> Any:
    """The keys and kinds of a JSON value."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value)


def failure(answer: Answer, status: int, kind: str, words: str) -> None:
    found = answer.json["error"]
    assert (answer.status, found["code"], found["type"]) == (status, status, kind)
    assert words in found["message"], found
    assert {"hint", "reason"} <= set(found)


@pytest.mark.parametrize("prefix", ["", "/llamacpp"])
async def test_paths_of_an_engine(llamas: Stable, prefix: str) -> None:
    """Unprefixed paths reach the engine as they are; the model is in the body, in the query, or the default."""
    chain = {"model": "chain", "prompt": "x", "n_predict": 4, "temperature": 0}
    for path in ("/completion", "/completions"):
        answer = await send(llamas, "POST", prefix + path, chain)
        assert (answer.json["model"], answer.json["tokens_predicted"], answer.json["stop"]) == (
            "org/chain:f16",
            4,
            True,
        )
        assert answer.headers["x-corral-model"] == "org/chain:f16"
    stream = await send(llamas, "POST", f"{prefix}/completion", {**chain, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert '"stop":true' in stream.events[-1]  # and no [DONE]
    unnamed = {"prompt": "x", "n_predict": 2}
    by_query = await send(llamas, "POST", f"{prefix}/completion?model=chain", unnamed)
    assert by_query.headers["x-corral-model"] == "org/chain:f16"
    failure(await send(llamas, "POST", f"{prefix}/completion", unnamed), 400, "invalid_request_error", "")
    llamas.change(default_model="org/chain:f16")
    assert (await send(llamas, "POST", f"{prefix}/completion", unnamed)).headers["x-corral-model"] == "org/chain:f16"
    by_query = await send(llamas, "POST", f"{prefix}/completion?model=demo", unnamed)
    assert by_query.headers["x-corral-model"] == "demo", "the query counts before the default"

    said = [{"role": "user", "content": "x"}]
    for path in ("/chat/completions", "/v1/chat/completions"):
        answer = await send(llamas, "POST", f"{prefix}{path}?model=chain", {"messages": said, "max_tokens": 8})
        assert answer.json["choices"][0]["message"]["content"] == "Corral keeps models in good order"
    for path in ("/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"):
        answer = await send(llamas, "POST", prefix + path, {"model": "chain", "messages": said})
        assert answer.json["input_tokens"] > 0
    tokens = (await send(llamas, "POST", f"{prefix}/tokenize", {"model": "demo", "content": "hi there"})).json["tokens"]
    back = await send(llamas, "POST", f"{prefix}/detokenize", {"model": "demo", "tokens": tokens})
    assert back.json["content"].strip() == "hi there"
    rendered = await send(llamas, "POST", f"{prefix}/apply-template", {"model": "chain", "messages": said})
    assert "<|im_start|>user\nx" in rendered.json["prompt"]
    for path in ("/embedding", "/embeddings"):
        answer = await send(llamas, "POST", prefix + path, {"model": "bert", "content": "horse"})
        assert len(answer.json[0]["embedding"][0]) > 1
    refused = await send(
        llamas, "POST", f"{prefix}/infill", {"model": "demo", "input_prefix": "a", "input_suffix": "b"}
    )
    assert (refused.status, refused.json["error"]["type"]) == (501, "not_supported_error")  # the engine's own words
    for path in ("/rerank", "/reranking"):
        answer = await send(llamas, "POST", prefix + path, {"model": "bert", "query": "a", "documents": ["b"]})
        assert answer.json["error"]["type"] == "not_supported_error"


_SAID = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
_ASKING: tuple[tuple[str, str, Any], ...] = (
    *(("POST", path, {"prompt": "x", "n_predict": 1, "max_tokens": 1}) for path in (
        "/completion", "/completions", "/v1/completions", "/infill",
    )),
    *(("POST", path, _SAID) for path in (
        "/chat/completions", "/v1/chat/completions", "/chat/completions/input_tokens",
        "/v1/chat/completions/input_tokens", "/apply-template", "/v1/messages", "/v1/messages/count_tokens",
    )),
    *(("POST", path, {"input": "x", "content": "x", "max_output_tokens": 1}) for path in (
        "/v1/responses", "/v1/responses/input_tokens", "/embedding", "/embeddings", "/v1/embeddings", "/tokenize",
    )),
    ("POST", "/detokenize", {"tokens": [1]}),
    *(("POST", path, {"query": "x", "documents": ["y"]}) for path in (
        "/rerank", "/reranking", "/v1/rerank", "/v1/reranking",
    )),
    ("POST", "/v1/audio/transcriptions", {}),
    ("POST", "/slots/0?action=erase", {}),
    ("POST", "/props", {}),
    ("POST", "/lora-adapters", None),
    ("GET", "/props", None),
    ("GET", "/slots", None),
    ("GET", "/metrics", None),
    ("GET", "/lora-adapters", None),
)  # fmt: skip
"""Every route that has its model loaded, and what it takes beside the model's name."""


def test_all_that_loads_is_tried() -> None:
    """Whatever the table has an engine answer, or answers from what one said."""
    asked = {(method, path.partition("?")[0].replace("/0", "/{id}")) for method, path, _ in _ASKING}
    loads = {(row.method, row.path) for row in ROUTES if row.how in ("native", "translated")}
    assert loads - asked == {("*", "/upstream/{model}")}


@pytest.mark.parametrize("prefix", ["", "/llamacpp"])
async def test_a_model_that_is_not_loaded_may_stay_so(llamas: Stable, prefix: str) -> None:
    """`autoload=false` is answered for loaded models only, whatever the path, and wherever it names the model."""
    for method, path, more in _ASKING:
        mark = "&" if "?" in path else "?"
        for off in ("false", "0"):
            body = None if more is None else {**more, "model": "chain"}
            target = f"{prefix}{path}{mark}autoload={off}" + ("&model=chain" if more is None else "")
            answer = await send(llamas, method, target, body)
            assert (answer.status, b"model is not loaded" in answer.body) == (400, True), (target, answer.body)
        target = f"{prefix}{path}{mark}autoload=false&model=chain"
        assert (await send(llamas, method, target, more)).status == 400, target
    for path in ("chain/health", "org/chain:f16/slots", "org/chain%3Af16/props", "slots"):
        target = f"{prefix}/upstream/{path}?autoload=false" + ("&model=chain" if path == "slots" else "")
        failure(await send(llamas, "GET", target), 400, "invalid_request_error", "model is not loaded")
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nchain\r\n--x--\r\n'
    async with connected(llamas.listeners.addresses[0]) as wire:
        target = f"{prefix}/v1/audio/transcriptions?autoload=false"
        wire.request("POST", target, form, {"content-type": "multipart/form-data; boundary=x"})
        answer = await wire.rest()
    assert b"model is not loaded" in answer.body, answer.body
    assert llamas.granted == 0
    unknown = await send(llamas, "POST", f"{prefix}/completion?autoload=false", {"model": "nobody", "prompt": "x"})
    failure(unknown, 404, "not_found_error", "nobody")
    assert (await send(llamas, "GET", f"{prefix}/props?autoload=false")).json["role"] == "router"
    body = {"model": "chain", "prompt": "x", "n_predict": 1, "max_tokens": 1}
    assert (await send(llamas, "POST", f"{prefix}/completion", body)).status == 200
    for path in ("/completion", "/v1/completions"):
        for _ in range(2):  # the second one on the fast path
            assert (await send(llamas, "POST", f"{prefix}{path}?autoload=false", body)).status == 200
    assert (await send(llamas, "GET", f"{prefix}/props?model=chain&autoload=false")).status == 200


async def test_what_an_engine_tells_of_itself(llamas: Stable) -> None:
    """/props of no model is the router's; of one, and the rest, the engine's own."""
    router = (await send(llamas, "GET", "/props")).json
    assert shape(router) == shape(
        {"role": "router", "max_instances": 4, "models_autoload": True, "model_alias": "llama-server",
         "model_path": "none", "default_generation_settings": {"params": None, "n_ctx": 0}, "ui_settings": {},
         "build_info": "b0-unknown", "cors_proxy_enabled": False}
    )  # fmt: skip
    assert (router["role"], router["max_instances"]) == ("router", 0)
    assert (await send(llamas, "GET", "/props", plain=True)).json == router
    own = await send(llamas, "GET", "/props?model=demo")
    assert own.headers["x-corral-model"] == "demo"
    assert {"default_generation_settings", "total_slots", "chat_template", "modalities"} <= set(own.json)
    assert "role" not in own.json or own.json["role"] != "router"
    slots = (await send(llamas, "GET", "/slots?model=demo")).json
    assert [set(each) >= {"id", "n_ctx", "is_processing"} for each in slots] == [True, True]
    assert (await send(llamas, "GET", "/lora-adapters?model=demo")).json == []
    metrics = await send(llamas, "GET", "/metrics?model=demo")
    assert b"llamacpp:prompt_tokens_total" in metrics.body
    failure(await send(llamas, "GET", "/slots"), 400, "invalid_request_error", "")
    failure(await send(llamas, "GET", "/metrics?model=nobody"), 404, "not_found_error", "nobody")
    for path in ("/health", "/v1/health", "/llamacpp/health"):
        assert (await send(llamas, "GET", path)).json == {"status": "ok"}


async def test_a_listener_of_one_model_is_no_router(stable: Stable) -> None:
    """As a llama-server with that model: /props is the model's, and nobody has to name it."""
    port = free_port()
    stable.add("one", port=port)
    stable.add("other")
    await stable.open()
    where = Listen(port=port)
    props = await ask(where, "GET", "/props")
    assert (props.headers["x-corral-model"], props.json["path"]) == ("one", "/props")
    for method, path in (("GET", "/slots"), ("POST", "/completion"), ("POST", "/slots/1?action=save")):
        answer = await ask(where, method, path, {} if method == "POST" else None)
        assert answer.headers["x-corral-model"] == "one"
    named = await ask(where, "GET", "/slots?model=other")
    assert named.headers["x-corral-model"] == "other"


async def test_what_changes_an_engine(llamas: Stable) -> None:
    """Posted to the engine that the query or the body names, and never to another one when that dies."""
    erased = await send(llamas, "POST", "/slots/0?action=erase", {"model": "demo"})
    assert (erased.status, erased.headers["x-corral-model"]) == (200, "demo")
    assert erased.json["id_slot"] == 0
    erased = await send(llamas, "POST", "/slots/0?action=erase&model=demo")
    assert erased.status == 200
    scaled = await send(llamas, "POST", "/lora-adapters?model=demo", [])
    assert (scaled.status, scaled.json) == (200, {"success": True})
    props = await send(llamas, "POST", "/props", {"model": "demo"})
    assert (props.status, props.json["error"]["type"]) == (501, "not_supported_error")
    failure(await send(llamas, "POST", "/lora-adapters", []), 400, "invalid_request_error", "")


async def test_the_list_of_models(llamas: Stable) -> None:
    """With each field that the router's list has, at /models and at /v1/models, which the web page asks for."""
    first = (await send(llamas, "GET", "/models")).json
    assert first["object"] == "list"
    assert [each["id"] for each in first["data"]] == ["demo", "org/chain:f16", "bert"]
    chain = first["data"][1]
    recorded = {
        "id": "demo", "aliases": ["x"], "tags": [], "object": "model", "owned_by": "llamacpp", "created": 1,
        "status": {"value": "unloaded", "args": []},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": "models_dir", "can_remove": False,
    }  # fmt: skip
    assert shape(chain) == shape(recorded)
    assert (chain["aliases"], chain["status"]["value"], chain["owned_by"]) == (["chain"], "unloaded", "llamacpp")
    await send(llamas, "POST", "/completion", {"model": "chain", "prompt": "x", "n_predict": 1})
    for path in ("/v1/models", "/llamacpp/models?reload=1", "/llamacpp/v1/models"):
        chain = (await send(llamas, "GET", path)).json["data"][1]
        assert chain["status"]["value"] == "loaded"
        assert chain["meta"]["n_ctx_train"] == 2048
        assert chain["meta"]["n_params"] > 0
    one = (await send(llamas, "GET", "/v1/models/chain")).json
    assert (one["id"], one["status"]["value"]) == ("org/chain:f16", "loaded")
    plain = (await send(llamas, "GET", "/v1/models", plain=True)).json["data"]
    assert all("status" not in each for each in plain)  # OpenAI's


async def test_loading_and_unloading(llamas: Stable) -> None:
    """Answered at once; what cannot be is said as the router says it."""
    for prefix in ("", "/llamacpp"):
        assert (await send(llamas, "POST", f"{prefix}/models/load", {"model": "chain"})).json == {"success": True}
        await send(llamas, "POST", "/completion", {"model": "chain", "prompt": "x", "n_predict": 1})
        again = await send(llamas, "POST", f"{prefix}/models/load", {"model": "org/chain:f16"})
        failure(again, 400, "invalid_request_error", "model is already running")
        assert (await send(llamas, "POST", f"{prefix}/models/unload", {"model": "chain"})).json == {"success": True}
        await until(lambda: not llamas.units_by_name["org/chain:f16"].running, "it is unloaded")
        gone = await send(llamas, "POST", f"{prefix}/models/unload", {"model": "chain"})
        failure(gone, 400, "invalid_request_error", "model is not running")
    failure(await send(llamas, "POST", "/models/load", {"model": "nobody"}), 404, "not_found_error", "nobody")
    flags = {"model": "chain", "extra_args": ["--ctx-size", "1"]}
    failure(await send(llamas, "POST", "/models/load", flags), 400, "invalid_request_error", "extra_args")
    for body in ({}, {"model": 3}, {"model": ""}):
        failure(await send(llamas, "POST", "/models/load", body), 400, "invalid_request_error", "non-empty string")
    failure(await send(llamas, "POST", "/models/load", []), 400, "invalid_request_error", "JSON object")


async def test_no_stream_outlives_its_client(llamas: Stable) -> None:
    """The web page's conversation id would have the engine go on with an answer that nobody waits for."""
    body = {"model": "demo", "prompt": "x", "n_predict": 2000, "ignore_eos": True, "stream": True}
    async with connected(llamas.listeners.addresses[0]) as wire:
        wire.request("POST", "/completion", body, {"x-conversation-id": "talk::demo"})
        await wire.start()
        await wire.piece()
        wire.drop()
    await until(lambda: llamas.held == 0, "the lease is given back")

    async def idle() -> bool:
        slots = (await send(llamas, "GET", "/slots?model=demo")).json
        return not any(each["is_processing"] for each in slots)

    await until(idle, "the engine has stopped")
    lookup = {"conversation_ids": ["talk::demo"]}
    kept = await send(llamas, "POST", "/upstream/demo/v1/streams/lookup", lookup)
    assert kept.json == []
    assert (await send(llamas, "POST", "/v1/streams/lookup", lookup)).json == []
    for path in ("/v1/stream?conv_id=talk", "/v1/stream/talk%3A%3Ademo?from=10"):
        failure(await send(llamas, "GET", path), 404, "not_found_error", "Stream not found or expired")
        assert (await send(llamas, "DELETE", path)).status == 204


async def test_the_greeting(llamas: Stable) -> None:
    """Corral's own: nothing here is taken for llama.cpp's web page."""
    for path in ("/", "/llamacpp", "/llamacpp/"):
        page = await send(llamas, "GET", path)
        assert (page.status, b"<h1>Corral " in page.body) == (200, True)


async def test_what_the_web_page_asks(llamas: Stable) -> None:
    """In its order and with its fields: what the server is, the models, streams left open, its tools, then a chat of
    which it wants to see the progress and the times."""
    assert (await send(llamas, "GET", "/props")).json["role"] == "router"
    models = (await send(llamas, "GET", "/v1/models")).json["data"]
    assert all(each["status"]["value"] == "unloaded" for each in models)
    assert (await send(llamas, "POST", "/v1/streams/lookup", {"conversation_ids": ["a"]})).json == []
    assert (await send(llamas, "GET", "/tools")).json["error"]["message"]
    assert (await send(llamas, "GET", "/props?model=demo&autoload=false")).status == 400
    chat = {
        "model": "demo", "messages": [{"role": "user", "content": "hello " * 50}], "stream": True, "max_tokens": 5,
        "return_progress": True, "reasoning_format": "auto", "timings_per_token": True, "temperature": 0.8, "top_k": 40,
        "samplers": ["top_k", "temperature"], "backend_sampling": False, "reasoning_control": True,
    }  # fmt: skip
    async with connected(llamas.listeners.addresses[0]) as wire:
        wire.request("POST", "/v1/chat/completions", chat, {"x-conversation-id": "a::demo"})
        answer = await wire.rest()
    assert answer.status == 200, answer.body
    events = [json.loads(each) for each in answer.events if each != "[DONE]"]
    assert any(each.get("prompt_progress", {}).get("total") for each in events)
    assert events[-1]["timings"]["predicted_n"] == 5
    assert {each["id"] for each in events} == {events[0]["id"]}
    stop = {"model": "demo", "id": events[0]["id"], "action": "end_reasoning"}
    assert (await send(llamas, "POST", "/v1/chat/completions/control", stop)).status == 501
    props = await send(llamas, "GET", "/props?model=demo&autoload=false")
    assert props.json["modalities"] == {"vision": False, "audio": False} | props.json["modalities"]


async def test_openai_and_anthropic_are_under_the_prefix_too(llamas: Stable) -> None:
    """As llama-server has them, with their own errors."""
    said = [{"role": "user", "content": "x"}]
    words = "Corral keeps models in good order"
    answer = await send(llamas, "POST", "/llamacpp/v1/messages", {"model": "chain", "messages": said, "max_tokens": 9})
    assert answer.json["content"][0]["text"] == words
    counted = await send(llamas, "POST", "/llamacpp/v1/messages/count_tokens", {"model": "chain", "messages": said})
    assert counted.json["input_tokens"] > 0
    answer = await send(llamas, "POST", "/llamacpp/v1/responses", {"model": "chain", "input": "x"})
    assert answer.json["output"][-1]["content"][0]["text"] == words
    counted = await send(llamas, "POST", "/llamacpp/v1/responses/input_tokens", {"model": "chain", "input": "x"})
    assert counted.json["input_tokens"] > 0
    answer = await send(llamas, "POST", "/llamacpp/v1/completions", {"model": "chain", "prompt": "x", "max_tokens": 1})
    assert answer.json["object"] == "text_completion"
    answer = await send(llamas, "POST", "/llamacpp/v1/embeddings", {"model": "bert", "input": "horse"})
    assert answer.json["data"][0]["embedding"]
    unknown = await send(llamas, "POST", "/llamacpp/v1/completions", {"model": "nobody"})
    assert unknown.json["error"]["code"] == "model_not_found"


async def test_upstream_takes_the_model_from_the_query(llamas: Stable) -> None:
    """Where the path begins with no model's name."""
    for path in ("/upstream/props?model=chain", "/upstream/chain/props", "/upstream/chain/props?model=demo"):
        answer = await send(llamas, "GET", path)
        assert answer.headers["x-corral-model"] == "org/chain:f16"
        assert "chat_template" in answer.json
    nested = await send(llamas, "POST", "/upstream/v1/completions?model=chain", {"prompt": "x", "max_tokens": 1})
    assert nested.json["object"] == "text_completion"
    assert (await send(llamas, "GET", "/upstream/props?model=nobody")).status == 404
    assert (await send(llamas, "GET", "/upstream/a/../props?model=demo")).status == 400


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.method} {row.path}")
async def test_what_is_not_offered_says_so(llamas: Stable, row: Any) -> None:
    """In words, at the root and under the prefix."""
    path = row.path.replace("{id}", "x").replace("{model}", "demo").replace("{path}", "a/b")
    method = "POST" if row.method == "*" else row.method
    for prefix in ("", "/llamacpp"):
        answer = await send(llamas, method, prefix + path, None if method == "GET" else {})
        if row.path in DISABLED:  # as its own server says it, by which its page knows
            failure(answer, 403, "feature_disabled", "is not offered here")
        else:
            failure(answer, 501, "not_supported_error", "is not offered here")
            assert answer.json["error"]["reason"] == "not_offered"
        assert answer.json["error"]["hint"] == row.words


async def test_an_error_in_a_stream_is_an_event(llamas: Stable) -> None:
    """And a full queue says when to come back."""
    llamas.lease_error = QueueFull("7 requests wait", hint="later", queue_position=7, retry_after_s=3)
    full = await send(llamas, "POST", "/completion", {"model": "demo", "prompt": "x", "stream": True})
    assert (full.status, full.json["error"]["retry_after_s"], full.headers["retry-after"]) == (503, 3, "3")
    llamas.lease_error = None
    llamas.change(resume=False)
    body = {"model": "demo", "prompt": "x", "n_predict": 2000, "ignore_eos": True, "stream": True}
    async with connected(llamas.listeners.addresses[0]) as wire:
        wire.request("POST", "/llamacpp/completion", body)
        await wire.start()
        await wire.piece()
        await asyncio.to_thread(_kill, llamas, "demo")
        rest = await wire.rest()
    assert '"reason"' in rest.events[-1]


def _kill(llamas: Stable, name: str) -> None:
    process = llamas.units_by_name[name].process
    assert process is not None
    process.kill()
    process.wait()
