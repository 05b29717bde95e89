"""What is answered where: lists, health, pass-through, and every kind of bad request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CorralError, MethodNotAllowed, NotFound
from corral.gateway.routes import Match, Route, Table
from gateway.stable import Stable
from gateway.wire import Answer, ask, connected, until

CHAT = "/v1/chat/completions"


async def error(stable: Stable, method: str, path: str, body: Any = None, **headers: str) -> tuple[Answer, Any]:
    answer = await ask(stable.address, method, path, body, headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    found = answer.json["error"]
    assert found["message"]
    assert found["hint"]
    return answer, found


async def test_models_are_listed_with_their_aliases(stable: Stable, tmp_path: Path) -> None:
    """Every name a client may send is an entry; an alias says whose it is."""
    source = tmp_path / "m.gguf"
    source.write_bytes(b"GGUF")
    stable.add("org/m:8b", aliases=("m", "gpt-4"), source=source)
    stable.add("other")
    await stable.open()
    answer = await ask(stable.address, "GET", "/v1/models")
    assert answer.json["object"] == "list"
    entries = {entry["id"]: entry for entry in answer.json["data"]}
    assert list(entries) == ["org/m:8b", "m", "gpt-4", "other"]
    assert entries["org/m:8b"]["created"] == int(source.stat().st_mtime)
    assert entries["org/m:8b"]["owned_by"] == "corral"
    assert entries["org/m:8b"]["aliases"] == ["m", "gpt-4"]
    assert entries["gpt-4"]["alias_of"] == "org/m:8b"
    assert entries["other"]["created"] == 0
    for path, name in [("org/m:8b", "org/m:8b"), ("org%2Fm%3A8b", "org/m:8b"), ("gpt-4", "gpt-4")]:
        assert (await ask(stable.address, "GET", f"/v1/models/{path}")).json["id"] == name
    _, found = await error(stable, "GET", "/v1/models/othr")
    assert found["nearest"] == "other"


async def test_health_tells_life_and_ready_tells_work(stable: Stable) -> None:
    """/health is 200 as long as Corral lives, /ready only while it takes work."""
    await stable.open()
    assert (await ask(stable.address, "GET", "/health")).json == {"status": "ok"}
    assert (await ask(stable.address, "GET", "/ready")).status == 200
    stable.ready = False
    answer, found = await error(stable, "GET", "/ready")
    assert (answer.status, found["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"
    assert (await ask(stable.address, "GET", "/health")).status == 200


async def test_the_root_is_a_page_with_links(stable: Stable) -> None:
    """Who opens the server in a browser learns what it is."""
    await stable.open()
    answer = await ask(stable.address, "GET", "/")
    assert "Corral" in answer.body.decode()
    assert 'href="/control/docs"' in answer.body.decode()


async def test_head_is_get_without_the_body(stable: Stable) -> None:
    """HEAD answers with GET's fields wherever GET does."""
    stable.add("m")
    await stable.open()
    for path in ("/", "/health", "/v1/models", "/control/models", "/control/docs"):
        whole = await ask(stable.address, "GET", path)
        bare = await ask(stable.address, "HEAD", path)
        assert (bare.status, bare.body) == (200, b"")
        assert bare.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/chat/completion", CHAT),
        ("/v1/model", "/v1/models"),
        ("/helth", "/health"),
        ("/control/unit", "/control/units"),
    ],
)
async def test_an_unknown_path_names_the_nearest(stable: Stable, path: str, nearest: str) -> None:
    """404 with what was probably meant."""
    await stable.open()
    answer, found = await error(stable, "POST", path, b"{}")
    assert answer.status == 404
    assert nearest in found["hint"]


async def test_a_wrong_method_names_the_right_ones(stable: Stable) -> None:
    """405 with Allow."""
    await stable.open()
    answer, _ = await error(stable, "GET", CHAT)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    answer, _ = await error(stable, "DELETE", "/v1/models")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"[]", 400, "bad_request"),
        (b'{"model": "m", "model": "m"}', 400, "bad_request"),
        (b'{"model": 3}', 400, "bad_request"),
        (b'{"model": "mm"}', 404, "model_not_found"),
        (b'{"messages": []}', 400, "missing_model"),
    ],
)
async def test_bad_bodies_are_one_clear_error(stable: Stable, body: bytes, status: int, code: str) -> None:
    """Each in OpenAI's shape, with a hint, and no engine is started for it."""
    stable.add("m")
    stable.add("n")
    await stable.open()
    answer, found = await error(stable, "POST", CHAT, body)
    assert (answer.status, found["code"], found["type"]) == (status, code, "invalid_request_error")
    assert stable.granted == 0


async def test_a_compressed_body_is_explained(stable: Stable) -> None:
    """Not just "not JSON"."""
    await stable.open()
    _, found = await error(stable, "POST", CHAT, b"\x1f\x8b\x08", **{"content-encoding": "gzip"})
    assert "compressed" in found["hint"]


async def test_who_names_no_model_gets_the_default(stable: Stable) -> None:
    """The configured default answers, and the engine reads its name in the body."""
    stable.add("m")
    stable.add("n")
    stable.change(default_model="n")
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, {"messages": []})
    assert answer.headers["x-corral-model"] == "n"
    assert answer.json["fake"]["model"] == "n"


async def test_a_large_body_is_refused_whatever_it_says_of_its_length(stable: Stable) -> None:
    """413 by the declared length, and by what really comes; the answer arrives although the client still sends."""
    stable.add("m")
    stable.change(max_body_bytes=100_000)
    await stable.open()
    for size in (100_001, 3_000_000):
        answer, found = await error(stable, "POST", CHAT, b" " * size)
        assert (answer.status, found["code"]) == (413, "body_too_large")
    async with connected(stable.address) as wire:
        wire.head("POST", CHAT, {"transfer-encoding": "chunked"}, None)
        for _ in range(300):
            wire.body(b" " * 10_000)
            await wire.writer.drain()
        wire.end()
        answer = await wire.rest()
    assert answer.status == 413
    assert "max_body" in answer.json["error"]["hint"]
    body = json.dumps({"model": "m"}).encode().ljust(100_000)
    assert (await ask(stable.address, "POST", CHAT, body)).status == 200


async def test_a_chunked_body_is_taken_whole(stable: Stable) -> None:
    """A body without a length arrives at the engine with one."""
    stable.add("m")
    await stable.open()
    async with connected(stable.address) as wire:
        wire.head("POST", CHAT, {"transfer-encoding": "chunked"}, None)
        wire.body(b'{"mod')
        await wire.writer.drain()
        wire.body(b'el": "m"}')
        wire.end()
        answer = await wire.rest()
    assert answer.json["fake"]["body_bytes"] == len(b'{"model": "m"}')


async def test_expect_continue_is_answered_before_the_body(stable: Stable) -> None:
    """A client that waits for 100 gets it when its body is wanted, and gets the error at once when it is not."""
    stable.add("m")
    stable.change(max_body_bytes=1000)
    await stable.open()
    async with connected(stable.address) as wire:
        wire.head("POST", CHAT, {"expect": "100-continue"}, 14)
        while not isinstance(event := await wire.event(), h11.InformationalResponse):
            raise AssertionError(event)
        assert event.status_code == 100
        wire.body(b'{"model": "m"}')
        wire.end()
        assert (await wire.rest()).status == 200
    async with connected(stable.address) as wire:
        wire.head("POST", CHAT, {"expect": "100-continue"}, 5000)
        assert await wire.start() == 413
        assert wire.informational == []


async def test_a_client_that_leaves_while_it_sends_is_forgotten(stable: Stable) -> None:
    """Half a body costs nothing but the connection."""
    stable.add("m")
    await stable.open()
    async with connected(stable.address) as wire:
        wire.head("POST", CHAT, {}, 1000)
        wire.body(b'{"model": "m"')
        await until(lambda: stable.listeners.in_flight == 1, "seen")
        wire.drop()
        await until(lambda: stable.listeners.in_flight == 0, "forgotten")
    assert stable.granted == 0


async def test_upstream_reaches_any_path_of_the_engine(stable: Stable) -> None:
    """Method, path, query and body pass through; the longest known name wins."""
    stable.add("org/m")
    stable.add("org/m/q4:x", aliases=("short",))
    await stable.open()
    answer = await ask(stable.address, "PUT", "/upstream/org/m/slots/3?action=save&x=%2F", b'{"a": 1}')
    assert answer.json["method"] == "PUT"
    assert answer.json["path"] == "/slots/3"
    assert answer.json["fake"]["body_bytes"] == 8
    assert answer.headers["x-corral-model"] == "org/m"
    for name in ("org/m/q4:x", "org/m/q4%3Ax", "org%2Fm%2fq4:x", "short"):
        answer = await ask(stable.address, "GET", f"/upstream/{name}/props")
        assert answer.headers["x-corral-model"] == "org/m/q4:x"
        assert answer.json["path"] == "/props"
    answer = await ask(stable.address, "GET", "/upstream/short")
    assert answer.json["path"] == "/"
    answer = await ask(stable.address, "GET", "/upstream/short/a%2Fb%20c")
    assert answer.json["path"] == "/a%2Fb%20c"
    head = await ask(stable.address, "HEAD", "/upstream/short/health")
    assert (head.status, head.body) == (200, b"")
    stream = await ask(stable.address, "POST", "/upstream/short/v1/chat/completions", {"stream": True})
    assert stream.events[-1] == "[DONE]"


@pytest.mark.parametrize("path", ["m/../x", "m/%2e%2e/x", "m/a%2F..%2Fb", "m/..", "m/a%5C..%5Cb", "m/./x"])
async def test_upstream_takes_no_way_up(stable: Stable, path: str) -> None:
    """`..` in any spelling is refused."""
    stable.add("m")
    await stable.open()
    answer, _ = await error(stable, "GET", f"/upstream/{path}")
    assert answer.status == 400
    assert stable.granted == 0


async def test_upstream_to_nobody_names_the_nearest(stable: Stable) -> None:
    """An unknown model is a 404, a websocket a clear refusal."""
    stable.add("model-a")
    await stable.open()
    answer, found = await error(stable, "GET", "/upstream/model-b/props")
    assert (answer.status, found["nearest"]) == (404, "model-a")
    answer, found = await error(
        stable, "GET", "/upstream/model-a/ws", upgrade="websocket", connection="upgrade"
    )  # fmt: skip
    assert answer.status == 400
    assert "websocket" in found["message"]


async def test_an_insane_request_id_is_replaced(stable: Stable) -> None:
    """What does not belong into a log line does not get there."""
    await stable.open()
    for sent in ("a b", "x" * 200, '"', "<b>"):
        answer = await ask(stable.address, "GET", "/health", headers={"x-request-id": sent})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_what_is_no_http_is_told_so(stable: Stable) -> None:
    """Garbage, or TLS on a plain port, is a 400 and a closed connection; others are not disturbed."""
    await stable.open()
    for garbage in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTX/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_connection(stable.address.host, stable.address.port)
        writer.write(garbage)
        got = await reader.read()
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b'"hint"' in got
        writer.close()
        await writer.wait_closed()
    assert (await ask(stable.address, "GET", "/health")).status == 200


async def _nothing(exchange: object, match: Match, body: bytes) -> None: ...


@given(st.text(max_size=300), st.sampled_from(["GET", "POST", "HEAD", "BREW"]))
def test_any_path_is_a_match_or_a_clear_error(path: str, method: str) -> None:
    """The table never fails otherwise."""
    table = Table([Route("GET", "/a", _nothing), Route("*", "/u/{m}", _nothing), Route("POST", "/u/x", _nothing)])
    try:
        found = table.match(method, "/" + path)
    except (NotFound, MethodNotAllowed) as exc:
        assert isinstance(exc, CorralError)
        assert exc.hint
        return
    assert found.route.path in ("/a", "/u/{m}", "/u/x")
    if found.route.path == "/u/{m}":
        assert "/" + path == "/u/" + found.rest
