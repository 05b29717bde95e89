"""What engines refuse, in every dialect: a status that says whose fault it is, the engine's own fields, and a hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from corral.errors import CannotFit, EngineMissing, Forbidden, LimitReached, NotOffered, Unauthorized
from corral.gateway.dialects import openai as openai_shapes
from corral.gateway.dialects.chat import refusal
from corral.gateway.dialects.explained import explained
from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import ask
from support.ggufs import write_chain

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BLIND = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


@pytest.fixture
async def chain(stable: Stable, short_tmp: Path) -> Stable:
    """A model that reads text alone, with room for little of it."""
    add_llama(stable, "chain", write_chain(short_tmp / "c.gguf", ["so", "it", "is"]), "-c", "256", "-t", "1")
    await stable.open()
    return stable


def picture(kind: str) -> dict[str, Any]:
    """A request with a picture in it, as each API has them."""
    data = PIXEL.partition(",")[2]
    parts: dict[str, Any] = {
        "openai": [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        "anthropic": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}],
        "responses": [{"type": "input_image", "image_url": PIXEL}],
    }
    if kind == "responses":
        return {"model": "chain", "input": [{"role": "user", "content": parts[kind]}]}
    if kind == "ollama":
        return {"model": "chain", "messages": [{"role": "user", "content": "what?", "images": [data]}]}
    return {"model": "chain", "max_tokens": 9, "messages": [{"role": "user", "content": parts[kind]}]}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_for_a_model_without_eyes(chain: Stable, stream: bool) -> None:
    """Is the request's fault in every dialect, and says which model would do; nobody tries it again."""
    for path, kind in (
        ("/v1/chat/completions", "openai"), ("/openai/v1/chat/completions", "openai"),
        ("/docker/v1/chat/completions", "openai"), ("/docker/engines/v1/chat/completions", "openai"),
        ("/llamacpp/chat/completions", "openai"), ("/llamacpp/v1/chat/completions", "openai"),
        ("/ollama/v1/chat/completions", "openai"), ("/v1/messages", "anthropic"), ("/v1/responses", "responses"),
        ("/api/chat", "ollama"),
    ):  # fmt: skip
        answer = await ask(chain.address, "POST", path, {**picture(kind), "stream": stream})
        assert answer.status == 400, (path, answer.body)
        text = answer.body.decode()
        assert "projector" in text or "does not support vision" in text, text
        if kind == "openai":
            found = answer.json["error"]
            assert (found["message"], found["type"], found["code"]) == (BLIND, "invalid_request_error", 400)
            assert "projector" in found["hint"]


async def test_openais_library_does_not_try_again(chain: Stable) -> None:
    """What will be refused for ever is asked once: a picture, a route that is not offered, an engine's own 501."""
    async with openai.AsyncOpenAI(base_url=f"http://{chain.address}/v1", api_key="none", max_retries=2) as client:
        before = chain.granted
        with pytest.raises(openai.BadRequestError, match="image input"):
            await client.chat.completions.create(**picture("openai"))
        with pytest.raises(openai.APIStatusError, match="not support embeddings") as refused:
            await client.embeddings.create(model="chain", input="x")
        assert chain.granted == before + 2
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert "`args`" in refused.value.body["hint"]  # type: ignore[index]
        with pytest.raises(openai.APIStatusError) as not_offered:
            await client.moderations.create(input="x")
        assert not_offered.value.response.headers["x-should-retry"] == "false"
    batches = await ask(chain.address, "POST", "/v1/messages/batches", {})
    assert (batches.status, batches.headers["x-should-retry"]) == (501, "false")
    missing = await ask(chain.address, "POST", "/v1/chat/completions", {"model": "nobody", "messages": []})
    assert "x-should-retry" not in missing.headers


async def test_a_prompt_that_is_too_long(chain: Stable) -> None:
    """Names the setting that decides; the engine's own fields stay, and both ways say the same."""
    long = {"model": "chain", "prompt": "x " * 3000, "messages": [{"role": "user", "content": "x " * 3000}]}
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/chat/completions", "/llamacpp/completion"):
        answer = await ask(chain.address, "POST", path, long)
        found = answer.json["error"]
        assert (answer.status, found["type"], found["n_ctx"]) == (400, "exceed_context_size_error", 256), path
        assert "`context` in models.yaml" in found["hint"]
    for path in ("/v1/messages", "/api/chat", "/api/generate"):
        answer = await ask(chain.address, "POST", path, {**long, "max_tokens": 5})
        assert answer.status == 400
        assert "`context` in models.yaml" in answer.body.decode(), path


def test_a_refusal_keeps_its_fields() -> None:
    """Of either shape; what is no refusal, or one of which nothing is known, stays as it is to the byte."""
    said = {"error": {"code": 500, "message": BLIND, "type": "server_error", "more": [1]}}
    status, body = explained(500, json.dumps(said).encode())
    found = json.loads(body)["error"]
    assert (status, found.pop("hint")[:9]) == (400, "the model")
    assert found == {"code": 400, "message": BLIND, "type": "invalid_request_error", "more": [1]}
    flag = b'{"error": {"message": "This server does not support slots endpoint. Start it with `--slots`"}}'
    status, body = explained(501, flag)
    assert (status, "put --slots into `args`" in json.loads(body)["error"]["hint"]) == (501, True)
    vllm = b'{"object": "error", "message": "This model\'s maximum context length is 9 tokens.", "code": 400}'
    assert json.loads(explained(400, vllm)[1])["hint"]
    text = b'{"error": "request exceeds the available context size"}'
    assert set(json.loads(explained(400, text)[1])) == {"error", "hint"}
    for status, body in (
        (200, flag), (500, b'{"error": {"message": "boom"}}'), (500, b"no JSON"), (500, b"[]"), (400, b"[" * 100_000),
        (500, b'{"error": {"message": 3}}'), (400, b'{"error": {"message": "maximum context length", "hint": ""}}'),
    ):  # fmt: skip
        assert explained(status, body) == (status, body)


def test_what_a_chat_is_refused_for() -> None:
    """In the dialects that are made of chats: with the same hint, and an engine's 501 is the request's fault."""
    body = b'{"error": {"message": "This server does not support completions. Start it without `--embeddings`"}}'
    error = refusal(501, json.loads(body), body)
    assert (error.status, "take --embeddings out of `args`" in error.hint) == (400, True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LimitReached("slow", limit="requests-per-minute", retry_after_s=3), "rate_limit_error"),
        (LimitReached("slow", limit="streams"), "rate_limit_error"),
        (LimitReached("spent", limit="tokens-per-day"), "insufficient_quota"),
        (LimitReached("spent", limit="tokens-per-month"), "insufficient_quota"),
        (Forbidden("not yours"), "permission_error"),
        (Unauthorized("no key"), "authentication_error"),
        (NotOffered("no"), "server_error"),
        (EngineMissing("no"), "server_error"),
        (CannotFit("never"), "server_error"),
    ],
)
def test_the_types_of_openais_errors(error: Any, kind: str) -> None:
    """By which its clients tell a limit, a budget and a missing right apart."""
    assert openai_shapes.error(error)["error"]["type"] == kind
