"""Ollama's routes by plain HTTP: statuses, content types and bodies as its own server has them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from corral.config.settings import Listen
from corral.errors import EngineGone, QueueFull
from corral.gateway.app import build
from corral.gateway.dialects.ollama.table import REFUSED, ROUTES
from corral.gateway.routes import Table
from gateway.stable import Stable
from gateway.wire import Answer, ask, until

JSON = "application/json; charset=utf-8"
LINES = "application/x-ndjson"


async def send(stable: Stable, method: str, path: str, body: Any = None) -> Answer:
    return await ask(stable.address, method, path, None if body is None else json.dumps(body).encode())


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(each) for each in answer.body.splitlines()]


async def test_the_greeting_and_the_version(ollama_stable: Stable) -> None:
    """Under the prefix always, at the root where the listener speaks Ollama; HEAD as well."""
    for path in ("/ollama", "/ollama/", "/ollama/api/version", "/api/version", "/api/tags", "/api/status"):
        assert (await send(ollama_stable, "GET", path)).status == 200
        head = await send(ollama_stable, "HEAD", path)
        assert (head.status, head.body) == (200, b"")
    for path in ("/ollama", "/ollama/"):
        assert (await send(ollama_stable, "GET", path)).body == b"Ollama is running"
    assert (await send(ollama_stable, "GET", "/")).body != b"Ollama is running"
    version = (await send(ollama_stable, "GET", "/api/version")).json["version"]
    assert all(part.isdigit() for part in version.split("."))
    assert (await send(ollama_stable, "GET", "/api/status")).json["cloud"]["disabled"] is True


async def test_answers_say_what_they_are_as_ollamas_do(ollama_stable: Stable) -> None:
    """Lines where they are streamed; else JSON with its charset, made here, translated or an error."""
    body = {"model": "chain", "prompt": "x", "stream": False}
    kinds = [
        (await send(ollama_stable, method, path, sent)).headers["content-type"]
        for method, path, sent in (
            ("GET", "/api/tags", None), ("GET", "/api/version", None), ("POST", "/api/show", {"model": "chain"}),
            ("POST", "/api/generate", body), ("POST", "/api/embed", {"model": "bert", "input": "x"}),
            ("POST", "/api/generate", {"model": "chain", "prompt": ""}), ("POST", "/api/chat", {"model": "nobody"}),
            ("POST", "/api/generate", {"model": "demo", "keep_alive": 0}), ("POST", "/api/chat", {"model": 3}),
        )
    ]  # fmt: skip
    assert set(kinds) == {JSON}
    streamed = await send(ollama_stable, "POST", "/api/generate", {**body, "stream": True})
    assert streamed.headers["content-type"] == LINES


async def test_a_listener_of_its_own_greets_at_the_root(stable: Stable) -> None:
    """As one at Ollama's port should."""
    stable.change(listen=(Listen(port=0, dialect="ollama"),))
    await stable.open()
    answer = await send(stable, "GET", "/")
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert answer.headers["content-type"].startswith("text/plain")
    assert (await send(stable, "HEAD", "/")).status == 200


async def test_tags_and_ps_and_show(ollama_stable: Stable) -> None:
    """Every field of the recorded shapes, each of its kind."""
    tags = (await send(ollama_stable, "GET", "/api/tags")).json["models"]
    entry = next(each for each in tags if each["name"] == "demo:latest")
    assert {key: type(value) for key, value in entry.items()} == {
        "name": str, "model": str, "modified_at": str, "size": int, "digest": str, "details": dict,
        "capabilities": list,
    }  # fmt: skip
    assert (len(entry["digest"]), entry["details"]["format"], entry["details"]["families"]) == (64, "gguf", ["llama"])
    assert [each["modified_at"] for each in tags] == sorted((each["modified_at"] for each in tags), reverse=True)
    await send(ollama_stable, "POST", "/api/generate", {"model": "demo"})
    (ran,) = (await send(ollama_stable, "GET", "/api/ps")).json["models"]
    assert {key: type(value) for key, value in ran.items()} == {
        "name": str, "model": str, "size": int, "digest": str, "details": dict, "expires_at": str, "size_vram": int,
        "context_length": int,
    }  # fmt: skip
    assert ran["digest"] == entry["digest"]
    shown = (await send(ollama_stable, "POST", "/api/show", {"name": "demo"})).json
    assert set(shown) == {
        "license", "modelfile", "parameters", "template", "details", "model_info", "capabilities", "modified_at",
    }  # fmt: skip
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["general.parameter_count"] > 1_000_000
    assert shown["model_info"]["tokenizer.ggml.tokens"] == []
    verbose = (await send(ollama_stable, "POST", "/api/show", {"model": "demo", "verbose": True})).json
    assert {"name", "type", "shape"} == set(verbose["tensors"][0])


async def test_streams_are_lines_and_plain_answers_are_json(ollama_stable: Stable) -> None:
    """Streamed unless told otherwise."""
    body = {"model": "chain", "messages": [{"role": "user", "content": "x"}]}
    stream = await send(ollama_stable, "POST", "/api/chat", body)
    assert (stream.status, stream.headers["content-type"]) == (200, LINES)
    assert [each["done"] for each in lines(stream)] == [False] * (len(lines(stream)) - 1) + [True]
    assert set(lines(stream)[-1]) == {
        "model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration",
        "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    }  # fmt: skip
    plain = await send(ollama_stable, "POST", "/api/chat", {**body, "stream": False})
    assert (plain.headers["content-type"], plain.json["done"]) == (JSON, True)
    assert plain.headers["x-corral-model"] == "org/chain:f16"
    assert all(isinstance(value, int) for key, value in plain.json.items() if key.endswith(("_duration", "_count")))


async def test_what_is_not_done_as_asked_is_said(ollama_stable: Stable) -> None:
    """Options without an effect are named in the answer's head, clamped ones too."""
    body = {"model": "think", "prompt": "x", "options": {"num_gpu": 9, "odd": 1, "num_ctx": 99}, "think": "max"}
    for stream in (True, False):
        answer = await send(ollama_stable, "POST", "/api/generate", {**body, "stream": stream})
        assert answer.headers["x-corral-ignored-options"] == "num_gpu, odd"
        assert answer.headers["x-corral-num-ctx"].startswith("asked=99")
        assert answer.headers["x-corral-reasoning-effort"] == "high; asked=max"
    long = await send(ollama_stable, "POST", "/api/embed", {"model": "bert", "input": "horse " * 2000})
    assert (long.status, "were cut" in long.headers["x-corral-note"]) == (200, True)


async def test_a_prompt_may_be_looked_at(ollama_stable: Stable) -> None:
    """`_debug_render_only` shows what the model would be given, and asks it nothing."""
    body = {"model": "chain", "_debug_render_only": True}
    chat = await send(ollama_stable, "POST", "/api/chat", {**body, "messages": [{"role": "user", "content": "hi"}]})
    shown = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.json["_debug_info"]["rendered_template"] == shown
    raw = await send(ollama_stable, "POST", "/api/generate", {**body, "prompt": "hi", "raw": True})
    assert raw.json["_debug_info"]["rendered_template"] == "hi"


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", None, 400, "missing request body"),
        ("/api/chat", {}, 400, "model is required"),
        ("/api/show", {"model": "nobody"}, 404, "model 'nobody' not found"),
        ("/api/embed", {"model": "nobody", "input": "x"}, 404, "not found"),
        ("/api/embed", {"model": "bert", "input": [1]}, 400, "invalid input type"),
        ("/api/chat", {"model": "chain", "messages": [{}]}, 400, "has no role"),
        ("/api/generate", {"model": "chain", "prompt": "x", "keep_alive": "soon"}, 400, "keep_alive is no duration"),
        ("/api/pull", {"model": "x"}, 501, "no model store"),
    ],
)
async def test_errors_have_ollamas_shape(ollama_stable: Stable, path: str, body: Any, status: int, words: str) -> None:
    """A status and `{"error": "…"}`, as JSON even where a stream was asked for."""
    answer = await send(ollama_stable, "POST", path, body)
    assert (answer.status, answer.headers["content-type"]) == (status, JSON)
    assert words in answer.json["error"]


async def test_a_path_or_method_that_is_not_there(ollama_stable: Stable) -> None:
    """Also in this shape."""
    for path in ("/api/nothing", "/ollama/api/nothing"):
        missing = await send(ollama_stable, "GET", path)
        assert (missing.status, isinstance(missing.json["error"], str)) == (404, True)
    for path in ("/api/chat", "/ollama/api/chat"):
        wrong = await send(ollama_stable, "GET", path)
        assert (wrong.status, wrong.headers["allow"], isinstance(wrong.json["error"], str)) == (405, "POST", True)


async def test_a_full_queue_is_503(ollama_stable: Stable) -> None:
    """With when to come again."""
    ollama_stable.lease_error = QueueFull("too many wait", hint="come later", retry_after_s=3)
    answer = await send(ollama_stable, "POST", "/api/chat", {"model": "chain", "messages": [{"role": "user"}]})
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert answer.json["error"] == "too many wait (come later)"


async def test_an_engine_that_dies_midway_is_a_last_line(stable: Stable) -> None:
    """Nobody takes the beginning of an answer for the whole."""
    stable.add("fake", ("--chunks", "9", "--die-after-chunks", "3"))
    await stable.open()
    body = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
    answer = await send(stable, "POST", "/api/chat", body)
    *_, last = lines(answer)
    assert answer.status == 200
    assert set(last) == {"error", "code"}
    assert last["code"] == EngineGone.code


async def test_what_is_not_offered_says_so(ollama_stable: Stable) -> None:
    """A documented error instead of a bare 404."""
    for row in REFUSED:
        answer = await send(ollama_stable, row.method, row.path.replace("{key}", "k"), {})
        assert (answer.status, answer.json["code"]) == (501, "not_offered"), row
        assert row.words in answer.json["error"]


async def test_openai_is_under_the_prefix_too(ollama_stable: Stable) -> None:
    """With OpenAI's shapes, errors included."""
    body = {"model": "chain", "messages": [{"role": "user", "content": "x"}]}
    answer = await send(ollama_stable, "POST", "/ollama/v1/chat/completions", body)
    assert answer.json["object"] == "chat.completion"
    assert (
        await send(ollama_stable, "POST", "/ollama/v1/completions", {"model": "chain", "prompt": "x"})
    ).status == 200
    vectors = await send(ollama_stable, "POST", "/ollama/v1/embeddings", {"model": "bert", "input": "x"})
    assert vectors.json["object"] == "list"
    for path in ("/ollama/v1/rerank", "/ollama/v1/reranking"):  # the engine's own word: this model is not for it
        ranked = await send(ollama_stable, "POST", path, {"model": "bert", "query": "x", "documents": ["y"]})
        assert (ranked.status, ranked.json["error"]["type"]) == (501, "not_supported_error")
    assert (await send(ollama_stable, "GET", "/ollama/v1/models")).json["object"] == "list"
    assert (await send(ollama_stable, "GET", "/ollama/v1/models/chain")).json["id"] == "chain"
    wrong = await send(ollama_stable, "POST", "/ollama/v1/chat/completions", {**body, "model": "nobody"})
    assert (wrong.status, wrong.json["error"]["code"]) == (404, "model_not_found")
    made = await send(ollama_stable, "POST", "/ollama/v1/responses", {"model": "chain", "input": "x"})
    assert (made.json["object"], made.json["status"]) == ("response", "completed")
    shown = await send(ollama_stable, "GET", f"/ollama/v1/responses/{made.json['id']}")
    assert shown.json["id"] == made.json["id"]
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nchain\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    heard = await ask(ollama_stable.address, "POST", "/ollama/v1/audio/transcriptions", form, kind)
    assert heard.headers["x-corral-model"] == "org/chain:f16"  # whose engine says that it hears nothing
    assert (heard.status, heard.json["error"]["type"]) == (501, "not_supported_error")


async def test_anthropic_is_under_the_prefix_too(ollama_stable: Stable) -> None:
    """With Anthropic's shapes, errors included."""
    body = {"model": "chain", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    made = await send(ollama_stable, "POST", "/ollama/v1/messages", body)
    assert (made.json["type"], made.json["content"][0]["type"]) == ("message", "text")
    counted = await send(ollama_stable, "POST", "/ollama/v1/messages/count_tokens", body)
    assert counted.json["input_tokens"] > 0
    wrong = await send(ollama_stable, "POST", "/ollama/v1/messages", {**body, "model": "nobody"})
    assert (wrong.status, wrong.json["type"], wrong.json["error"]["type"]) == (404, "error", "not_found_error")


async def test_clients_that_leave_free_the_engine(ollama_stable: Stable) -> None:
    """A stream whose client goes holds no slot."""
    reader, writer = await asyncio.open_connection(ollama_stable.address.host, ollama_stable.address.port)
    body = json.dumps({"model": "endless", "prompt": "x"}).encode()
    writer.write(b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert b"200" in await reader.readline()
    assert ollama_stable.held == 1
    writer.close()
    await writer.wait_closed()
    await until(lambda: not ollama_stable.held, "the slot to be free")


async def test_the_table_has_every_route_and_no_other(stable: Stable) -> None:
    """What docs/dialects.md says is what is there, and each test that it names exists; of OpenAI's, those that Ollama
    has too."""
    table = Table(build(stable, stable)().routes)
    there = {
        (each.method, each.path.removeprefix("/ollama") or "/") for each in table.routes if each.mount == "/ollama"
    }
    said = {(row.method, row.path) for row in ROUTES}
    assert {path for _, path in there - said if path != "/" and not path.startswith("/v1/")} == set()
    here = Path(__file__).parent
    for row in ROUTES:
        found = table.match(row.method, "/ollama" + re.sub(r"\{\w+\}", "x", row.path)).route
        assert found.mount == "/ollama", row
        file, _, test = row.shown_by.partition("::")
        assert f"def {test}(" in (here / Path(file).name).read_text(), row
