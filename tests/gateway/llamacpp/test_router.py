"""The router's shape on a whole server: the feed, loading, downloads, and who may do what."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from gateway.test_listen import free_port
from support.faulty_registry import FaultyRegistry, serving
from support.ggufs import write_chain
from support.llama import llama_server
from support.server import Server, until

LISTEN = "listen: {address: '127.0.0.1:0', dialect: llamacpp}\n"
HI = {"role": "user", "content": "hi"}
WORDS = ["to", "be", "or", "not"]


def send(server: Server, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        raw = None if body is None else json.dumps(body).encode()
        connection.request(method, path, raw, {"authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        read = answer.read()
        return answer.status, json.loads(read) if read else None
    finally:
        connection.close()


class Feed:
    """The events of /models/sse, read in order."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def next(self) -> dict[str, Any]:
        while True:
            line = self._answer.readline()
            assert line, "the feed ended"
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found

    def until(self, event: str, **data: Any) -> list[dict[str, Any]]:
        """Everything up to and with that event."""
        found = []
        while True:
            found.append(self.next())
            if found[-1]["event"] == event and data.items() <= found[-1].get("data", {}).items():
                return found


@contextmanager
def following(server: Server, key: str = "") -> Iterator[Feed]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", "/models/sse", headers={"authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        assert answer.status == 200
        assert (answer.headers["content-type"] or "").startswith("text/event-stream")
        answer.readline()  # the first comment: it is connected
        yield Feed(answer)
    finally:
        connection.close()


def status(server: Server, name: str, key: str = "") -> dict[str, Any]:
    models = {each["id"]: each for each in send(server, "GET", "/llamacpp/models", key=key)[1]["data"]}
    found: dict[str, Any] = models[name]["status"]
    return found


def test_the_feed(paths: Paths, short_tmp: Path) -> None:
    """What the web page does: it follows, loads, chats, unloads, and hears of each step; a load that fails too."""
    bad = short_tmp / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 100)
    config = f"{LISTEN}models: [{{name: demo, source: 'builtin:demo'}}, {{name: bad, source: {bad}}}]"
    with Server(paths, config, listen="") as server:
        assert send(server, "GET", "/props")[1]["role"] == "router"
        with following(server) as feed:
            assert send(server, "POST", "/models/load", {"model": "demo"}) == (200, {"success": True})
            steps = feed.until("status_change", status="loaded")
            assert [(each["event"], each["data"]["status"]) for each in steps] == [
                ("model_status", "loading"), ("status_change", "loading"), ("status_change", "loaded"),
            ]  # fmt: skip
            info = steps[-1]["data"]["info"]
            assert (info["id"], info["meta"]["n_ctx_train"]) == ("demo", 2048)
            assert status(server, "demo")["value"] == "loaded"
            code, props = send(server, "GET", "/props?model=demo&autoload=false")
            assert (code, props["modalities"]["vision"]) == (200, False)
            assert send(server, "POST", "/models/load", {"model": "demo"})[0] == 400
            assert send(server, "POST", "/models/unload", {"model": "demo"}) == (200, {"success": True})
            (gone,) = feed.until("status_change", status="unloaded")
            assert gone["data"]["exit_code"] == 0
            assert status(server, "demo") == {"value": "unloaded", "args": []}
            send(server, "POST", "/models/load", {"model": "bad"})
            failed = feed.until("status_change", status="unloaded")[-1]
            assert (failed["model"], failed["data"]["exit_code"]) == ("bad", 1)
            assert status(server, "bad") == {"value": "unloaded", "args": [], "exit_code": 1, "failed": True}
            server.write(config.replace("name: bad", "name: worse"))
            server.client.reload()
            assert feed.until("models_reload")[-1]["model"] == "*"


@pytest.fixture
def registry(short_tmp: Path) -> Iterator[FaultyRegistry]:
    """A registry with the model me/a:latest, which says WORDS."""
    with serving() as found:
        found.model("me/a", write_chain(short_tmp / "a.gguf", WORDS).read_bytes())
        yield found


def test_a_download_is_followed(paths: Paths, registry: FaultyRegistry) -> None:
    """Begun with POST /models, followed, served under its name, removed with DELETE; each is told."""
    name = f"{registry.host}/me/a:latest"
    with Server(paths) as server, following(server) as feed:
        assert send(server, "POST", "/models", {"model": name}) == (200, {"success": True})
        told = feed.until("models_reload")
        assert [each["event"] for each in told[-2:]] == ["download_finished", "models_reload"]
        (files,) = {tuple(each["data"]["progress"]) for each in told[:-2] if each["data"]["progress"].keys() - {name}}
        assert files[0].startswith("sha256:")
        assert {each["model"] for each in told[:-1]} == {name}
        entry = next(each for each in send(server, "GET", "/llamacpp/models")[1]["data"] if each["id"] == name)
        assert (entry["source"], entry["can_remove"], entry["status"]["value"]) == ("cache", True, "unloaded")
        body = {"model": name, "prompt": "x", "n_predict": 4, "temperature": 0}
        assert send(server, "POST", "/completion", body)[1]["content"].split() == WORDS
        assert send(server, "POST", "/models", {"model": name})[1]["error"]["message"].endswith("already exists")
        assert send(server, "DELETE", f"/models?model={name}") == (200, {"success": True})
        assert feed.until("model_remove")[-1]["model"] == name
        assert name not in [each["id"] for each in send(server, "GET", "/llamacpp/models")[1]["data"]]
        assert send(server, "DELETE", f"/models?model={name}")[0] == 404
        code, said = send(server, "DELETE", "/models?model=demo")
        assert (code, "not removable" in said["error"]["message"]) == (400, True)
        assert send(server, "DELETE", "/models")[0] == 400
        assert send(server, "POST", "/models", {"model": f"{registry.host}/me/nope"})[0] == 200
        assert feed.until("download_failed")[-1]["model"].startswith(f"{registry.host}/me/nope")


def test_a_download_is_paused_and_given_up(paths: Paths, registry: FaultyRegistry) -> None:
    """As the web page does both: with /models/unload, and with DELETE; in between it is listed as downloading."""
    name = f"{registry.host}/me/slow:latest"
    registry.model("me/slow", b"GGUF" + bytes(40 << 20))
    with Server(paths, "download: {limit: 1MB}\nmodels: []") as server, following(server) as feed:
        send(server, "POST", "/models", {"model": name})
        feed.until("download_progress")
        assert status(server, name)["value"] == "downloading"
        assert send(server, "POST", "/models/unload", {"model": name}) == (200, {"success": True})
        assert feed.until("download_failed")[-1]["model"] == name
        assert status(server, name)["value"] == "downloading"
        assert send(server, "POST", "/models", {"model": name}) == (200, {"success": True})
        feed.until("download_progress")
        assert send(server, "DELETE", f"/models?model={name}") == (200, {"success": True})
        assert feed.until("download_failed")[-1]["model"] == name
        assert send(server, "GET", "/llamacpp/models")[1]["data"] == []


def test_who_may_do_what(paths: Paths) -> None:
    """A key for requests loads and asks; what changes models, shows what others ask or fetches needs more."""
    models = "models: [{name: demo, source: 'builtin:demo', aliases: [d]}, {name: other, source: 'builtin:demo'}]"
    config = f"{LISTEN}require_keys: true\n{models}"
    with Server(paths, config, listen="") as server:
        key = server.client.create_key(KeyAsk("k", models=["demo"])).secret
        admin = server.client.create_key(KeyAsk("a", scopes=["admin", "infer"])).secret
        assert send(server, "GET", "/llamacpp/models")[0] == 401
        code, said = send(server, "POST", "/completion", {"model": "d", "prompt": "x"})
        assert (code, said["error"]["type"], said["error"]["code"]) == (401, "authentication_error", 401)
        assert [each["id"] for each in send(server, "GET", "/llamacpp/models", key=key)[1]["data"]] == ["demo"]
        with following(server, key) as feed:
            assert send(server, "POST", "/models/load", {"model": "other"}, admin) == (200, {"success": True})
            assert send(server, "POST", "/models/load", {"model": "d"}, key) == (200, {"success": True})
            assert {each["model"] for each in feed.until("status_change", status="loaded")} == {"demo"}
        code, said = send(server, "POST", "/models/load", {"model": "other"}, key)
        assert (code, said["error"]["type"]) == (403, "permission_error")
        assert send(server, "GET", "/running", key=key)[1]["running"] == [{"model": "demo", "state": "ready"}]
        assert send(server, "GET", "/props?model=demo", key=key)[0] == 200
        for method, path, body in (
            ("POST", "/models/unload", {"model": "demo"}),
            ("POST", "/api/models/unload", {}),
            ("POST", "/api/models/unload/demo", {}),
            ("POST", "/models", {"model": "a/b"}),
            ("DELETE", "/models?model=demo", None),
            ("GET", "/slots?model=demo", None),
            ("POST", "/slots/0?action=save", {"model": "demo"}),
            ("POST", "/lora-adapters?model=demo", []),
            ("POST", "/props", {"model": "demo"}),
            ("GET", "/metrics?model=demo", None),
        ):
            assert send(server, method, path, body, key)[0] == 403, path
            assert send(server, method, "/llamacpp" + path, body, key)[0] == 403, path
        assert send(server, "GET", "/slots?model=demo", key=admin)[0] == 200
        assert send(server, "POST", "/models/unload", {"model": "d"}, admin) == (200, {"success": True})


@pytest.mark.engines
def test_a_llama_server_behind_it(paths: Paths) -> None:
    """Its own answers, byte for byte what it says of itself; and a client that leaves ends its work there too."""
    model = f"{{name: demo, source: 'builtin:demo', executable: '{llama_server()}', context: 2048}}"
    with Server(paths, f"{LISTEN}models: [{model}]", listen="") as server:
        body = {"model": "demo", "prompt": "x", "n_predict": 3, "temperature": 0}
        code, said = send(server, "POST", "/completion", body)
        assert (code, said["tokens_predicted"], said["stop"]) == (200, 3, True)
        props = send(server, "GET", "/props?model=demo")[1]
        assert props == send(server, "GET", "/upstream/demo/props")[1]
        assert (props["model_alias"], props["endpoint_slots"], props["ui"]) == ("demo", True, True)
        assert send(server, "GET", "/lora-adapters?model=demo")[1] == []
        counted = send(server, "POST", "/chat/completions/input_tokens", {"model": "demo", "messages": [HI]})[1]
        assert counted["object"] == "response.input_tokens"
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        raw = json.dumps({**body, "n_predict": 2000, "ignore_eos": True, "stream": True}).encode()
        connection.request("POST", "/completion", raw, {"x-conversation-id": "talk::demo"})
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        answer.close()
        connection.close()
        until(
            lambda: not any(each["is_processing"] for each in send(server, "GET", "/slots?model=demo")[1]),
            "the engine to stop",
        )
        assert send(server, "POST", "/upstream/demo/v1/streams/lookup", {"conversation_ids": ["talk::demo"]})[1] == []


def test_reload_changes_what_an_address_speaks(paths: Paths) -> None:
    """In place: a connection that was open hears the new dialect with its next request."""
    models = "models: [{name: demo, source: 'builtin:demo'}]"
    port = free_port()
    with Server(paths, f"{models}\nlisten: 127.0.0.1:{port}", listen="") as server:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def get(path: str) -> bytes:
            connection.request("GET", path)
            return connection.getresponse().read()

        try:
            assert b"<h1>Corral " in get("/")
            own = connection.sock
            assert "status" not in json.loads(get("/v1/models"))["data"][0]
            for dialect in ("ollama", "docker", "llamacpp", "anthropic", "openai"):
                server.write(f"{models}\nlisten: [{{address: 127.0.0.1:{port}, dialect: {dialect}}}]")
                server.client.reload()
                greeting = get("/")
                assert (greeting == b"Ollama is running") is (dialect == "ollama")
                assert (greeting == b"Docker Model Runner is running") is (dialect == "docker")
                entry = json.loads(get("/v1/models"))["data"][0]
                assert ("status" in entry) is (dialect == "llamacpp")
                assert (entry.get("type") == "model") is (dialect == "anthropic")
                assert json.loads(get("/llamacpp/props"))["role"] == "router"
            assert connection.sock is own
        finally:
            connection.close()


def test_a_dialect_on_the_command_line(paths: Paths) -> None:
    """After the address; what there is none of is refused before anything is opened."""
    with Server(paths, listen="127.0.0.1:0,dialect=llamacpp") as server:
        assert send(server, "GET", "/v1/models")[1]["data"][0]["status"]["value"] == "unloaded"
    refused = subprocess.run(
        [sys.executable, "-m", "corral", "serve", "--listen", "127.0.0.1:0,dialect=soap"], env=server.environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "none of openai, anthropic, ollama, docker, llamacpp" in refused.stderr
