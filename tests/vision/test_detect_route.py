"""`POST /detect` on a real server: the right detector gets it, by the rules that hold for every model."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.api import UnitInfo
from corral.api_access import KeyAsk
from corral.config.paths import Paths
from corral.scheduler.messages import BecameReady, Returned
from corral.scheduler.state import Policy, Spec
from support.detecting import TINY, Reply, encoded, form, scene
from support.forks import Forks
from support.scheduler_script import Script
from support.server import Server, until

PICTURE = encoded(scene(1).image)
SHAPES = f"{{name: shapes, aliases: [tiny], source: {TINY}, engine: detector, args: [--threads, '1']}}"
BOTH = f"models: [{{name: demo, source: 'builtin:demo'}}, {SHAPES}]"
GIB = 1 << 30

Configured = Callable[[str], Server]


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for all, and one detector for those that only ask it."""
    with Server(module_paths, BOTH) as started:
        yield started


@pytest.fixture
def configured(server: Server) -> Iterator[Configured]:
    """The shared server with another configuration until the test ends, and nothing that runs."""

    def configure(text: str) -> Server:
        for model in {unit.model for unit in server.client.units() if unit.state != "stopped"}:
            server.client.stop(model)
        server.write(text)
        assert server.client.reload().needs_restart == []
        return server

    yield configure
    configure(server.config)


def detector(server: Server) -> UnitInfo:
    return next(unit for unit in server.client.units() if unit.model == "shapes")


def post(server: Server, body: bytes, kind: str, target: str = "/detect", **headers: str) -> tuple[Reply, Any]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=500)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", target, body, {"content-type": kind, **named})
        response = connection.getresponse()
        return Reply(response.status, response.headers.get("content-type", ""), response.read()), response.headers
    finally:
        connection.close()


def picture(server: Server, target: str = "/detect", **headers: str) -> Reply:
    return post(server, PICTURE, "image/png", target, **headers)[0]


def resident(server: Server) -> set[str]:
    return {unit.model for unit in server.client.units() if unit.state == "ready"}


def test_one_detector_need_not_be_named(server: Server) -> None:
    """The only detector answers whoever names none; by name or alias it is found in forms, JSON and the query; other
    models, unknown ones, and detectors asked for a chat are refused."""
    server.client.stop("shapes")
    reply, headers = post(server, PICTURE, "image/png")
    assert reply.status == 200, reply.body
    assert (headers["x-corral-model"], headers["x-corral-unit"]) == ("shapes", "shapes.1")
    assert float(headers["x-corral-load-ms"]) > 0
    assert reply.json["model"] == "shapes"
    kind, body = form([("model", "tiny"), ("image", PICTURE)])
    assert post(server, body, kind)[0].json["images"] == reply.json["images"]
    for asked in ({"model": "shapes"}, {}):
        text = json.dumps({**asked, "image": base64.b64encode(PICTURE).decode()}).encode()
        assert post(server, text, "application/json")[0].json["images"] == reply.json["images"]
    assert picture(server, "/detect?model=tiny&confidence=0.9").status == 200
    drawn = picture(server, "/detect?draw=1", accept="image/png")
    assert (drawn.status, drawn.kind, drawn.body[:4]) == (200, "image/png", b"\x89PNG")
    other = picture(server, "/detect?model=demo")
    assert (other.status, other.code, other.json["error"]["hint"]) == (400, "bad_request", "detectors here: shapes")
    assert picture(server, "/detect?model=nobody").status == 404
    assert (post(server, b"no picture", "image/png")[0].code) == "unsupported_media_type"
    chat = json.dumps({"model": "shapes", "messages": [{"role": "user", "content": "hello"}]}).encode()
    assert post(server, chat, "application/json", "/v1/chat/completions")[0].code == "not_offered"
    found = detector(server)
    assert (found.engine, found.runner, found.slots) == ("detector", "process", 16)


def test_requests_share_batches(server: Server) -> None:
    """Many at once are let in together, and go through the model in batches."""
    assert picture(server).status == 200
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda _: picture(server), range(48)))
    assert {reply.status for reply in replies} == {200}
    assert max(reply.json["timings"]["batch"] for reply in replies) > 1


def test_measured(server: Server) -> None:
    """After a load, what it took is known, and less than was thought."""
    assert picture(server).status == 200

    def measured() -> list[str]:
        return [each.text for each in server.client.events(model="shapes") if each.kind == "unit.measured"]

    text = until(measured, "the load to be measured")[0]
    assert text.startswith("shapes.1 takes ")


def test_killed(server: Server) -> None:
    """When the engine is killed, the next request is answered by a new one; one that waits is not lost."""
    assert picture(server).status == 200
    pid = detector(server).pid
    assert pid is not None
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(picture, server) for _ in range(8)]
        os.kill(pid, signal.SIGKILL)
        assert {each.result().status for each in asked} == {200}
    assert detector(server).pid != pid


def test_command(server: Server, forks: Forks, tmp_path: Path) -> None:
    """`corral detect` shows what is found, as a table and as JSON, and writes the picture with boxes."""
    file = tmp_path / "x.png"
    file.write_bytes(PICTURE)

    def corral(*args: str) -> subprocess.CompletedProcess[str]:
        return forks.run(["detect", *args], server.environment)

    wanted = picture(server).json["images"][0]["detections"]
    shown = corral(str(file))
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["LABEL", "SCORE", "LEFT", "TOP", "RIGHT", "BOTTOM"]
    assert [line.split()[0] for line in lines[1 : len(wanted) + 1]] == [each["label"] for each in wanted]
    as_json = json.loads(corral(str(file), str(file), "--json", "--max", "1").stdout)
    assert [each["file"] for each in as_json["images"]] == [str(file)] * 2
    assert [len(each["detections"]) for each in as_json["images"]] == [1, 1]
    for name, begin in (("out.png", b"\x89PNG"), ("out.jpg", b"\xff\xd8\xff")):
        assert corral(str(file), "--draw", str(tmp_path / name)).returncode == 0
        assert (tmp_path / name).read_bytes().startswith(begin)
    assert "Nothing was found" in corral(str(file), "--confidence", "1").stdout
    assert corral(str(file), "--draw", "x.gif").returncode == 2
    assert corral(str(file), str(file), "--draw", str(tmp_path / "y.png")).returncode == 2
    assert "cannot read" in corral(str(tmp_path / "none.png")).stderr
    wrong = corral(str(file), "--class", "dog")
    assert (wrong.returncode, "no class 'dog'" in wrong.stderr) == (2, True)
    assert "is no detector" in corral(str(file), "--model", "demo").stderr


def test_slots(server: Server, configured: Configured) -> None:
    """Sixteen requests are let in where `parallel` does not say."""
    assert picture(server).status == 200
    assert detector(server).slots == 16
    configured(f"models: [{SHAPES[:-1]}, parallel: 3}}]")
    assert picture(server).status == 200
    assert detector(server).slots == 3


def test_several_detectors(configured: Configured) -> None:
    """Of several, the default model is meant where it is one of them; otherwise one has to be named."""
    two = f"[{SHAPES}, {SHAPES.replace('name: shapes', 'name: second').replace('[tiny]', '[small]')}]"
    server = configured(f"models: {two}")
    unnamed = picture(server)
    assert (unnamed.status, unnamed.code) == (400, "missing_model")
    assert "shapes, second" in unnamed.json["error"]["hint"]
    server.write(f"default_model: small\nmodels: {two}")
    server.client.reload()
    assert picture(server).json["model"] == "second"


def test_none(configured: Configured) -> None:
    """Without a detector, the answer says how to have one."""
    server = configured("models: [{name: demo, source: 'builtin:demo'}]")
    reply = picture(server)
    assert (reply.status, reply.code) == (400, "missing_model")
    assert "engine: detector" in reply.json["error"]["hint"]


def test_keys(configured: Configured) -> None:
    """A key is asked for; one for other models gets no detector, and pictures cost no tokens."""
    server = configured(f"require_keys: true\n{BOTH}")
    assert picture(server).status == 401
    make = server.client.create_key
    chatty = make(KeyAsk("chatty", models=["demo"])).secret
    assert picture(server, x_api_key=chatty).code == "missing_model"
    assert picture(server, "/detect?model=shapes", x_api_key=chatty).status == 403
    assert picture(server, x_api_key=make(KeyAsk("counts", scopes=["metrics"])).secret).status == 403
    poor = make(KeyAsk("poor", models=["shapes"], tokens_per_day=1)).secret
    for _ in range(2):
        assert picture(server, x_api_key=poor).status == 200


def test_bounds(configured: Configured) -> None:
    """`max_body` holds for pictures as for everything else."""
    server = configured(f"max_body: 4KiB\nmodels: [{SHAPES}]")
    reply = post(server, b"\0" * 5000, "image/png")[0]
    assert (reply.status, reply.code) == (413, "body_too_large")


def test_resident_together(configured: Configured) -> None:
    """A language model and a detector stay resident side by side under one budget that has room for both."""
    config = f"memory: {{cpu: 400MiB}}\nmodels: [{{name: demo, source: 'builtin:demo'}}, {SHAPES}]"
    chat = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}).encode()
    server = configured(config)
    before = server.client.events()[-1].seq
    for _ in range(3):
        assert post(server, chat, "application/json", "/v1/chat/completions")[0].status == 200
        assert picture(server).status == 200
    assert resident(server) == {"demo", "shapes"}
    assert [state for _, state in server.states("demo", before)].count("starting") == 1
    assert [state for _, state in server.states("shapes", before)].count("starting") == 1
    with ThreadPoolExecutor(2) as threads:
        both = [
            threads.submit(lambda: post(server, chat, "application/json", "/v1/chat/completions")[0]),
            threads.submit(picture, server),
        ]
        assert [each.result().status for each in both] == [200, 200]


def test_one_makes_room_for_the_other(paths: Paths) -> None:
    """Where the budget has room for one of them, the other goes, whichever is asked for."""
    shapes = SHAPES.replace("'1']", "'1', --max-batch, '1']")
    config = f"memory: {{cpu: 115MiB}}\nmodels: [{{name: demo, source: 'builtin:demo'}}, {shapes}]"
    chat = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}).encode()
    with Server(paths, config) as server:  # its own: what was measured elsewhere would change what has room
        assert post(server, chat, "application/json", "/v1/chat/completions")[0].status == 200
        assert picture(server).status == 200
        assert resident(server) == {"shapes"}


def test_sixteen_and_four() -> None:
    """An LLM of 16 GB and a detector of 4 GB are started one after the other under 24 GB, and neither is ever stopped
    for the other, however they take turns; a second LLM takes the first one's place and leaves the detector."""
    script = Script(
        Spec("llm", footprint={"gpu0": 16 * GIB}),
        Spec("detector", footprint={"gpu0": 4 * GIB}, slots=16, priority=1),
        Spec("other", footprint={"gpu0": 16 * GIB}),
        policy=Policy(budgets={"gpu0": 24 * GIB}, headroom=0),
    )
    assert script.ask(1, "llm", at=0.0) == ["start llm.1"]
    assert script.ask(2, "detector", at=1.0) == ["start detector.1"]
    assert script(BecameReady("detector", 1), at=2.0) == ["grant 2 detector"]
    assert script(BecameReady("llm", 1), at=3.0) == ["grant 1 llm"]
    script(Returned(1, "llm"))
    script(Returned(2, "detector"))
    for waiter in range(10, 60, 2):
        assert script.ask(waiter, "llm", at=float(waiter)) == [f"grant {waiter} llm"]
        assert script.ask(waiter + 1, "detector") == [f"grant {waiter + 1} detector"]
        assert script(Returned(waiter, "llm")) == []
        assert script(Returned(waiter + 1, "detector")) == []
    assert script.ask(100, "other", at=100.0) == ["stop llm.1"]
