"""Nothing is lost while things break: the whole storm."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from chaos import table
from chaos.clients import Clients, End
from chaos.faults import ENGINE_FAULTS, SERVER_FAULTS
from chaos.storm import Case, Record, Storm, plan
from chaos.world import WORDS, World
from corral.config.paths import Paths

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from bench.frame import commit, machine

FAULTS = int(os.environ.get("CORRAL_TEST_FAULTS", "40"))
"""How many; `make chaos` does 500."""
SEED = int(os.environ.get("CORRAL_TEST_SEED", "0"))
ONLY = os.environ.get("CORRAL_TEST_ONLY", "")
"""The fault, phase and side (`e` or `s`) to be tried, as far as named, such as `out of memory,load,s`; empty: all."""
RECORD = bool(os.environ.get("CORRAL_TEST_RECORD"))
CONCURRENT = 64
MINUTES = float(os.environ.get("CORRAL_TEST_MINUTES") or "inf")
"""No further fault is begun after so long."""
SERVER_SHARE = 0.16
"""The share of faults that are done to the daemon and the warden."""
KEPT_S = 3.5
"""So long after the last request, no connection to an engine is kept: for 2 s, and they are looked at each second."""
GROWTH_BYTES = 48 << 20
GROWTH_DESCRIPTORS = 4


@pytest.mark.chaos
@pytest.mark.timeout(max(300, FAULTS * 20))
async def test_nothing_is_lost_whatever_breaks(short_tmp: Path, paths: Paths) -> None:
    """Under 64 requests at a time, whatever breaks: no request is lost of which nothing had been sent, every broken
    stream ends with an error event, and afterwards nothing is left behind and the server answers."""
    print(f"\nCORRAL_TEST_SEED={SEED}, {FAULTS} faults")
    built = os.environ.get("CORRAL_TEST_LLAMA_SERVER")
    clients = Clients(CONCURRENT, dict(WORDS), SEED)
    began = time.monotonic()
    async with World(short_tmp, paths, clients, Path(built) if built else None) as world:
        clients.begin()
        storm = Storm(world, SEED)
        kinds = [kind for kind in ENGINE_FAULTS if not kind.possible(world)]
        sides = sorted({name[0] for name in world.models})
        server_faults = round(FAULTS * SERVER_SHARE)
        engine_cases = _only(plan(kinds, sides, FAULTS - server_faults, SEED, 1))
        server_cases = _only(plan(SERVER_FAULTS, sides, server_faults, SEED, FAULTS - server_faults + 1))
        quiet = None
        for index, case in enumerate(engine_cases):
            if time.monotonic() - began > MINUTES * 60 * (1 - SERVER_SHARE):
                break
            _tell(await storm.run(case), len(engine_cases) + len(server_cases))
            if index == len(engine_cases) // 4:
                quiet = await _calm(world)
        after = await _calm(world)
        for case in server_cases:
            if time.monotonic() - began > MINUTES * 60:
                break
            _tell(await storm.run(case), len(engine_cases) + len(server_cases))
        await _calm(world)
        left = await world.leftovers()
        await _still_serves(world)
    took_s = time.monotonic() - began
    _show(storm.records, clients, took_s, world)
    lost = [line for record in storm.records for line in record.lost]
    troubles = [f"{record.case}: {record.trouble}" for record in storm.records if record.trouble]
    told = f"CORRAL_TEST_SEED={SEED}"
    assert lost == [], f"{told}: {len(lost)} lost:\n" + "\n".join(lost[:20])
    assert troubles == [], f"{told}: " + "\n".join(troubles[:20])
    assert left == [], told
    if quiet is not None:
        more = Counter(after[0].values()) - Counter(quiet[0].values())
        grown = len(after[0]) - len(quiet[0])
        assert grown <= GROWTH_DESCRIPTORS, f"{told}: {grown} descriptors more than the {len(quiet[0])} before: {more}"
        assert after[1] - quiet[1] <= GROWTH_BYTES, f"{told}: memory went from {quiet[1]} to {after[1]} bytes"


def _only(cases: list[Case]) -> list[Case]:
    wanted = {part.strip() for part in ONLY.split(",") if part.strip()}
    return [case for case in cases if wanted <= {case.kind.name, case.phase, case.side}]


async def _calm(world: World) -> tuple[dict[int, str], int]:
    """Descriptors, with what each leads to, and memory of the daemon when nobody asks anything."""
    world.clients.rest()
    await world.clients.settled(world.clients.of())
    await asyncio.sleep(KEPT_S)
    found = world.descriptors(), world.resident_bytes()
    world.clients.go_on()
    return found


async def _still_serves(world: World) -> None:
    world.clients.rest()
    await world.clients.settled(world.clients.of())
    for model in world.models:
        await world.answers(model, random.Random(0), 30)


def _tell(record: Record, of: int) -> None:
    def ms(value: float | None) -> str:
        return "     -" if value is None else f"{value * 1000:6.0f}"

    more = f"  {record.trouble}" if record.trouble else ""
    if record.lost:
        more += "\n    ".join(["", f"{len(record.lost)} LOST, such as {record.lost[0]}", *record.story])
    print(
        f"{record.case.number:3}/{of} {record.case.kind.name:28} {record.case.phase:7} {record.case.side}"
        f" noticed {ms(record.detected_s)} beyond {ms(record.beyond_s)} ready {ms(record.ready_s)} ms,"
        f" under way {record.hit:3} broken off {record.broken_off:2} refused {record.refused:3}"
        f" unanswered {record.unanswered:3} took {record.took_s:.1f} s{more}",
        flush=True,
    )


def _show(records: list[Record], clients: Clients, took_s: float, world: World) -> None:
    made = table.rows(records)
    engines = "embedded engine and llama-server" if world.llama_server else "embedded engine"
    about = (
        f"{len(records)} faults in {took_s / 60:.0f} minutes, seed {SEED}, {CONCURRENT} requests at a time, {engines}:"
        f" {clients.asked} requests, {clients.streams} of them streams; {clients.whole} whole,"
        f" {sum(each.end is End.BROKEN_OFF for each in clients.amiss)} ended with an error event,"
        f" {sum(each.end is End.REFUSED for each in clients.amiss)} refused with a reason,"
        f" {sum(each.end in (End.CUT, End.UNANSWERED) for each in clients.amiss)} without an answer because no daemon"
        f" lived, {sum(len(record.lost) for record in records)} lost; the longest took {clients.slowest_s:.1f} s"
    )
    print(f"\n{about}\n\n{table.plain(made)}")
    if RECORD:
        table.record(made, f"{about}. {machine()}, commit {commit()}")
