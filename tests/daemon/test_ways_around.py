"""Ways around keys, on a real server: every route of every dialect without a key, odd ways to write a path, and a model
that is not the key's, named in every way there is."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from corral.config.settings import Listen
from corral.gateway.app import build
from corral.gateway.routes import Route
from support.asking import CHAT, ask
from support.rpc import free_port
from support.server import Server

NOBODYS = (b'"local_only"', b'"feature_disabled"')
DIALECTS = ("openai", "anthropic", "ollama", "docker", "llamacpp")
KEYED = """
require_keys: true
listen:
  - 127.0.0.1:0
models:
  - {name: demo, source: 'builtin:demo'}
  - {name: hidden, source: 'builtin:demo', aliases: [veiled]}
"""
OPEN = {  # what tells nothing of this server and changes nothing
    "/", "/health", "/ready", "/v1/health", "/wol-health", "/version", "/api/version", "/api/status",
}  # fmt: skip
REFUSED = (401, 404, 405, 501)
"""Without a key: it is needed, or there is nothing for anybody."""


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for all of them, with an address for each dialect beside that of all dialects."""
    ports = [(dialect, free_port()) for dialect in DIALECTS]
    lines = [f"  - {{address: '127.0.0.1:{port}', dialect: {dialect}}}" for dialect, port in ports]
    with Server(module_paths, KEYED.replace("models:", "\n".join([*lines, "models:"])), listen="") as started:
        yield started


def raw(url: str, method: str, target: str) -> tuple[int, bytes]:
    """One answer to a target as it is written here."""
    where = urlsplit(url)
    assert where.hostname is not None and where.port is not None
    with socket.create_connection((where.hostname, where.port), timeout=30) as link:
        head = f"{method} {target} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        link.sendall(head.encode())
        answer = b"".join(iter(partial(link.recv, 1 << 16), b""))
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def _routes() -> set[tuple[str, str]]:
    """Method and path of every route that any listener has."""

    class Nobody:
        def __getattr__(self, name: str) -> Any:
            return Nobody()

        def __call__(self, *args: object) -> Any:
            return Nobody()

        def __fspath__(self) -> str:
            return "nowhere"

    nobody: Any = Nobody()
    app = build(nobody, nobody, models=nobody, access=nobody)
    routes = [route for dialect in (None, *DIALECTS) for route in app(where=Listen(dialect=dialect)).routes]
    return {(method, route.path) for route in routes for method in _methods(route)}


def _methods(route: Route) -> tuple[str, ...]:
    return ("GET", "POST", "DELETE") if route.method == "*" else (route.method,)


def test_every_route_wants_a_key(server: Server) -> None:
    """Of whatever dialect, under its prefix or not, at the root of an address that speaks it; but for greetings, health
    and what nobody is offered."""
    found = _routes()
    assert len(found) > 300
    urls = [f"http://{each}" for each in server.greeting["listen"]]
    assert len(urls) == 1 + len(DIALECTS)
    server.client.stop("demo")  # another test has asked it
    before = server.states("demo")
    for method, path in sorted(found):
        bare = re.sub(r"^/(openai|anthropic|ollama|docker|llamacpp)(?=/|$)", "", path) or "/"
        if bare in OPEN:
            continue
        target = re.sub(r"\{\w+\}", "demo", path)
        for url in urls if path == bare else urls[:1]:
            status, body = raw(url, method, target)
            closed = status in REFUSED or (status == 403 and any(each in body for each in NOBODYS))
            assert closed or (status == 200 and _says_nothing(body)), (method, target, status, body)
    assert server.states("demo") == before and server.states("hidden") == []


def _says_nothing(body: bytes) -> bool:
    """No model's name, path or key."""
    return not re.search(rb"demo|hidden|veiled|gguf|ck_", body)


ODD_WAYS = (
    "/control/status", "/%63ontrol/status", "/control%2Fstatus", "//control/status", "/./control/status",
    "/v1/../control/status", "/health/../control/status", "/control/status/", "/control/status;x", "/CONTROL/status",
    "/control/status?key=ck_abcdefghjk_x", "http://{host}/control/status", "/ollama/control/status",
    "/llamacpp/upstream/demo/slots", "/upstream/demo/%73lots", "/upstream/demo//slots", "/upstream/%64emo/slots",
    "/%6clamacpp/slots?model=demo", "/llamacpp/%73lots?model=demo", "/v1/upstream/demo/slots",
)  # fmt: skip


def test_no_way_of_writing_a_path_goes_around(server: Server) -> None:
    """Percent signs, dots, slashes, absolute targets, prefixes: 401, or there is nothing. With a key for asking, no 200
    either."""
    secret = server.client.create_key(KeyAsk("odd")).secret
    host = urlsplit(server.url).netloc
    for target in ODD_WAYS:
        for method in ("GET", "HEAD"):
            status, _ = raw(server.url, method, target.format(host=host))
            assert status in REFUSED, (method, target)
        if not target.startswith("http"):
            assert ask(server.url, target, secret).status in (400, 403, 404), target


def test_a_model_that_is_not_the_keys_is_nowhere(server: Server) -> None:
    """403 in each dialect, by alias too, for lists, counts and loads as well as answers; it is not even loaded."""
    key = server.client.create_key(KeyAsk("one", models=["demo"])).secret
    said = [{"role": "user", "content": "hi"}]
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"messages": said},
        "/v1/completions": {"prompt": "hi"},
        "/v1/embeddings": {"input": "hi"},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/v1/responses": {"input": "hi"},
        "/v1/responses/input_tokens": {"input": "hi"},
        "/v1/messages": {"messages": said, "max_tokens": 2},
        "/v1/messages/count_tokens": {"messages": said},
        "/tokenize": {"content": "hi"},
        "/apply-template": {"messages": said},
        "/completion": {"prompt": "hi"},
        "/infill": {"input_prefix": "a", "input_suffix": "b"},
        "/api/chat": {"messages": said},
        "/api/generate": {},
        "/ollama/api/generate": {"prompt": "hi", "raw": True},
        "/api/embed": {"input": []},
        "/api/embeddings": {"prompt": "hi"},
        "/api/show": {},
        "/llamacpp/models/load": {},
        "/llamacpp/v1/chat/completions/input_tokens": {"messages": said},
        "/engines/v1/chat/completions": {"messages": said},
        "/docker/engines/llama.cpp/v1/completions": {"prompt": "hi"},
        "/upstream/{}/v1/chat/completions": {"messages": said},
        "/upstream/{}/tokenize": {"content": "hi"},
    }
    for path, body in bodies.items():
        for name in ("hidden", "veiled"):
            for only in ("", "true"):
                sent = {"model": name, "stream": False, **body}
                given = ask(server.url, path.format(name), key, sent, x_preload_only=only)
                assert given.status == 403, (path, name, given)
    for path in ("/v1/models/{}", "/anthropic/v1/models/{}", "/llamacpp/v1/models/{}", "/llamacpp/props?model={}",
                 "/engines/v1/models/{}", "/docker/models/{}", "/upstream/{}/props"):  # fmt: skip
        for name in ("hidden", "veiled"):
            assert ask(server.url, path.format(name), key).status in (403, 404), path
    for path in ("/v1/models", "/anthropic/v1/models", "/api/tags", "/api/ps", "/docker/models", "/engines/v1/models",
                 "/docker/engines/ps", "/llamacpp/models", "/llamacpp/running"):  # fmt: skip
        given = ask(server.url, path, key)
        assert given.status == 200
        assert b"hidden" not in given.body and b"veiled" not in given.body, path
    assert ask(server.url, CHAT, key, {"model": "demo", "messages": said, "max_tokens": 2}).status == 200
    assert server.states("hidden") == []


def test_what_is_not_the_keys_is_told_as_what_is_not_there(server: Server) -> None:
    """Whether a name is known cannot be found out by asking for it, and no hint comes near it."""
    key = server.client.create_key(KeyAsk("other", models=["demo"])).secret
    for path, body in (("/v1/models/{}", None), (CHAT, {"messages": []})):
        there, not_there = (
            ask(server.url, path.format(name), key, body and {"model": name, **body}) for name in ("hidden", "hiddem")
        )
        assert there.status == not_there.status == 403
        assert b"hidden" not in not_there.body
        texts = [json.loads(each.body)["error"]["message"] for each in (there, not_there)]
        assert texts[0].replace("hidden", "") == texts[1].replace("hiddem", "") or path == CHAT


def test_anthropics_clients_read_their_own_errors(server: Server) -> None:
    """At paths that are OpenAI's too, and at those where nothing is."""
    for path, status in (("/v1/models", 401), ("/v1/models/demo", 401), ("/v1/nowhere", 404)):
        given = ask(server.url, path, anthropic_version="2023-06-01")
        assert (given.status, given.json()["type"]) == (status, "error")
        assert "type" not in ask(server.url, path).json()
