"""What each request does: from a decoded line to a reply, by way of the table of engines."""

from __future__ import annotations

import os
import signal

from . import protocol
from .engines import Engine
from .protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .client import Client
    from .server import Server

    Request = dict[str, Any]
    Reply = dict[str, Any] | None  # None: it comes later


def answer(server: Server, client: Client, line: bytes | None) -> None:
    """Carries out one line and replies, with a refusal if need be; a line of None was too long to take."""
    asked: Any = None
    try:
        if line is None:
            raise Refused("too_long", f"a line may have {protocol.MAX_LINE_BYTES} bytes")
        request = protocol.decode(line)
        asked = request.get("id")
        handler = _HANDLERS.get(protocol.text(request, "op"))
        if handler is None:
            raise Refused("unknown_op", f"no operation is called {request['op']!r}")
        reply = handler(server, client, request)
    except Refused as refusal:
        _refuse(client, asked, refusal)
    else:
        if reply is not None:
            client.send({"id": asked, "ok": True, **reply})


def _refuse(client: Client, asked: Any, refusal: Refused) -> None:
    client.send(
        {"id": asked, "ok": False, "error": {"code": refusal.code, "text": refusal.text, "about": refusal.about}}
    )


def _hello(server: Server, client: Client, request: Request) -> Reply:
    role = protocol.text(request, "role", "daemon")
    if role not in ("daemon", "observer"):
        raise Refused("bad_request", "role is daemon or observer")
    if server.quitting:
        raise Refused("shutting_down", "this warden is ending")
    client.greeted, client.daemon = True, role == "daemon"
    return {"protocol": protocol.VERSION, "pid": os.getpid(), "started_wall_s": server.started_wall_s}


def _spawn(server: Server, client: Client, request: Request) -> Reply:
    if server.quitting:
        raise Refused("shutting_down", "this warden is ending")
    leash = protocol.text(request, "leash", "survive")
    if leash not in ("survive", "die-with-daemon"):
        raise Refused("bad_request", "leash is survive or die-with-daemon")
    unit, log, cwd = protocol.text(request, "unit"), protocol.text(request, "log"), protocol.text(request, "cwd", "/")
    argv, env = protocol.strings(request, "argv"), protocol.mapping(request, "env")
    engine = Engine(unit, argv, cwd, log, leash, request.get("plan"), mark=os.urandom(12).hex())

    def started(failure: Refused | None) -> None:
        if failure is not None:
            _refuse(client, request.get("id"), failure)
        else:
            client.send({"id": request.get("id"), "ok": True, "pid": engine.pid, "born": engine.born})

    server.engines.spawn(engine, env, started)
    return None


def _signal(server: Server, client: Client, request: Request) -> Reply:
    number = request.get("signal")
    if type(number) is not int or number not in signal.valid_signals():
        raise Refused("bad_request", "signal is the number of one")
    server.engines.signal(protocol.text(request, "unit"), number)
    return {}


def _stop(server: Server, client: Client, request: Request) -> Reply:
    engine = server.engines.stop(protocol.text(request, "unit"), protocol.seconds(request, "grace_s", 10.0))
    return {"state": engine.state, "exit": None if engine.lives else engine.exit}


def _list(server: Server, client: Client, request: Request) -> Reply:
    return {"engines": server.engines.listing()}


def _nursery(server: Server, client: Client, request: Request) -> Reply:
    if "argv" in request:
        argv, stands_for = protocol.strings(request, "argv"), protocol.strings(request, "stands_for")
        if server.quitting:
            raise Refused("shutting_down", "this warden is ending")
        server.engines.nursery.open(argv, stands_for, protocol.mapping(request, "env"))
    return server.engines.nursery.as_json()


def _forget(server: Server, client: Client, request: Request) -> Reply:
    server.engines.forget(protocol.text(request, "unit"))
    return {}


def _bye(server: Server, client: Client, request: Request) -> Reply:
    client.leaving = True
    return {}


def _shutdown(server: Server, client: Client, request: Request) -> Reply:
    server.quit(protocol.seconds(request, "grace_s", 10.0), "a client asked for it")
    return {}


_HANDLERS: dict[str, Callable[[Server, Client, Request], Reply]] = {
    "hello": _hello,
    "spawn": _spawn,
    "signal": _signal,
    "stop": _stop,
    "list": _list,
    "nursery": _nursery,
    "forget": _forget,
    "bye": _bye,
    "shutdown": _shutdown,
}
