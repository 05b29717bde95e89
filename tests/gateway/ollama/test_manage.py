"""Ollama's management routes on a whole server: pull, push, create, copy, delete, blobs, and what num_ctx comes to."""

from __future__ import annotations

import hashlib
import http.client
import json
from pathlib import Path
from typing import Any

import ollama
import pytest

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from support import shared_store
from support.docker_registry import docker_registry
from support.faulty_registry import FaultyRegistry
from support.ggufs import CHAT_TEMPLATE, write_chain
from support.ollama_server import serving as ollama_registry
from support.server import Server, until
from support.shared_store import WORDS

registry, shared, server = shared_store.registry, shared_store.shared, shared_store.server


def client(server: Server) -> ollama.Client:
    return ollama.Client(host=server.url)


def send(server: Server, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """By plain HTTP, as curl does it."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, path, raw)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def say(server: Server, model: str, **more: Any) -> str:
    answer = client(server).chat(model, [{"role": "user", "content": "go"}], options={"num_predict": 20}, **more)
    return answer.message.content or ""


def test_pull_tells_how_far_it_is(server: Server, registry: FaultyRegistry) -> None:
    """Its steps in order, a line for the blob, success at the end; then the model is listed and answers."""
    name = f"{registry.host}/me/a"
    steps = list(client(server).pull(name, stream=True))
    words = [each.status or "" for each in steps]
    assert (words[0], words[-1]) == ("pulling manifest", "success")
    assert "verifying sha256 digest" in words
    blobs = [each for each in steps if each.digest and each.total and each.completed == each.total]
    assert any((each.status or "").startswith("pulling ") for each in blobs)
    assert f"{name}:latest" in [each.model for each in client(server).list().models]
    shown = client(server).show(name)
    assert (shown.capabilities, shown.details and shown.details.format) == (["completion"], "gguf")
    assert say(server, name) == say(server, f"{name}:latest") == " ".join(WORDS)
    assert client(server).pull(name).status == "success"


def test_a_pull_that_fails_says_why(server: Server, registry: FaultyRegistry) -> None:
    """As a status where nothing was sent yet, as a last line in a stream."""
    name = f"{registry.host}/me/nope"
    with pytest.raises(ollama.ResponseError, match="pull model manifest") as plain:
        client(server).pull(name)
    assert plain.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="pull model manifest"):
        list(client(server).pull(name, stream=True))
    status, body = send(server, "POST", "/api/pull", {"model": name})
    *_, last = [json.loads(line) for line in body.splitlines()]
    assert (status, set(last)) == (200, {"error", "code"})
    with pytest.raises(ollama.ResponseError, match="not found"):
        say(server, name)


def test_a_bare_name_is_of_ollamas_registry(paths: Paths, short_tmp: Path) -> None:
    """`tiny` is registry.ollama.ai/library/tiny, here from a mirror; it is shown and asked for as `tiny:latest`, and
    brings its system prompt and parameters along."""
    weights = write_chain(short_tmp / "t.gguf", WORDS).read_bytes()
    params = json.dumps({"num_predict": 2, "num_ctx": 1024}).encode()
    with ollama_registry() as registry:
        registry.add("library/tiny:latest", {"model": weights, "params": params, "system": b"Be brief."})
        config = f"""
            registries:
              registry.ollama.ai: {{mirrors: ['{registry.host}']}}
              '{registry.host}': {{insecure: true, private: true}}
              '{registry.storage.removeprefix("http://")}': {{insecure: true, private: true}}
        """
        with Server(paths, config) as server:
            assert client(server).pull("tiny").status == "success"
            assert [each.model for each in client(server).list().models] == ["tiny:latest"]
            answers = [client(server).generate(name, "x").response for name in ("tiny", "tiny:latest", "Tiny")]
            assert answers == [" ".join(WORDS[:2])] * 3
            shown = client(server).show("tiny")
            assert "num_predict                    2" in (shown.parameters or "")
            assert shown.model_dump().get("system") in ("Be brief.", None)
            assert json.loads(send(server, "POST", "/api/show", {"model": "tiny"})[1])["system"] == "Be brief."
            (ran,) = client(server).ps().models
            assert (ran.model, ran.context_length) == ("tiny:latest", 1024)


def test_keep_alive_loads_and_unloads(server: Server) -> None:
    """An empty prompt loads; 0 unloads at once; a negative one keeps it for ever; ps shows until when."""
    asking = client(server)
    assert asking.generate("demo").done_reason == "load"
    (ran,) = asking.ps().models
    assert (ran.model, ran.size_vram) == ("demo:latest", 0)
    assert (ran.size or 0) > 1_000_000
    assert asking.generate("demo", keep_alive="20m").done_reason == "load"
    (ran,) = asking.ps().models
    assert ran.expires_at is not None
    expires = ran.expires_at.timestamp()
    assert asking.generate("demo", keep_alive=-1).done_reason == "load"
    assert (asking.ps().models[0].expires_at or ran.expires_at).timestamp() > expires + 86400 * 365
    assert asking.generate("demo", keep_alive=0).done_reason == "unload"
    until(lambda: not asking.ps().models, "the model to be unloaded")
    assert asking.chat("demo", [], keep_alive=0).done_reason == "unload"
    assert asking.ps().models == []


def test_copy_and_delete(server: Server, registry: FaultyRegistry) -> None:
    """Both answer with nothing at all; a model that is loaded is unloaded first; what is not there is a 404."""
    name = f"{registry.host}/me/a"
    client(server).pull(name)
    assert send(server, "POST", "/api/copy", {"source": name, "destination": "mine"}) == (200, b"")
    assert say(server, "mine") == " ".join(WORDS)
    assert "mine:latest" in [each.model for each in client(server).list().models]
    assert send(server, "DELETE", "/api/delete", {"model": name}) == (200, b"")
    assert {each.model for each in client(server).list().models} == {"demo:latest", "mine:latest"}
    assert say(server, "mine") == " ".join(WORDS)
    assert send(server, "DELETE", "/api/delete", {"name": "mine"}) == (200, b"")
    assert [each.model for each in client(server).list().models] == ["demo:latest"]
    with pytest.raises(ollama.ResponseError, match="model 'mine' not found") as gone:
        client(server).delete("mine")
    assert gone.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match='model "mine" not found'):
        client(server).copy("mine", "other")
    with pytest.raises(ollama.ResponseError, match=r"a file that models\.yaml names"):
        client(server).delete("demo")


def test_a_name_that_shares_its_files_goes_with_its_engine(server: Server, registry: FaultyRegistry) -> None:
    """`delete` unloads the model first, also where another name keeps its files; nothing lists it any more."""
    name = f"{registry.host}/me/a"
    client(server).pull(name)
    client(server).copy(name, "twin")
    assert say(server, name) == say(server, "twin") == " ".join(WORDS)
    assert send(server, "DELETE", "/api/delete", {"model": "twin"}) == (200, b"")
    twin = "registry.ollama.ai/library/twin:latest"
    assert [unit.model for unit in server.client.units() if unit.state == "ready"] == [f"{name}:latest"]
    for path in ("/v1/models", "/api/ps", "/api/tags", "/llamacpp/models", "/docker/models", "/docker/engines/ps"):
        status, listed = send(server, "GET", path)
        assert (status, b"twin" in listed) == (200, False), listed
    assert twin not in [model.name for model in server.client.models()]
    status, refusal = send(server, "DELETE", "/api/delete", {"model": "twin"})
    assert (status, json.loads(refusal)["code"]) == (404, "model_not_found")
    assert say(server, name) == " ".join(WORDS)


def test_create_of_a_stored_model(server: Server, registry: FaultyRegistry, short_tmp: Path) -> None:
    """Parameters, system prompt, template, licence and messages over those of another model, by fields or Modelfile;
    the weights are the same blob."""
    name = f"{registry.host}/me/a"
    asking = client(server)
    asking.pull(name)
    steps = list(
        asking.create(
            "short",
            from_=name,
            system="Be brief.",
            parameters={"num_predict": 2, "stop": ["x"]},
            license="MIT",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
        )
    )
    words = [each.status or "" for each in steps]
    assert words[-1] == "success"
    assert "writing manifest" in words
    assert client(server).generate("short", "x").response == " ".join(WORDS[:2])
    shown = json.loads(send(server, "POST", "/api/show", {"model": "short"})[1])
    assert (shown["system"], shown["license"]) == ("Be brief.", "MIT")
    assert shown["parameters"].splitlines() == [
        "num_predict                    2", 'stop                           "x"',
    ]  # fmt: skip
    file = f'FROM short\nPARAMETER num_predict 3\nSYSTEM And wise.\nTEMPLATE """{CHAT_TEMPLATE}"""'
    status, body = send(server, "POST", "/api/create", {"name": "three", "modelfile": file, "stream": False})
    assert (status, json.loads(body)) == (200, {"status": "success"})
    assert client(server).generate("three", "x").response == " ".join(WORDS[:3])
    shown = json.loads(send(server, "POST", "/api/show", {"model": "three"})[1])
    assert (shown["system"], shown["template"]) == ("And wise.", CHAT_TEMPLATE)
    before = server.client.usage()
    assert before.shared_bytes > 0.9 * (short_tmp / "a.gguf").stat().st_size
    status, body = send(server, "POST", "/api/create", {"model": "odd", "from": name, "template": "{{ .Prompt }}"})
    assert any("no Jinja" in json.loads(line).get("status", "") for line in body.splitlines())
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found"):
        asking.create("x", from_="nobody")
    with pytest.raises(ollama.ResponseError, match="quantize is not offered") as refused:
        asking.create("x", from_=name, quantize="q4_0")
    assert refused.value.status_code == 501
    assert "corral quantize MODEL" in refused.value.error


def test_create_of_a_blob(server: Server, short_tmp: Path) -> None:
    """A GGUF file sent as a blob becomes a model; a blob is there or not, and one that is not its digest is refused."""
    data = write_chain(short_tmp / "b.gguf", WORDS).read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert send(server, "HEAD", f"/api/blobs/{digest}")[0] == 404
    assert send(server, "POST", f"/api/blobs/{digest}", data[:-1])[0] == 400
    assert send(server, "HEAD", f"/api/blobs/{digest}")[0] == 404
    assert client(server).create_blob(short_tmp / "b.gguf") == digest
    assert send(server, "HEAD", f"/api/blobs/{digest}")[0] == 200
    assert send(server, "POST", f"/api/blobs/{digest}", data)[0] == 200
    assert send(server, "POST", "/api/blobs/sha256:00", b"x")[0] == 400
    assert client(server).create("made", files={"b.gguf": digest}).status == "success"
    assert say(server, "made") == " ".join(WORDS)
    missing = "sha256:" + "0" * 64
    for files, words in (
        ({"b.gguf": missing}, "not in the store|is not here"), ({"b.safetensors": digest}, "no GGUF file"),
    ):  # fmt: skip
        with pytest.raises(ollama.ResponseError, match=words):
            client(server).create("other", files=files)
    with pytest.raises(ollama.ResponseError, match="no adapter"):
        client(server).create("other", from_="made", adapters={"b.gguf": digest})


def test_bounds_are_told(paths: Paths, short_tmp: Path) -> None:
    """`max_body` is for what is read whole; a blob goes to the disk as it comes, in chunks too, and the server grows by
    a part of it at most.

    And `num_ctx` is never shorter in silence: a client that asks for more than is served is told so, and a prompt that
    does not fit is refused, not cut.
    """
    data = bytes(range(256)) * (64 << 12)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    config = "max_body: 1MiB\nmodels: [{name: demo, source: 'builtin:demo', context: 512}]"
    with Server(paths, config) as server:
        small = f"sha256:{hashlib.sha256(b'small').hexdigest()}"
        assert send(server, "POST", f"/api/blobs/{small}", b"small")[0] == 201  # now all that this takes is loaded
        before = server.client.status().memory_bytes
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        pieces = (data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20))
        connection.request("POST", f"/api/blobs/{digest}", pieces, encode_chunked=True)
        assert connection.getresponse().status == 201
        connection.close()
        assert send(server, "HEAD", f"/api/blobs/{digest}")[0] == 200
        assert server.client.status().memory_bytes - before < len(data) // 2
        assert send(server, "POST", "/api/generate", b" " * (2 << 20))[0] == 413
        other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
        assert send(server, "POST", f"/api/blobs/{other}", data)[0] == 400
        asked = {"model": "demo", "prompt": "hi", "stream": False}
        for wanted in (256, 8192):
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
            body = json.dumps({**asked, "options": {"num_ctx": wanted}})
            connection.request("POST", "/api/generate", body)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["x-corral-num-ctx"] == f"asked={wanted}; served=512"
            answer.read()
            connection.close()
        with pytest.raises(ollama.ResponseError, match="exceeds the available context size"):
            client(server).generate("demo", "word " * 2000)


def test_create_of_a_configured_file(server: Server) -> None:
    """`from` may be a model that models.yaml has as a file."""
    assert client(server).create("two", from_="demo", parameters={"num_predict": 2}).status == "success"
    answer = client(server).generate("two", "hi")
    assert (answer.done_reason, answer.eval_count) == ("length", 2)


def test_keys(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_API_KEY is what an unmodified client sends: none, a wrong one, other models, other scopes and limits are
    refused in Ollama's shape, and lists have only what the key is for."""
    config = """
        require_keys: true
        models: [{name: demo, source: 'builtin:demo'}, {name: other, source: 'builtin:demo'}]
    """
    hi = [{"role": "user", "content": "hi"}]
    with Server(paths, config) as server:
        with pytest.raises(ollama.ResponseError) as stranger:
            client(server).list()
        assert stranger.value.status_code == 401
        monkeypatch.setenv("OLLAMA_API_KEY", server.client.create_key(KeyAsk("one", models=["demo"])).secret)
        asking = client(server)
        assert asking.chat("demo", hi).done_reason == "stop"
        assert [piece.done for piece in asking.generate("demo", "hi", stream=True)][-1] is True
        assert asking.generate("demo").done_reason == "load"
        assert [model.model for model in asking.list().models] == ["demo:latest"]
        for act in (lambda: asking.chat("other", hi), lambda: asking.show("other"), lambda: asking.delete("demo")):
            with pytest.raises(ollama.ResponseError) as forbidden:
                act()
            assert forbidden.value.status_code == 403
        few = server.client.create_key(KeyAsk("few", requests_per_minute=1)).secret
        monkeypatch.setenv("OLLAMA_API_KEY", few)
        limited = client(server)
        limited.chat("demo", hi)
        with pytest.raises(ollama.ResponseError) as late:
            limited.chat("demo", hi)
        assert late.value.status_code == 429
        monkeypatch.delenv("OLLAMA_API_KEY")
        assert send(server, "GET", "/ollama")[1] == b"Ollama is running"
        assert send(server, "GET", "/api/version")[0] == 200


@pytest.mark.registry
def test_push_goes_to_a_registry(paths: Paths, registry: FaultyRegistry, short_tmp: Path) -> None:
    """Under a name of that registry; from there another server's client pulls it."""
    with docker_registry(short_tmp / "registry") as host:
        config = f"registries: {{'{host}': {{insecure: true, private: true}}}}"
        with Server(paths, config) as server:
            client(server).pull(f"{registry.host}/me/a")
            client(server).copy(f"{registry.host}/me/a", f"{host}/me/b")
            words = [each.status or "" for each in client(server).push(f"{host}/me/b", stream=True)]
            assert (words[0], words[-1]) == ("retrieving manifest", "success")
            assert any(each.startswith("pushing ") for each in words)
            client(server).delete(f"{host}/me/b")
            client(server).delete(f"{registry.host}/me/a")
            assert client(server).pull(f"{host}/me/b").status == "success"
            assert say(server, f"{host}/me/b") == " ".join(WORDS)
