"""Nothing grows, nothing is kept and nothing is lost, however long it goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaos.clients import get
from corral.config.paths import Paths
from gateway.wire import until as until_async
from soak import table
from soak.traffic import DIALECTS, Traffic
from support.ggufs import write_chain
from support.server import Server, until

SECONDS = float(os.environ.get("CORRAL_TEST_SECONDS") or 60)
"""How long; `make soak` takes half an hour."""
SEED = int(os.environ.get("CORRAL_TEST_SEED") or 0)
RECORD = bool(os.environ.get("CORRAL_TEST_RECORD"))
CLIENTS = 24
SLOTS = 4
SAMPLE_S = 1.0
WARM_S = min(300.0, max(25.0, SECONDS / 5))
"""Of the same traffic before anything is measured, on top of `SECONDS`: until every cache and log is full, and every
dialect's modules are loaded."""
STAYS_S = (4.0, 9.0)
"""How long one model is asked for before the other one takes its place."""
KEPT_S = 3.0
"""Connections to engines are kept for a moment."""

MIB = 1 << 20
LONG_S = 600.0
"""From here on a line through the daemon's memory tells something. Before, it shows how malloc takes pages, a MiB or
two at a time: each thread has a part of the heap, which grows to the most that was ever needed in it at once."""
SLOPE_BYTES_PER_HOUR = 32 * MIB
GROWTH_BYTES = 4 * MIB
"""What the daemon may be larger at the end than after it was warm, whatever a line through it says: below this, how
the allocator rounds is all that is seen. In a run of any length it is no larger than that at rest, without what malloc
has of it for later."""
BLOCKS_A_REQUEST = 0.25
MALLOC_BYTES_A_REQUEST = 32
"""What may be held more at rest after the traffic than at rest before, for each request: what Python's allocator has
handed out, counted, and what malloc has. They tell of a leak where the memory of the process does not yet. The least
object is a block, and a request's own are some hundred, so that one client in twenty which leaves ten of them behind is
too many; its body alone has four times those bytes."""

WORDS = {
    "ea": [f"east{number}" for number in range(10)],
    "eb": [f"ember{number}" for number in range(11)],
    "sa": [f"salt{number}" for number in range(12)],
}
"""Of `ea` and `eb` one is resident at a time: that is the swaps. `sa` is on llama-server, where there is one."""

MODEL = """
  - {{name: {name}, source: {file}, executable: {executable}, group: {group}, context: 512, parallel: {slots},
     gpu_layers: 0, idle_timeout: never, args: [--threads, 1]}}
"""


class Probed(Server):
    """A server that tells what it holds."""

    @property
    def held_file(self) -> Path:
        return self.paths.state_dir / "held.json"

    def command(self) -> list[str]:
        python, _, _, *rest = super().command()
        return [python, str(Path(__file__).with_name("probe.py")), str(self.held_file), *rest]

    async def held(self) -> dict[str, Any]:
        self.held_file.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        await asyncio.to_thread(until, self.held_file.exists, "what the daemon holds")
        found: dict[str, Any] = json.loads(self.held_file.read_text())
        return found


@dataclass
class Seen:
    """The daemon over time."""

    at_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)

    async def watch(self, pid: int) -> None:
        process, began = psutil.Process(pid), time.monotonic()
        while True:
            self.at_s.append(time.monotonic() - began)
            self.rss.append(process.memory_info().rss)
            self.fds.append(process.num_fds())
            await asyncio.sleep(SAMPLE_S)

    @property
    def slope_bytes_per_hour(self) -> float:
        """Of a line through what was seen."""
        found = statistics.linear_regression(self.at_s, self.rss)
        return found.slope * 3600

    @property
    def growth_bytes(self) -> float:
        """The last fifth of that against the first."""
        part = max(1, len(self.rss) // 5)
        return statistics.median(self.rss[-part:]) - statistics.median(self.rss[:part])


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + WARM_S + 240)
async def test_nothing_grows_and_nothing_is_lost(short_tmp: Path, paths: Paths) -> None:
    """Under mixed traffic in every dialect with swaps: memory stays level, descriptors and tasks come back to what they
    were, every slot is free in the end, and each request whose client stayed was answered as it should be."""
    built = os.environ.get("CORRAL_TEST_LLAMA_SERVER")
    models = [name for name in WORDS if name != "sa" or built]
    entries = []
    for name in models:
        file = write_chain(short_tmp / f"{name}.gguf", WORDS[name], loop=True, mib=1, context=512)
        executable = built if name == "sa" else "embedded"
        entries.append(MODEL.format(name=name, file=file, executable=executable, group=name[0], slots=SLOTS))
    config = f"timeouts: {{queue: 80s}}\nmax_queue: 1000\nmodels:\n{''.join(entries)}"
    traffic, seen, chance = Traffic(CLIENTS, WORDS, SEED), Seen(), random.Random(SEED)
    server = Probed(paths, config)
    await asyncio.to_thread(server.__enter__)
    try:
        host, port = str(server.greeting["listen"][0]).split(":")
        traffic.address = (host, int(port))
        await _first_of_all(traffic, models)
        await _busy_for(WARM_S, traffic, models, chance)
        traffic.done.clear()
        before = await _calm(server)
        assert before["busy"] == [], f"before: CORRAL_TEST_SEED={SEED}: {traffic.amiss[:20]}"
        watching = asyncio.create_task(seen.watch(server.pid))
        began = time.monotonic()
        await _busy_for(SECONDS, traffic, models, chance)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        after = await _calm(server)
        loads = after["loads"] - before["loads"]
    finally:
        await asyncio.to_thread(server.__exit__, *sys.exc_info())
    rows = table.rows(traffic.done, [dialect.name for dialect in DIALECTS])
    facts = table.facts(time.monotonic() - began, SEED, traffic, loads, seen, before, after)
    print(f"\n{facts}\n\n{table.plain(rows)}")
    if RECORD:
        table.record(rows, facts)
    told = f"CORRAL_TEST_SEED={SEED}"
    assert traffic.amiss == [], f"{told}: {len(traffic.amiss)}:\n" + "\n".join(traffic.amiss[:20])
    assert after["busy"] == [], told
    more = Counter(after["fds"].values()) - Counter(before["fds"].values())
    grown = len(after["fds"]) - len(before["fds"])
    assert grown <= 0, f"{told}: {grown} descriptors more than the {len(before['fds'])} before: {more}"
    assert after["tasks"] == before["tasks"], told
    requests = sum(traffic.done.values())
    blocks = (after["blocks"] - before["blocks"]) / requests
    assert blocks <= BLOCKS_A_REQUEST, f"{told}: {blocks:.2f} blocks are kept of each request"
    if before["malloc"] is not None:
        kept = (after["malloc"]["held"] - before["malloc"]["held"]) / requests
        assert kept <= MALLOC_BYTES_A_REQUEST, f"{told}: {kept:.0f} bytes of malloc's are kept of each request"
        used = [each["rss"] - each["malloc"]["spare"] for each in (before, after)]
        assert used[1] - used[0] <= GROWTH_BYTES, f"{told}: {used[0] / MIB:.1f} MiB in use became {used[1] / MIB:.1f}"
    if SECONDS >= LONG_S:
        level = seen.slope_bytes_per_hour <= SLOPE_BYTES_PER_HOUR or seen.growth_bytes <= GROWTH_BYTES
        assert level, f"{told}: memory grows by {seen.slope_bytes_per_hour / MIB:.1f} MiB an hour"


async def _busy_for(seconds: float, traffic: Traffic, models: Sequence[str], chance: random.Random) -> None:
    """Traffic, with one of the first two models after the other."""
    began = time.monotonic()
    traffic.aims = models[:1]
    traffic.begin()
    for first in itertools.cycle(models[:2]):
        traffic.aims = [first, *models[2:]]
        await asyncio.sleep(chance.uniform(*STAYS_S))
        if time.monotonic() - began > seconds:
            break
    await traffic.end()


async def _first_of_all(traffic: Traffic, models: Sequence[str]) -> None:
    """Every model in every dialect once, and clients that leave and err: what is made once is there then."""
    chance = random.Random(1)
    for model in models:
        for dialect in DIALECTS:
            for behaviour in ("waits", "asks wrongly", "leaves"):
                await traffic.once(chance, model, dialect, behaviour)
    traffic.done.clear()


async def _calm(server: Probed) -> dict[str, Any]:
    """What the daemon holds when nobody asks anything, and who does not come to rest all the same."""

    busy: list[str] = []

    async def rests() -> bool:
        busy[:] = await _busy(server)
        return not busy

    with suppress(TimeoutError):
        await until_async(rests, "rest")
    await asyncio.sleep(KEPT_S)
    process = psutil.Process(server.pid)
    held = await server.held()
    units = await get(server.paths.control_socket, "/control/units")
    return {
        **held,
        "loads": sum(unit["generation"] for unit in units),
        "busy": busy,
        "rss": process.memory_info().rss,
        "threads": process.num_threads(),
    }


async def _busy(server: Probed) -> list[str]:
    """Who still works, in words: units by Corral's count, and their slots by the engines' own."""
    found = []
    for unit in await get(server.paths.control_socket, "/control/units"):
        if unit["busy"] or unit["queued"]:
            found.append(f"{unit['unit']}: {unit['busy']} busy, {unit['queued']} queued")
        if unit["state"] != "ready" or not unit["endpoint"].startswith("unix:"):
            continue
        slots = await get(unit["endpoint"].removeprefix("unix:"), "/slots")
        found += [f"{unit['unit']}: slot {slot['id']} works" for slot in slots if slot["is_processing"]]
    status = await get(server.paths.control_socket, "/control/status")
    if status["waiting"] or status["in_flight"]:
        found.append(f"{status['waiting']} wait, {status['in_flight']} in flight")
    return found
