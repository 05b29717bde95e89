"""Who is let in where, without a server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.access.desk import Desk
from corral.access.gate import AccessGate, Caller
from corral.access.keys import Limits, Scope
from corral.config.settings import Listen, ModelSettings, Settings
from corral.errors import CorralError, Forbidden, LimitReached, OriginRefused, Unauthorized

LAN = Listen("0.0.0.0", 8643)
HOME = Listen()


@dataclass
class Request:
    """What the gate looks at."""

    where: Listen = HOME
    headers: Sequence[tuple[bytes, bytes]] = field(default_factory=list)
    peer: str = "203.0.113.9"
    method: str = "POST"
    path: str = "/v1/chat/completions"
    query: bytes = b""
    local: bool = False
    inner: bool = False
    extra: list[tuple[bytes, bytes]] = field(default_factory=list)
    caller: Caller | None = None
    status: int = 0
    started: bool = False

    def ending(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


@dataclass
class World:
    """A gate whose settings can change."""

    desk: Desk
    settings: Settings

    def gate(self, *, insecure: bool = False) -> AccessGate:
        return AccessGate(self.desk, lambda: self.settings, insecure=insecure)

    def enter(self, request: Request, scope: Scope | None = "infer") -> Caller:
        return self.gate().enter(request, scope)

    async def key(self, *scopes: Scope, models: tuple[str, ...] = (), **limits: int) -> tuple[bytes, bytes]:
        made = await self.desk.create("k", scopes or ("infer",), models, Limits(**limits), None)
        return (b"authorization", b"Bearer " + made.secret.encode())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    model = ModelSettings("big", Path("/b.gguf"), aliases=("gpt-4",), context=100)
    made = World(Desk(tmp_path / "access.db"), Settings(MappingProxyType({"big": model})))
    yield made
    await made.desk.close()


async def test_where_a_key_is_needed(world: World) -> None:
    """Beyond this machine, unless that listener, or the server, is open on purpose; here only where it is asked for."""
    assert world.enter(Request()).id == "203.0.113.9"
    with pytest.raises(Unauthorized):
        world.enter(Request(LAN))
    assert world.enter(Request(LAN), None).key is None
    assert world.enter(Request(replace(LAN, insecure=True))).key is None
    assert world.gate(insecure=True).enter(Request(LAN), "infer").key is None
    world.settings = replace(world.settings, require_keys=True)
    with pytest.raises(Unauthorized):
        world.enter(Request())
    unix = Request(Listen("", 0, Path("/s")), local=True, peer="uid:1000")
    assert world.enter(unix, "admin").id == "uid:1000"
    assert world.enter(Request(LAN, [await world.key()])).owner != ""


async def test_a_key_over_an_open_way_counts_too(world: World) -> None:
    """Whoever sends one is bound by it, over the unix socket as well; what is none of ours is nobody's."""
    fine = await world.key(models=("gpt-*",))
    for request in (Request(headers=[fine]), Request(Listen("", 0, Path("/s")), [fine], local=True)):
        caller = world.enter(request)
        assert caller.id.startswith("key:") and not caller.may("admin")
        assert caller.may_use(("big", "gpt-4")) and not caller.may_use(("other",))
        with pytest.raises(Forbidden):
            world.enter(request, "pull")
    assert world.enter(Request(headers=[(b"authorization", b"Basic eDp5")])).key is None
    wrong = (b"x-api-key", fine[1].removeprefix(b"Bearer ")[:-1] + b"!")
    assert world.enter(Request(headers=[wrong])).key is None  # not even the look of one
    with pytest.raises(Unauthorized):
        world.enter(Request(LAN, [wrong]))


async def test_proxies(world: World) -> None:
    """What comes through a trusted one is judged by whose it is, and needs a key here too, whatever it says of itself;
    what others say counts for nothing."""
    world.settings = replace(world.settings, trusted_proxies=(ip_network("10.0.0.1"), ip_network("127.0.0.1")))
    through = [(b"host", b"chat.example.org"), (b"x-forwarded-for", b"203.0.113.9")]
    for said in (b"203.0.113.9", b"127.0.0.1"):
        with pytest.raises(Unauthorized):
            world.enter(Request(headers=[(b"x-forwarded-for", said)], peer="127.0.0.1"))
    key = await world.key()
    secure = [*through, (b"x-forwarded-proto", b"https"), (b"origin", b"https://chat.example.org"), key]
    assert world.enter(Request(headers=secure, peer="10.0.0.1")).id.startswith("key:")
    with pytest.raises(OriginRefused):
        world.enter(Request(headers=secure, peer="10.0.0.2"))
    opened = Request(replace(LAN, insecure=True), [(b"x-forwarded-for", b"198.51.100.7")], peer="10.0.0.1")
    assert world.enter(opened).id == "198.51.100.7"
    assert world.enter(replace(opened, peer="10.0.0.2")).id == "10.0.0.2"


async def test_names_and_pages_are_judged_by_the_present_settings(world: World) -> None:
    """A reload counts from the next request on."""
    named = Request(headers=[(b"host", b"box.lan:8642")])
    paged = Request(headers=[(b"host", b"127.0.0.1:8642"), (b"origin", b"https://a.example")])
    for request in (named, paged):
        with pytest.raises(OriginRefused):
            world.enter(request)
    world.settings = replace(world.settings, allowed_hosts=("Box.lan",), allowed_origins=("https://a.example",))
    world.enter(named)
    world.enter(paged)
    assert (b"access-control-allow-origin", b"https://a.example") in paged.extra
    assert world.gate().preflight(paged) is None  # it asks nothing beforehand


async def test_public_routes_are_read_by_any_page_and_changed_by_none(world: World) -> None:
    """A GET of what is everybody's passes; another method does not."""
    fields = [(b"host", b"127.0.0.1"), (b"origin", b"http://evil.example")]
    world.enter(Request(headers=fields, method="GET"), None)
    with pytest.raises(OriginRefused):
        world.enter(Request(headers=fields, method="POST"), None)


async def test_tickets_bound_what_has_no_bound(world: World) -> None:
    """Only where tokens are counted; the model's context bounds prompt and answer."""
    open_, counted = Request(), Request(headers=[await world.key(tokens_per_day=150)])
    for request, body in ((open_, None), (counted, b'{"max_tokens": 50}')):
        request.caller = world.enter(request)
        ticket = world.gate().admit(request, "big", b"{}")
        assert ticket is not None and ticket.body == body
        ticket.settle(None, 0)
    empty = Request(headers=[await world.key(tokens_per_day=99)])
    empty.caller = world.enter(empty)
    with pytest.raises(LimitReached) as caught:
        world.gate().admit(empty, "big", b"{}")
    assert caught.value.details["limit"] == "tokens-per-day" and caught.value.retry_after_s is not None


async def test_a_settled_ticket_gives_back_what_it_did_not_take(world: World) -> None:
    """Known usage counts as it is; what was cut off counts its prompt's bound and what came; an error nothing."""
    request = Request(headers=[await world.key(tokens_per_day=10_000, streams=1)])
    request.caller = world.enter(request)
    (key,) = world.desk.keys.values()

    @dataclass
    class Usage:
        prompt: int = 3
        completion: int = 4
        answers: int = 1

    for usage, events, taken in ((Usage(), 1, 7), (None, 0, 7), (None, 5, 7 + 100 + 5)):
        ticket = world.gate().admit(request, "big", b'{"max_tokens": 10}')
        assert ticket is not None and world.desk.taken(key).running == 1
        with pytest.raises(LimitReached):
            world.gate().admit(request, "big", b"{}")
        ticket.settle(usage, events)
        assert (world.desk.taken(key).day, world.desk.taken(key).running) == (taken, 0)


async def test_what_is_not_the_keys_model_is_refused_before_anything_is_taken(world: World) -> None:
    """By any of the model's names."""
    for glob, fine in (("gpt-*", True), ("big", True), ("small", False)):
        request = Request(headers=[await world.key(models=(glob,), requests_per_minute=1)])
        request.caller = world.enter(request)
        try:
            world.gate().admit(request, "big", b"{}")
            assert fine
        except CorralError as error:
            assert isinstance(error, Forbidden) and not fine


async def test_questions_of_ours_are_no_requests(world: World) -> None:
    """What Corral itself asks an engine for a request counts as that request."""
    request = Request(headers=[await world.key(requests_per_minute=1)])
    request.caller = world.enter(request)
    inner = replace(request, inner=True, path="/tokenize")
    assert [world.gate().admit(inner, "big", b"{}") for _ in range(3)] == [None] * 3
    assert world.gate().admit(request, "big", b"{}") is not None
