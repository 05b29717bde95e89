"""A pull that is killed without warning loses no finished chunk and leaves nothing wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.models.fetching.chunks import MISSING
from corral.models.fetching.downloads import Downloads
from corral.store.partial import stem
from corral.store.store import Store
from models.fetching import CHUNK, QUICK, World, world
from support import puller
from support.faulty_registry import Fault, noise

KILLS = int(os.environ.get("CORRAL_TEST_KILLS", "4"))
"""How many moments are tried; `make chaos` tries 200."""
SEED = int(os.environ.get("CORRAL_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
LAYERS = (noise(24 * CHUNK + 11, 1), noise(9 * CHUNK, 2), noise(300, 3))
NAME = "ai/killed"


@contextmanager
def pulling(here: World) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun to pull."""
    command = [sys.executable, puller.__file__, str(here.store.root), here.registry.host, NAME, str(CHUNK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"pulling\n"
            yield process
        finally:
            process.kill()


def finished_chunks(store: Store) -> dict[str, list[int]]:
    """By blob, the chunks that are on record as finished."""
    found = {}
    for layer in LAYERS:
        digest = digest_of(layer)
        if store.find(digest) is not None:
            found[digest] = list(range(-(-len(layer) // CHUNK)))
            continue
        record = store.layout.partial / f"{stem(digest)}.state"
        if record.exists():
            header, _, states = record.read_bytes().partition(b"\n")
            assert json.loads(header)["content"]["digest"] == digest
            found[digest] = [index for index, state in enumerate(states) if state != MISSING]
    return found


def sent_again(here: World, finished: dict[str, list[int]]) -> list[tuple[str, int]]:
    """Finished chunks of which the registry has sent a byte since."""
    again = []
    for digest, chunks in finished.items():
        for first, count in here.registry.sent_of(digest):
            again += [
                (digest, index) for index in chunks if first < (index + 1) * CHUNK and index * CHUNK < first + count
            ]
    return again


def settled(here: World) -> None:
    """Waits until the registry has noticed that its client is dead, and forgets what it has sent so far."""
    deadline = time.monotonic() + 10
    while any(not each.over for each in list(here.registry.asked)) and time.monotonic() < deadline:
        time.sleep(0.002)
    here.registry.asked.clear()


@pytest.mark.timeout(max(120, KILLS * 4))
def test_a_pull_killed_at_any_moment_goes_on(short_tmp: Path) -> None:
    """After kill -9 a new run completes, no finished chunk is sent again, and every byte of the store is right."""
    chance = random.Random(SEED)
    with world(short_tmp) as here:
        here.registry.model(NAME, *LAYERS)
        here.registry.faults.append(Fault(times=-1, pace_s=0.02))
        with pulling(here) as process:
            began = time.monotonic()
            assert process.wait() == 0
        whole_s = time.monotonic() - began
        for number in range(KILLS):
            here.store = Store(short_tmp / f"m{number}")
            # Half of them towards the end, where files become blobs and the name is set.
            moment_s = chance.uniform(0, whole_s) if number % 2 else chance.uniform(0.6 * whole_s, 1.1 * whole_s)
            told = f"CORRAL_TEST_SEED={SEED}, kill {number} after {moment_s:.4f} s of {whole_s:.2f} s"
            with pulling(here) as process:
                try:
                    process.wait(moment_s)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            settled(here)
            assert all(damage.names == () for damage in here.store.verify()), told
            finished = finished_chunks(here.store)
            complete(here, told)
            assert sent_again(here, finished) == [], told


def complete(here: World, told: str) -> None:
    """Goes on as a new process would, to the end, and looks at all of it."""
    downloads = Downloads(here.store, {"oci": here.source}, how=QUICK)
    try:
        downloads.resume_all()
        view = downloads.wait(downloads.start(here.ref(NAME)).id, 60)
    finally:
        downloads.close()
    assert (view.state, view.error) == ("done", None), told
    for layer in LAYERS:
        assert here.store.blob(digest_of(layer)).path.read_bytes() == layer, told
    assert here.store.verify() == [], told
    assert here.store.partials() == [], told
    assert [each.name for each in here.store.names()] == [view.name], told
