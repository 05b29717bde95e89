"""Keeping conversations of one real engine: what goes wrong, and what is not worth it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.conversations.identity import SAVE_FLAG
from corral.conversations.keeper import SPARE_BYTES, KeptConversations
from corral.conversations.shelf import Shelf
from corral.engines import embedded_host
from corral.engines.plan import Endpoint, LaunchPlan, Mount
from corral.events import EventLog
from corral.scheduler.lease import Lease
from support.architecture_files import write_projector
from support.engines import plan_of, until
from support.ggufs import write_random
from support.http import unix_request, wait_healthy

TARGET = b"/v1/chat/completions"
MESSAGES = [{"role": "system", "content": "be kind " * 120}, {"role": "user", "content": "hello"}]


class Engine:
    """The embedded engine with one random model, started again under a new generation as often as is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.child = folder, None
        self.model = write_random(folder / "m.gguf", context=4096)
        self.plan: LaunchPlan
        self.generation = 0

    def start(self, *flags: str) -> Lease:
        self.stop()
        self.generation += 1
        socket = self.folder / f"{self.generation}.sock"
        argv = [*embedded_host.command(), "--model", str(self.model), "--host", str(socket)]
        argv += ["--ctx-size", "4096", "--parallel", "1", "--threads", "1", "--metrics", "--slots", *flags]
        endpoint = Endpoint(socket=socket)
        plan = plan_of(*argv, model="m", generation=self.generation, endpoint=endpoint)
        self.plan = replace(plan, mounts=(Mount(self.model, str(self.model)),))
        with (self.folder / "log").open("ab") as log:
            self.child = child = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_healthy(socket, lambda: child.poll() is None)
        return Lease("m", f"m.{self.generation}", self.generation, endpoint)

    def stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    child: subprocess.Popen[bytes] | None


@pytest.fixture
def engine(short_tmp: Path) -> Iterator[Engine]:
    made = Engine(short_tmp)
    yield made
    made.stop()


class World:
    """A keeper over one engine, and what it has said."""

    def __init__(self, engine: Engine, group: asyncio.TaskGroup) -> None:
        self.engine, self.group = engine, group
        self.events, self.shelf = EventLog(), Shelf(engine.folder / "kept")
        self.busy, self.most = False, 1 << 30
        self.looks = 0
        self.made: KeptConversations | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    def keeper(self, spare_bytes: int = SPARE_BYTES) -> KeptConversations:
        self.made = KeptConversations(
            self.shelf,
            self.events,
            self.group_task,
            plan_of=lambda place: self.engine.plan,
            busy=self.is_busy,
            most=lambda: self.most,
            spare_bytes=spare_bytes,
            quiet_s=0.05,
        )
        return self.made

    def group_task(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        self.tasks.append(self.group.create_task(work, name=name))
        return self.tasks[-1]

    def is_busy(self, place: str) -> bool:
        self.looks += 1
        return self.busy

    def said(self, kind: str) -> list[str]:
        return [event.text for event in self.events.since() if event.kind == f"conversation.{kind}"]

    def start(self) -> Lease:
        return self.engine.start(SAVE_FLAG, str(self.shelf.home("m")))


@pytest.fixture
async def world(engine: Engine) -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as group:
        world = World(engine, group)
        yield world
        if world.made is not None:
            world.made.close()


def body(*more: dict[str, Any], **keys: Any) -> bytes:
    return json.dumps({"messages": [*MESSAGES, *more], "max_tokens": 8, "temperature": 0, **keys}).encode()


def png() -> bytes:
    """A red square of 56 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([200, 0, 0]) * 56) * 56
    head = struct.pack(">IIBBBBB", 56, 56, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def answer(lease: Lease, asked: bytes) -> bytes:
    socket = lease.endpoint.socket
    assert socket is not None
    return (await asyncio.to_thread(unix_request, socket, "POST", TARGET.decode(), asked))[2]


async def kept(world: World, keeper: KeptConversations) -> None:
    """One conversation, kept."""
    lease = world.start()
    await answer(lease, body())
    keeper.idle("m", lease.generation)
    await until(lambda: len(world.shelf) == 1, "the conversation to be kept")


async def test_an_answer_is_the_verdict(world: World) -> None:
    """What is put back is judged by the answer; without a word of it there is no verdict."""
    keeper = world.keeper()
    await keeper.open()
    await kept(world, keeper)
    lease = world.start()
    assert keeper.wanted(lease)
    recall = await keeper.recall(lease, TARGET, body({"role": "user", "content": "more"}))
    assert recall is not None
    assert not keeper.wanted(lease)  # there is no other to be put back
    recall.answered(b"no timings here")
    assert not world.said("restored")
    recall.answered(await answer(lease, body({"role": "user", "content": "more"})))
    (text,) = world.said("restored")
    assert "tokens need not be read again" in text


async def test_an_engine_that_dies_over_it(world: World) -> None:
    """A conversation over whose request an engine died is not put back a second time; one that cannot be reached costs
    the request nothing but an event."""
    keeper = world.keeper()
    await keeper.open()
    await kept(world, keeper)
    lease = world.start()
    assert keeper.wanted(lease)
    world.engine.stop()
    assert await keeper.recall(lease, TARGET, body()) is None
    assert len(world.said("failed")) == 1
    assert not keeper.wanted(lease)
    lease = world.start()
    assert keeper.wanted(lease)
    recall = await keeper.recall(lease, TARGET, body())
    assert recall is not None
    recall.died()
    await until(lambda: len(world.shelf) == 0, "it to be dropped")


OF_NOTHING = [
    (TARGET, body(cache_prompt=False)),
    (TARGET, body(id_slot=0)),
    (TARGET, b'{"messages": []}'),
    (b"/v1/embeddings", json.dumps({"input": "be kind " * 120}).encode()),
    (b"/v1/completions", json.dumps({"prompt": "something else " * 40}).encode()),
    (b"/v1/completions", json.dumps({"prompt": [["no", "text"]], "x": "y" * 300}).encode()),
]
"""Requests that go their own way, are short, or begin otherwise."""


async def test_what_goes_on_from_nothing(world: World) -> None:
    """Those have nothing put back, and nothing is said; after some of them in a row, no more are looked at."""
    keeper = world.keeper()
    await keeper.open()
    await kept(world, keeper)
    lease = world.start()
    for target, asked in OF_NOTHING:
        assert keeper.wanted(lease), asked
        assert await keeper.recall(lease, target, asked) is None, asked
        assert not world.said("failed"), asked
    lease = world.start()
    other = json.dumps({"prompt": "something else " * 40}).encode()
    looks = 0
    while keeper.wanted(lease):
        assert await keeper.recall(lease, b"/v1/completions", other) is None
        looks += 1
    assert looks == 6


async def test_a_full_disk_is_said_once(world: World) -> None:
    """Where the disk would become too full nothing is kept, and that is said once."""
    keeper = world.keeper(spare_bytes=1 << 60)
    await keeper.open()
    for _ in range(2):
        lease = world.start()
        await answer(lease, body())
        keeper.idle("m", lease.generation)
        await until(lambda: world.said("off"), "the disk to be found full")
    assert len(world.said("off")) == 1
    assert len(world.shelf) == 0


@pytest.mark.parametrize("why", ["busy", "short", "not ours"])
async def test_what_is_not_saved(world: World, why: str) -> None:
    """Nothing is saved while the engine is busy, of a short prompt, or where the model's own flags say where to."""
    keeper = world.keeper()
    await keeper.open()
    lease = world.engine.start(SAVE_FLAG, str(world.engine.folder)) if why == "not ours" else world.start()
    asked = body() if why != "short" else json.dumps({"prompt": "be kind", "max_tokens": 4}).encode()
    world.busy = why == "busy"
    await answer(lease, asked)
    keeper.idle("m", lease.generation)
    if why != "not ours":  # that is not even looked at
        await until(lambda: world.looks, "it to be looked at")
        await asyncio.gather(*world.tasks)
    assert len(world.shelf) == 0
    assert not world.said("failed")


async def test_a_conversation_with_an_image(world: World) -> None:
    """With an image in it, what stands before the image is enough to find it, and all of it needs no reading again."""
    keeper = world.keeper()
    await keeper.open()
    projector = write_projector(world.engine.folder / "p.gguf", width=128, image=56, out=128)
    flags = (SAVE_FLAG, str(world.shelf.home("m")), "--mmproj", str(projector))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png()).decode()}}
    asked = body({"role": "user", "content": [{"type": "text", "text": "see: "}, image]})
    lease = world.engine.start(*flags)
    first = json.loads(await answer(lease, asked))["timings"]
    keeper.idle("m", lease.generation)
    await until(lambda: len(world.shelf) == 1, "the conversation to be kept")
    lease = world.engine.start(*flags)
    assert keeper.wanted(lease)
    recall = await keeper.recall(lease, TARGET, asked)
    assert recall is not None
    assert recall.count < first["prompt_n"] - 10
    again = json.loads(await answer(lease, asked))["timings"]
    assert again["cache_n"] == first["prompt_n"] - 1


async def test_a_directory_that_cannot_be_used(world: World) -> None:
    """Where the directory is a file, nothing is kept and one event says so."""
    world.shelf.folder.write_text("not a directory")
    keeper = world.keeper()
    await keeper.open()
    assert keeper.folder("m") is None
    (text,) = world.said("off")
    assert "conversations are not kept" in text
