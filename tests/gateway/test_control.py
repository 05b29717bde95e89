"""The control routes and their description."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.api import ActionResult, ErrorInfo, EventInfo, ModelInfo, Status, UnitInfo, load
from corral.events import EventLog
from corral.gateway.app import build
from corral.gateway.listen import Listeners
from gateway.stable import Stable
from gateway.wire import ask, connected


async def test_models_units_and_status_are_wire_types(stable: Stable) -> None:
    """What the client library reads back is what the host said."""
    stable.add("m", aliases=("a",))
    await stable.open()
    await stable.start("m")
    models = (await ask(stable.address, "GET", "/control/models")).json
    assert [load(ModelInfo, each) for each in models] == stable.models()
    units = (await ask(stable.address, "GET", "/control/units")).json
    assert [load(UnitInfo, each) for each in units] == stable.units()
    assert load(Status, (await ask(stable.address, "GET", "/control/status")).json) == stable.status()


async def test_actions_take_names_and_aliases(stable: Stable) -> None:
    """start, stop and restart answer with what they did."""
    unit = stable.add("m", aliases=("a",))
    await stable.open()
    for verb, name, state, changed in [
        ("start", "a", "ready", True), ("start", "m", "ready", False), ("restart", "m", "ready", True),
        ("stop", "m", "stopped", True), ("stop", "a", "stopped", False),
    ]:  # fmt: skip
        answer = await ask(stable.address, "POST", f"/control/{verb}", {"model": name})
        result = load(ActionResult, answer.json)
        assert (answer.status, result.model, result.state, result.changed) == (200, "m", state, changed)
    assert not unit.running


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "model"),
        (b"{", 400, "model"),
        (b"[1]", 400, "model"),
        (b"{}", 400, "/control/models"),
        (b'{"model": 3}', 400, "/control/models"),
        (b'{"model": "m", "wait": 1}', 400, "leave it out"),
        (b'{"modle": "m"}', 400, "did you mean 'model'"),
        (b'{"model": "mn"}', 404, "did you mean 'm'"),
        (b" " * 2_000_000, 413, "max_body"),
    ],
)
async def test_bad_actions_are_refused_with_a_hint(stable: Stable, body: bytes, status: int, words: str) -> None:
    """Unknown fields name the nearest, bodies are bounded, and nothing is started."""
    unit = stable.add("m")
    await stable.open()
    answer = await ask(stable.address, "POST", "/control/start", body)
    info = load(ErrorInfo, answer.json["error"])
    assert (answer.status, info.status) == (status, status)
    assert words in info.hint
    assert not unit.running


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/control/events?snice=3", "did you mean 'since'"),
        ("/control/events?since=-1", "higher number"),
        ("/control/logs/m?lines=999999999", "newest lines"),
        ("/control/logs/m?follow=maybe", "stay connected"),
        ("/control/models?x=1", "none is known"),
    ],
)
async def test_bad_queries_are_refused_with_a_hint(stable: Stable, path: str, words: str) -> None:
    """Parameters are checked as strictly as bodies."""
    stable.add("m")
    await stable.open()
    answer = await ask(stable.address, "GET", path)
    assert answer.status == 400
    assert words in answer.json["error"]["hint"]


async def test_a_bad_reload_says_why(stable: Stable) -> None:
    """The configuration's error comes out with its own status and hint."""
    await stable.open()
    assert (await ask(stable.address, "POST", "/control/reload")).status == 200
    stable.bad_config = True
    answer = await ask(stable.address, "POST", "/control/reload")
    assert answer.json["error"]["code"] == "config"
    assert "context" in answer.json["error"]["hint"]


async def test_events_are_a_list(stable: Stable) -> None:
    """All of them, those since a number, those of a model."""
    stable.add("m", aliases=("a",))
    stable.add("n")
    for i in range(600):
        stable.events.post("test", f"event {i}", model="m" if i % 2 else "n")
    await stable.open()
    whole = (await ask(stable.address, "GET", "/control/events")).json
    assert [load(EventInfo, each) for each in whole] == stable.events.since()
    late = (await ask(stable.address, "GET", "/control/events?since=598")).json
    assert [each["seq"] for each in late] == [599, 600]
    of_m = (await ask(stable.address, "GET", "/control/events?model=a&since=590")).json
    assert [each["seq"] for each in of_m] == [592, 594, 596, 598, 600]


async def _events(wire: Any, count: int) -> list[tuple[int, dict[str, Any]]]:
    """The next `count` events with their ids."""
    text = ""
    while text.count("\ndata: ") < count or not text.endswith("\n\n"):
        text += (await wire.piece()).decode()
    blocks = [block for block in text.split("\n\n") if "data: " in block]
    return [
        (int(block.split("id: ")[1].split("\n")[0]), json.loads(block.split("data: ")[1])) for block in blocks
    ]  # fmt: skip


async def test_events_are_followed_without_gaps(stable: Stable) -> None:
    """A follower gets what was, then what comes; its last id is where it goes on after a broken connection."""
    for i in range(3):
        stable.events.post("test", f"event {i}")
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/events?since=1", headers={"accept": "text/event-stream"})
        await wire.start()
        assert wire.headers["content-type"].startswith("text/event-stream")
        assert [number for number, _ in await _events(wire, 2)] == [2, 3]
        stable.events.post("test", "late")
        ((number, entry),) = await _events(wire, 1)
        assert (number, entry["text"]) == (4, "late")
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/events?follow=1", headers={"last-event-id": "3"})
        await wire.start()
        assert [number for number, _ in await _events(wire, 1)] == [4]
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/events?follow=1", headers={"last-event-id": "99"})
        await wire.start()
        assert len(await _events(wire, 4)) == 4


async def test_a_follower_misses_nothing_while_it_is_busy() -> None:
    """What is posted while a follower handles an entry reaches it next, filtered followers included."""
    log = EventLog()
    log.post("test", "1", model="m")
    seen = []
    async for entry in log.follow(model="m"):
        seen.append(entry.text)
        if len(seen) == 1:
            for text, model in (("2", "m"), ("-", "n"), ("3", "m")):
                log.post("test", text, model=model)
        if len(seen) == 3:
            break
    assert seen == ["1", "2", "3"]


async def test_logs_are_text_and_can_be_followed(stable: Stable) -> None:
    """The newest lines as text; with follow one event per line, new ones as they are written."""
    stable.add("m")
    log = stable.directory / "m.1.log"
    await stable.open()
    assert (await ask(stable.address, "GET", "/control/logs/m")).body == b""
    log.write_text("".join(f"line {i}\n" for i in range(10)))
    answer = await ask(stable.address, "GET", "/control/logs/m?lines=2")
    assert answer.body == b"line 8\nline 9\n"
    assert answer.headers["content-type"].startswith("text/plain")
    found = await ask(stable.address, "GET", f"/control/logs/m?request={answer.body.decode().split()[0]}")
    assert found.status == 200
    assert found.body.decode().splitlines()[-1] in answer.body.decode()
    assert (await ask(stable.address, "GET", "/control/logs/m?request=nothing-of-it")).body == b""
    assert (await ask(stable.address, "GET", "/control/logs/nobody?request=x")).status == 404
    assert (await ask(stable.address, "GET", "/control/logs/nobody")).status == 404
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/logs/m?lines=1&follow=1")
        await wire.start()
        got = b""
        while b"data: line 9\n\n" not in got:
            got += await wire.piece()
        with log.open("a") as file:
            file.write("fresh: ü\n")
        while "data: fresh: ü\n\n".encode() not in got:
            got += await wire.piece()
        assert b"line 8" not in got


async def test_a_browser_follows_a_log_as_a_page(stable: Stable) -> None:
    """It grows as the engine writes, what looks like HTML is text, and it shows that it lives; others get events."""
    stable.add("m")
    log = stable.directory / "m.1.log"
    stable.listeners = Listeners(build(stable, stable, heartbeat_s=0.01))
    await stable.open()
    log.write_text("first\n<script>alert(1)</script>\n")
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/logs/m?lines=1&follow=1", headers={"accept": "text/html,*/*;q=0.8"})
        await wire.start()
        assert wire.headers["content-type"] == "text/html; charset=utf-8"
        assert wire.headers["content-security-policy"].startswith("default-src 'none'")
        got = b""
        while b"&lt;script&gt;" not in got:
            got += await wire.piece()
        with log.open("a") as file:
            file.write("fresh: ü\n")
        while "fresh: ü\n".encode() not in got or b"<!-- -->" not in got:
            got += await wire.piece()
    assert got.startswith(b"<!doctype html>") and b"<h1>m</h1>" in got
    assert b"first" not in got and b"<script" not in got and b"</html>" not in got


async def test_a_silent_feed_has_heartbeats(stable: Stable) -> None:
    """A follower sees that the connection lives although nothing happens."""
    stable.listeners = Listeners(build(stable, stable, heartbeat_s=0.01))
    await stable.open()
    async with connected(stable.address) as wire:
        wire.request("GET", "/control/events?follow=1")
        await wire.start()
        got = b""
        while got.count(b": still here\n\n") < 3:
            got += await wire.piece()
        assert b"data:" not in got


def resolve(document: dict[str, Any], schema: Any) -> dict[str, Any]:
    while "$ref" in schema:
        assert schema["$ref"].startswith("#/components/schemas/")
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = schema
    return found


def check(document: dict[str, Any], schema: Any, value: Any) -> None:
    """`value` is what `schema` says, for the parts of JSON Schema that the document uses."""
    schema = resolve(document, schema)
    if "anyOf" in schema:
        fitting = 0
        for each in schema["anyOf"]:
            try:
                check(document, each, value)
            except AssertionError:
                continue
            fitting += 1
        assert fitting, (schema, value)
        return
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,),
        "array": (list,), "null": (type(None),),
    }  # fmt: skip
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), (schema, value)
    if schema.get("type") == "array":
        for each in value:
            check(document, schema["items"], each)
    if "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for name, each in value.items():
            check(document, schema["properties"][name], each)


async def test_every_described_route_answers_as_described(stable: Stable) -> None:
    """The document is OpenAPI 3.1 in its structure; each route in it answers what it says, errors included."""
    stable.add("m")
    (stable.directory / "m.1.log").write_text("line\n")
    stable.events.post("test", "something", model="m")
    await stable.open()
    document = (await ask(stable.address, "GET", "/control/openapi.json")).json
    assert document["openapi"].startswith("3.1.")
    assert set(document) == {"openapi", "info", "servers", "tags", "paths", "components"}
    seen = set()
    for path, methods in document["paths"].items():
        assert path.startswith("/")
        for method, operation in methods.items():
            assert operation["operationId"] not in seen
            seen.add(operation["operationId"])
            assert operation["summary"]
            assert set(operation["tags"]) <= {tag["name"] for tag in document["tags"]}
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert "500" in operation["responses"]
            body = {"model": "m"} if "requestBody" in operation else None
            answer = await ask(stable.address, method.upper(), path.replace("{model}", "m"), body)
            said = operation["responses"][str(answer.status)]
            if path in ("/control/handover", "/control/plan/{model}"):  # answer on unix sockets only
                assert answer.status == 403
                continue
            assert answer.status == 200
            media = answer.headers["content-type"].split(";")[0]
            content = said["content"][media]
            if media == "application/json":
                check(document, content["schema"], answer.json)
            for status, response in operation["responses"].items():
                assert response["description"]
                if int(status) >= 400:
                    assert response["content"]["application/json"]["schema"] == {
                        "$ref": "#/components/schemas/ErrorReply"
                    }
    assert {"/control/models", "/control/start", "/control/logs/{model}", "/health", "/ready"} <= set(document["paths"])
    for path, method in (("/control/start", "POST"), ("/control/logs/x", "GET"), ("/control/nothing", "GET")):
        answer = await ask(stable.address, method, path, b'{"model": "x"}' if method == "POST" else None)
        check(document, {"$ref": "#/components/schemas/ErrorReply"}, answer.json)


async def test_the_page_describes_every_route_without_assets(stable: Stable) -> None:
    """The same for people, in one file that loads nothing."""
    await stable.open()
    document = (await ask(stable.address, "GET", "/control/openapi.json")).json
    page = (await ask(stable.address, "GET", "/control/docs")).body.decode()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    for loaded in ("<script", "<link", "<img", "src=", "@import", "url("):
        assert loaded not in page
