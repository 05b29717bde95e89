"""Docker's management routes on a whole server: pull, tag, delete, push, export, load, repackage, configure."""

from __future__ import annotations

import html
import http.client
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from support import shared_store
from support.docker_registry import docker_registry
from support.faulty_registry import FaultyRegistry
from support.server import Server, until
from support.shared_store import WORDS

JSON = {"accept": "application/json"}
registry, shared, server = shared_store.registry, shared_store.shared, shared_store.server


def send(
    server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """By plain HTTP, as Docker's command line does it."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, f"/docker{path}", raw, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def pull(server: Server, ref: str, **headers: str) -> list[dict[str, Any]]:
    status, body = send(server, "POST", "/models/create", {"from": ref}, headers or JSON)
    assert status == 200, body
    text = body.decode() if not headers else html.unescape(body.decode())
    return [json.loads(line) for line in text.splitlines()]


def say(server: Server, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "go"}], "max_tokens": 20}
    status, answer = send(server, "POST", "/engines/v1/chat/completions", body)
    assert status == 200, answer
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def tags(server: Server) -> set[str]:
    return {tag for each in json.loads(send(server, "GET", "/models")[1]) for tag in each["tags"]}


def test_pull_tells_how_far_it_is(server: Server, registry: FaultyRegistry) -> None:
    """Lines for the layer, success at the end; again, it is cached; without the Accept field they are escaped."""
    name = f"{registry.host}/me/a"
    *steps, last = pull(server, name)
    assert last == {
        "type": "success", "message": "Model pulled successfully", "total": 0,
        "layer": {"size": 0, "current": 0}, "mode": "pull",
    }  # fmt: skip
    whole = [each for each in steps if each["type"] == "progress" and each["layer"]["current"] == each["layer"]["size"]]
    assert whole and whole[-1]["message"].startswith("Downloaded: ") and whole[-1]["mode"] == "pull"
    assert whole[-1]["layer"]["id"].startswith("sha256:") and whole[-1]["total"] >= whole[-1]["layer"]["size"]
    assert pull(server, name)[-1]["message"].startswith("Using cached model: ")
    status, body = send(server, "POST", "/models/create", {"from": name})
    assert status == 200 and b"&#34;success&#34;" in body and b'"' not in body
    assert f"{name}:latest" in tags(server)
    assert say(server, name) == say(server, f"{name}:latest") == " ".join(WORDS)
    given = send(server, "POST", "/models/create", {"from": name, "bearer-token": "x"}, JSON)[1]
    assert next(json.loads(each)["type"] for each in given.splitlines()) == "warning"


def test_a_pull_that_fails_says_why(server: Server, registry: FaultyRegistry) -> None:
    """As a status with plain text, for nothing was sent yet."""
    status, body = send(server, "POST", "/models/create", {"from": f"{registry.host}/me/nope"}, JSON)
    assert status == 404 and b"me/nope" in body and not body.startswith(b"{")
    assert send(server, "POST", "/models/create", {"from": "a b"})[0] == 400
    assert send(server, "POST", "/models/create", {})[0] == 400


def test_tag_and_delete(server: Server, registry: FaultyRegistry) -> None:
    """A name goes alone while there is another; an id with several names needs force; files of models.yaml stay."""
    name = f"{registry.host}/me/a"
    pull(server, name)
    digest = json.loads(send(server, "GET", f"/models/{name}")[1])["id"]
    status, body = send(server, "POST", f"/models/{name}/tag?repo=mine&tag=v1")
    assert (status, json.loads(body)["target"]) == (201, "docker.io/ai/mine:v1")
    assert say(server, "mine:v1") == " ".join(WORDS)
    status, body = send(server, "DELETE", f"/models/{digest[7:19]}")
    assert status == 409 and b"must be forced" in body
    status, body = send(server, "DELETE", f"/models/{name}?force=true")
    assert (status, json.loads(body)) == (200, [{"Untagged": f"{name}:latest"}])
    status, body = send(server, "DELETE", "/models/mine:v1?force=true")
    assert (status, json.loads(body)) == (200, [{"Untagged": "docker.io/ai/mine:v1"}, {"Deleted": digest}])
    assert tags(server) == {"demo"}
    assert send(server, "DELETE", "/models/mine:v1")[0] == 404
    assert send(server, "DELETE", "/models/demo")[0] == 400
    assert send(server, "POST", "/models/demo/tag")[0] == 400


def test_a_name_that_is_served_needs_force(server: Server, registry: FaultyRegistry) -> None:
    """Also where another name has the same files; then it goes with its engine."""
    name = f"{registry.host}/me/a"
    pull(server, name)
    send(server, "POST", f"/models/{name}/tag?repo=mine&tag=v1")
    assert say(server, "mine:v1") == " ".join(WORDS)
    status, body = send(server, "DELETE", "/models/mine:v1")
    assert status == 409 and b"force=true" in body
    assert send(server, "DELETE", "/models/mine:v1?force=true")[0] == 200
    assert [unit for unit in server.client.units() if unit.state == "ready"] == []
    assert "docker.io/ai/mine:v1" not in [model.name for model in server.client.models()]
    assert tags(server) == {"demo", f"{name}:latest"}


def test_purge(server: Server, registry: FaultyRegistry) -> None:
    """Everything of the store goes, also what is loaded."""
    pull(server, f"{registry.host}/me/a")
    assert say(server, f"{registry.host}/me/a")
    assert send(server, "DELETE", "/models/purge") == (200, b"")
    assert tags(server) == {"demo"}
    assert send(server, "DELETE", "/models/purge") == (200, b"")


def test_export_and_load(server: Server, registry: FaultyRegistry) -> None:
    """The tar file has the blobs and manifest.json; loaded elsewhere it is the same model, without its name."""
    name = f"{registry.host}/me/a"
    pull(server, name)
    entry = json.loads(send(server, "GET", f"/models/{name}")[1])
    status, data = send(server, "GET", f"/models/{name}/export")
    assert status == 200
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        names = tar.getnames()
        assert names[-1] == "manifest.json"
        assert all(each.startswith("blobs/sha256/") for each in names[:-1])
    send(server, "DELETE", f"/models/{name}")
    status, body = send(server, "POST", "/models/load", data, JSON)
    last = json.loads(body.splitlines()[-1])
    assert (status, last["type"]) == (200, "success")
    loaded = json.loads(send(server, "GET", f"/models/{entry['id']}")[1])
    assert loaded["config"] == entry["config"]
    assert say(server, entry["id"]) == " ".join(WORDS)
    for bad in (b"", b"no tar", data[:2000]):
        assert send(server, "POST", "/models/load", bad)[0] in (400, 422)


def test_corral_imports_from_it(server: Server, registry: FaultyRegistry, tmp_path: Path) -> None:
    """What reads Docker Model Runner's API reads this one too: `corral import docker` of another server."""
    name = f"{registry.host}/me/a"
    pull(server, name)
    from corral.models.peers.docker_api import list_api
    from corral.registry.egress import Egress

    found = list_api(Egress(), f"{server.url}/docker")
    assert f"{name}:latest" in [each.label for each in found]


def test_repackage(server: Server, registry: FaultyRegistry) -> None:
    """The same weights under another name, with a context of its own."""
    name = f"{registry.host}/me/a"
    pull(server, name)
    status, body = send(server, "POST", f"/models/{name}/repackage", {"target": "me/short", "context_size": 256})
    assert (status, json.loads(body)["target"]) == (201, "docker.io/me/short:latest")
    assert say(server, "me/short") == " ".join(WORDS)
    (unit,) = [each for each in server.client.units() if each.model == "docker.io/me/short:latest"]
    assert unit.context == 256
    assert send(server, "POST", f"/models/{name}/repackage", {"target": "x", "context_size": -1})[0] == 400


def test_a_model_of_a_registry(server: Server, registry: FaultyRegistry) -> None:
    """Looked at where it is, without being fetched."""
    name = f"{registry.host}/me/a"
    status, body = send(server, "GET", f"/models/{name}?remote=true")
    assert status == 200
    assert json.loads(body)["id"].startswith("sha256:")
    assert tags(server) == {"demo"}
    assert send(server, "GET", f"/models/{registry.host}/me/nope?remote=true")[0] == 404


def test_configure_is_kept(paths: Paths, registry: FaultyRegistry) -> None:
    """A model is started as it was configured, again when it changes, after a restart of the server too."""
    name = f"{registry.host}/me/a"
    with Server(paths) as server:
        pull(server, name)

        def context(model: str) -> int:
            assert say(server, model)
            return next(each.context for each in server.client.units() if each.model.startswith(model))

        for size in (256, 512):
            asked = {"model": name, "context-size": size, "keep_alive": "-1"}
            assert send(server, "POST", "/engines/_configure", asked) == (202, b"")
            until(lambda size=size: context(name) == size, f"a context of {size}")  # type: ignore[misc]
        assert send(server, "POST", "/engines/_configure", {"model": "demo", "context-size": 300})[0] == 202
        until(lambda: context("demo") < 600, "the demo to be started anew")
        assert any("demo is started as a client configured it" in each for each in server.client.status().warnings)
        (row,) = [each for each in json.loads(send(server, "GET", "/engines/ps")[1]) if "/me/a" in each["model_name"]]
        assert row["keep_alive"] == "-1"
        assert server.end() == 0
        server.start()
        assert context(name) == 512
        kept = {each["Model"]: each["Config"] for each in json.loads(send(server, "GET", "/engines/_configure")[1])}
        assert kept[f"{name}:latest"] == {"context-size": 512, "keep_alive": "-1"}
        asked = {"model": name, "context-size": -1, "keep_alive": "5m"}
        assert send(server, "POST", "/engines/_configure", asked)[0] == 202
        until(lambda: context(name) != 512, "the context to be its own again")


def test_requests_are_shown_to_who_may_see_them(server: Server) -> None:
    """Only on the unix socket or with an administrator's key, and only while they are recorded."""
    from corral.connection import request

    assert send(server, "GET", "/engines/requests")[0] == 403
    address = server.client.address

    def recorded() -> list[dict[str, Any]]:
        with request(address, "GET", "/docker/engines/requests") as answer:
            return list(answer.json())

    server.client.record(on=True, bodies=True)
    assert say(server, "demo")
    (found,) = recorded()
    assert set(found) == {"count", "model", "config", "records"}
    record = next(each for each in found["records"] if each["url"].endswith("chat/completions"))
    assert json.loads(record["request"])["max_tokens"] == 20
    assert (record["method"], record["status_code"], record["model"]) == ("POST", 200, "demo")


def test_logs_and_requests_can_be_followed(paths: Paths) -> None:
    """What comes is told as it comes: lines of the log, and each request that was answered."""
    from corral.connection import request

    with Server(paths) as server:
        server.client.record(on=True)
        address = server.client.address
        with (
            request(address, "GET", "/docker/logs?follow=true", accept="text/plain") as log,
            request(address, "GET", "/docker/engines/requests?model=demo", accept="text/event-stream") as records,
        ):
            lines, events = log.lines(), records.events()
            assert json.loads(next(events)) == {"status": "connected"}
            assert say(server, "demo")
            assert next(line for line in lines if "loading → ready" in line).startswith("[")
            (record,) = json.loads(next(events))["records"]
            assert (record["model"], record["status_code"], record["request"]) == ("demo", 200, "")


def test_keys(paths: Paths, registry: FaultyRegistry) -> None:
    """One for asking lists and asks; fetching, configuring and removing want more. Refusals are plain text, or OpenAI's
    where OpenAI's clients ask."""
    with Server(paths, "require_keys: true\nmodels: [{name: demo, source: 'builtin:demo'}]") as server:

        def key(*scopes: str) -> dict[str, str]:
            return {"authorization": f"Bearer {server.client.create_key(KeyAsk('k', list(scopes))).secret}"}

        ask, fetch, admin = key("infer"), key("infer", "pull"), key("admin")
        assert send(server, "GET", "/version")[0] == 200
        status, body = send(server, "GET", "/models")
        assert status == 401 and not body.startswith(b"{")
        assert [each["tags"] for each in json.loads(send(server, "GET", "/models", None, ask)[1])] == [["demo"]]
        chat = {"model": "demo", "messages": [{"role": "user", "content": "go"}], "max_tokens": 2}
        status, body = send(server, "POST", "/engines/v1/chat/completions", chat)
        assert status == 401 and json.loads(body)["error"]["code"] == "unauthorized"
        assert send(server, "POST", "/engines/v1/chat/completions", chat, ask)[0] == 200
        pulled = {"from": f"{registry.host}/me/a"}
        assert send(server, "GET", f"/models/{registry.host}/me/a?remote=true", None, ask)[0] == 403
        assert send(server, "GET", f"/models/{registry.host}/me/a?remote=true", None, fetch)[0] == 200
        assert send(server, "POST", "/models/create", pulled, ask)[0] == 403
        assert send(server, "POST", "/models/create", pulled, fetch)[0] == 200
        acts: tuple[tuple[str, str, Any], ...] = (
            ("POST", "/engines/_configure", {"model": "demo", "keep_alive": "1m"}),
            ("POST", "/engines/unload", {"all": True}),
            ("DELETE", f"/models/{registry.host}/me/a", None),
            ("GET", "/logs", None),
        )
        for method, path, sent in acts:
            assert send(server, method, path, sent, fetch)[0] == 403, path
            assert send(server, method, path, sent, admin)[0] in (200, 202), path
        made = server.client.create_key(KeyAsk("l", ["infer"], models=["other*"]))
        limited = {"authorization": f"Bearer {made.secret}"}
        for path in ("/models", "/engines/ps"):
            assert json.loads(send(server, "GET", path, None, limited)[1]) == []
        assert json.loads(send(server, "GET", "/engines/v1/models", None, limited)[1])["data"] == []
        for path in ("/models/demo", "/models/nobody", "/engines/v1/models/demo"):
            assert send(server, "GET", path, None, limited)[0] == 403, path
        assert send(server, "POST", "/engines/v1/chat/completions", chat, limited)[0] == 403
        assert send(server, "GET", "/engines/requests", None, fetch)[0] == 403
        assert send(server, "GET", "/engines/requests", None, admin)[0] == 501  # nothing is recorded


@pytest.mark.registry
def test_push_goes_to_a_registry(paths: Paths, registry: FaultyRegistry, short_tmp: Path) -> None:
    """Under a name of that registry, with lines of progress; from there it can be pulled again."""
    with docker_registry(short_tmp / "registry") as host:
        config = f"registries: {{'{host}': {{insecure: true, private: true}}}}"
        with Server(paths, config) as server:
            pull(server, f"{registry.host}/me/a")
            send(server, "POST", f"/models/{registry.host}/me/a/tag?repo={host}/me/b")
            status, body = send(server, "POST", f"/models/{host}/me/b/push", {}, JSON)
            lines = [json.loads(each) for each in body.splitlines()]
            assert (status, lines[-1]["type"], lines[-1]["mode"]) == (200, "success", "push")
            assert any(each["type"] == "progress" for each in lines)
            send(server, "DELETE", f"/models/{host}/me/b?force=true")
            assert pull(server, f"{host}/me/b")[-1]["type"] == "success"
            assert send(server, "POST", "/models/nobody/push", {})[0] == 404
