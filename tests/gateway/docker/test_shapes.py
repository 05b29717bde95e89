"""Docker Model Runner's routes by plain HTTP over real engines: statuses, content types and bodies as it has them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from corral.config.settings import Listen
from corral.demo.where import demo_model
from corral.gateway.app import build
from corral.gateway.dialects.docker.table import ROUTES
from corral.gateway.routes import Route
from gateway.stable import Stable
from gateway.test_openai_client import WORDS, add_llama
from gateway.wire import Answer, ask
from support.ggufs import chain_text, write_bert, write_chain

TEXT = "text/plain; charset=utf-8"
CHAIN = "docker.io/ai/chain:latest"


@pytest.fixture
async def docker(stable: Stable, short_tmp: Path) -> AsyncIterator[Stable]:
    """`demo`, `docker.io/ai/chain:latest` and `bert`, as if pulled; each engine starts when it is asked."""
    add_llama(stable, "demo", Path(str(demo_model())), "--parallel", "2", "-c", "2048", "-t", "1")
    add_llama(stable, CHAIN, write_chain(short_tmp / "chain.gguf", WORDS), "-c", "1024", "-t", "1")
    add_llama(stable, "bert", write_bert(short_tmp / "bert.gguf"), "--embeddings", "-t", "1")
    await stable.open()
    yield stable


async def send(stable: Stable, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask(stable.address, method, path, data, fields)


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "go"}], "max_tokens": 20}


async def test_the_greeting_and_the_version(docker: Stable) -> None:
    """Under the prefix always; the version is one that Compose passes flags on to."""
    for path in ("/docker", "/docker/"):
        assert (await send(docker, "GET", path)).body == b"Docker Model Runner is running"
    version = (await send(docker, "GET", "/version")).json["version"]
    assert tuple(map(int, version.split("."))) >= (1, 0, 6)


async def test_a_listener_of_its_own(stable: Stable) -> None:
    """As one at port 12434 should: its greeting, its lists, and Ollama's API beside."""
    add_llama(stable, "demo", Path(str(demo_model())), "-c", "2048", "-t", "1")
    stable.change(listen=(Listen(port=0, dialect="docker"),))
    await stable.open()
    assert (await send(stable, "GET", "/")).body == b"Docker Model Runner is running"
    assert (await send(stable, "GET", "/v1/models")).json["data"][0]["owned_by"] == "docker"
    assert (await send(stable, "GET", "/api/tags")).json["models"][0]["name"] == "demo:latest"
    answer = await send(stable, "POST", "/v1/chat/completions", chat("demo"), x_preload_only="true")
    assert (answer.status, answer.body) == (200, b"")
    assert (await send(stable, "POST", "/v1/chat/completions", chat("demo"))).json["choices"]


async def test_the_lists_of_models(docker: Stable) -> None:
    """Every field of the recorded shapes, each of its kind; one model by its name, short name and id."""
    listed = (await send(docker, "GET", "/models")).json
    entry = next(each for each in listed if CHAIN in each["tags"])
    assert {key: type(value) for key, value in entry.items()} == {
        "id": str, "tags": list, "created": int, "config": dict,
    }  # fmt: skip
    assert {key: type(value) for key, value in entry["config"].items()} == {
        "format": str, "quantization": str, "parameters": str, "architecture": str, "size": str, "gguf": dict,
        "context_size": int,
    }  # fmt: skip
    assert (entry["id"][:7], len(entry["id"])) == ("sha256:", 71)
    assert entry["config"]["gguf"]["general.architecture"] == "llama"
    assert all(isinstance(value, str) for value in entry["config"]["gguf"].values())
    for text in ("chain", "ai/chain", CHAIN, "index.docker.io/ai/Chain:latest", entry["id"], entry["id"][7:19]):
        assert (await send(docker, "GET", f"/docker/models/{text}")).json == entry
    gone = await send(docker, "GET", "/models/nobody")
    assert (gone.status, gone.headers["content-type"]) == (404, TEXT)
    assert gone.body.startswith(b"model not found: nobody (fetch it with: docker model pull nobody")
    for prefix in ("/engines/v1/models", "/engines/llama.cpp/v1/models", "/docker/v1/models"):
        data = (await send(docker, "GET", prefix)).json
        assert (data["object"], {each["id"] for each in data["data"]}) == ("list", {"demo", CHAIN, "bert"})
        one = (await send(docker, "GET", f"{prefix}/ai/chain")).json
        assert (one["id"], one["owned_by"], one["dmr"]["architecture"]) == (CHAIN, "docker", "llama")


async def test_inference_under_every_prefix(docker: Stable) -> None:
    """OpenAI's and Anthropic's requests under each of their paths, the model in any spelling."""
    for prefix in ("/engines/v1", "/engines/llama.cpp/v1", "/docker/engines/v1", "/docker/v1", "/engines/vllm/v1"):
        for name in ("ai/chain", CHAIN, "chain"):
            answer = await send(docker, "POST", f"{prefix}/chat/completions", chat(name))
            assert answer.json["choices"][0]["message"]["content"] == chain_text(WORDS)
    made = await send(docker, "POST", "/engines/v1/completions", {"model": "chain", "prompt": "a", "max_tokens": 2})
    assert made.json["choices"][0]["text"]
    made = await send(docker, "POST", "/engines/v1/embeddings", {"model": "bert", "input": "a"})
    assert len(made.json["data"][0]["embedding"]) > 1
    for path in (
        "/engines/v1/messages", "/docker/v1/messages", "/anthropic/v1/messages", "/docker/anthropic/v1/messages",
    ):  # fmt: skip
        name = CHAIN if path.startswith("/anthropic") else "ai/chain"  # at the root it is Anthropic's own
        answer = await send(docker, "POST", path, chat(name))
        assert answer.json["content"][0]["text"] == chain_text(WORDS)
        counted = await send(docker, "POST", f"{path}/count_tokens", chat(name))
        assert counted.json["input_tokens"] > 0
    for path in ("/engines/v1/responses", "/engines/responses", "/engines/llama.cpp/v1/responses", "/responses"):
        answer = await send(docker, "POST", path, {"model": "chain", "input": "go"})
        assert answer.json["output"][-1]["content"][0]["text"] == chain_text(WORDS)
        shown = await send(docker, "GET", f"{path}/{answer.json['id']}")
        assert shown.json["id"] == answer.json["id"]
    for path in ("/docker/rerank", "/engines/rerank", "/engines/llama.cpp/rerank"):
        asked = await send(docker, "POST", path, {"model": "bert", "query": "a", "documents": ["b"]})
        assert "rerank" in asked.json["error"]["message"]  # it came to the engine, whose model is not made for it


async def test_what_is_not_under_anthropic_is_told_in_its_shape(docker: Stable) -> None:
    """Docker has the whole of /anthropic, whose clients read Anthropic's errors alone."""
    for path in ("/anthropic/v1/nowhere", "/docker/anthropic/v1/nowhere", "/anthropic/nowhere"):
        answer = await send(docker, "GET", path)
        assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


async def test_openais_client(docker: Stable) -> None:
    """With the base address that Docker's own documents give; errors are OpenAI's there."""
    async with openai.AsyncOpenAI(
        base_url=f"http://{docker.address}/engines/llama.cpp/v1", api_key="none", max_retries=0
    ) as client:
        text = ""
        async for chunk in await client.chat.completions.create(
            model="ai/chain", messages=[{"role": "user", "content": "go"}], stream=True
        ):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert text == chain_text(WORDS)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="ai/nobody", messages=[{"role": "user", "content": "go"}])
        assert caught.value.code == "model_not_found"
        assert "docker model pull ai/nobody" in caught.value.body["hint"]  # type: ignore[index]


async def test_preload_only(docker: Stable) -> None:
    """The model is loaded, and the answer is empty."""
    assert (await send(docker, "GET", "/engines/ps")).json == []
    answer = await send(docker, "POST", "/engines/v1/chat/completions", chat("ai/chain"), x_preload_only="true")
    assert (answer.status, answer.body) == (200, b"")
    assert [each["model_name"] for each in (await send(docker, "GET", "/engines/ps")).json] == ["ai/chain"]
    missing = await send(docker, "POST", "/engines/v1/chat/completions", chat("nobody"), x_preload_only="true")
    assert missing.status == 404


async def test_engines(docker: Stable) -> None:
    """What runs, how much room is taken, what is installed; unloading counts the engines that it ended."""
    status = (await send(docker, "GET", "/engines/status")).json
    assert status["llama.cpp"].startswith("Running: llama.cpp")
    assert status["vllm"].startswith("Not Installed: ")
    await send(docker, "POST", "/engines/v1/chat/completions", chat("chain"))
    await send(docker, "POST", "/engines/v1/embeddings", {"model": "bert", "input": "a"})
    rows = {each["model_name"]: each for each in (await send(docker, "GET", "/engines/ps")).json}
    assert set(rows) == {"ai/chain", "bert"}
    assert (rows["ai/chain"]["backend_name"], rows["ai/chain"]["keep_alive"]) == ("llama.cpp", "5m0s")
    assert (rows["ai/chain"]["mode"], rows["bert"]["mode"]) == ("completion", "embedding")
    assert (await send(docker, "GET", "/engines/df")).json == {"models_disk_usage": 0, "default_backend_disk_usage": 0}
    one = await send(docker, "POST", "/engines/unload", {"all": False, "backend": "", "models": ["ai/chain"]})
    assert (one.status, one.json) == (200, {"unloaded_runners": 1})
    again = await send(docker, "POST", "/engines/unload", {"models": ["ai/chain"]})
    assert again.json == {"unloaded_runners": 0}
    assert (await send(docker, "POST", "/engines/unload", {"all": True})).json == {"unloaded_runners": 1}
    assert (await send(docker, "POST", "/engines/install-backend", {"backend": "llama.cpp"})).status == 200
    assert (await send(docker, "POST", "/engines/unload", {"models": ["nobody"]})).status == 404


async def test_configure(docker: Stable) -> None:
    """202 without a body; shown with Go's own names; what may not be set is a plain text with a hint."""
    body = {"model": "ai/chain", "context-size": 512, "runtime-flags": ["--temp", "0"], "keep_alive": "-1"}
    for path in ("/engines/_configure", "/engines/llama.cpp/_configure", "/docker/engines/_configure"):
        done = await send(docker, "POST", path, body)
        assert (done.status, done.body) == (202, b"")
    (entry,) = (await send(docker, "GET", "/engines/_configure")).json
    assert entry["ModelID"] == (await send(docker, "GET", "/models/ai/chain")).json["id"]
    del entry["ModelID"]
    assert entry == {
        "Backend": "llama.cpp", "Model": CHAIN, "Mode": "completion",
        "Config": {"context-size": 512, "runtime-flags": ["--temp", "0"], "keep_alive": "-1"},
    }  # fmt: skip
    assert (await send(docker, "GET", "/engines/_configure?model=demo")).json == []
    bad = await send(docker, "POST", "/engines/_configure", {"model": "chain", "runtime-flags": ["--log-file", "x"]})
    assert (bad.status, bad.headers["content-type"]) == (422, TEXT)
    assert bad.body == b"the flag --log-file may not be set from outside (write it to `args` in models.yaml)\n"
    assert (await send(docker, "POST", "/engines/vllm/_configure", body)).status == 501
    assert (await send(docker, "POST", "/engines/_configure", {"model": "nobody"})).status == 404
    assert (await send(docker, "POST", "/engines/_configure", b"{".decode())).status == 400


async def test_logs(docker: Stable) -> None:
    """What happened, one line each with its time."""
    await send(docker, "POST", "/engines/v1/chat/completions", chat("chain"))
    answer = await send(docker, "GET", "/logs?no-engines=true")
    assert answer.headers["content-type"] == TEXT
    assert f"{CHAIN} is ready" in answer.body.decode()
    assert all(line.startswith("[") for line in answer.body.decode().splitlines())


async def test_what_is_not_offered_says_so(docker: Stable) -> None:
    """501 with a hint, in the dialect of its place; what there is not at all is a 404."""
    for method, path, body in (
        ("GET", "/docker/metrics", None), ("POST", "/engines/score", {}), ("POST", "/docker/score", {}),
        ("POST", "/engines/v1/images/generations", {"model": "demo"}),
        ("POST", "/docker/v1/images/generations", {"model": "demo"}),
        ("POST", "/engines/uninstall-backend", {"backend": "llama.cpp"}),
        ("POST", "/engines/install-backend", {"backend": "vllm"}),
        ("POST", "/models/create", {"from": "ai/smollm2"}),
    ):  # fmt: skip
        answer = await send(docker, method, path, body)
        assert answer.status == 501, path
        assert b"not" in answer.body or b"no " in answer.body
    nothing = await send(docker, "GET", "/engines/nowhere")
    assert (nothing.status, nothing.headers["content-type"]) == (404, TEXT)
    assert (await send(docker, "POST", "/docker/models/demo/dance")).status == 404
    assert (await send(docker, "GET", "/docker/models/create")).status in (404, 405)


async def test_the_table_is_the_truth(stable: Stable) -> None:
    """Every row leads to a route of this dialect."""
    routes = build(stable, stable)("docker").routes
    shown = {(route.method, route.path) for route in routes if _is_dockers(route)}
    prefixes = [path.partition("{")[0] for _, path in shown if "{" in path]
    for row in ROUTES:
        path = row.path.partition("?")[0].partition("…")[0].replace("{name}", "x").replace("{backend}", "llama.cpp")
        found = any(path == each for _, each in shown) or any(path.startswith(each) for each in prefixes)
        assert found or row.path.startswith("/api/"), row.path  # Ollama's are under its own prefix
        file, _, test = row.shown_by.partition("::")
        assert f"def {test}(" in (Path(__file__).parents[3] / file).read_text()


def _is_dockers(route: Route) -> bool:
    """All of /anthropic is, whose errors are Anthropic's."""
    return route.dialect.name == "docker" or route.path == "/anthropic/{path}"
