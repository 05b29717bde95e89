"""Files pulled into the page cache ahead of an engine that will read them."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.supervisor import prefetch
from corral.supervisor.prefetch import Prefetch
from corral.supervisor.resident import seen_in_cache

SIZE = 24 << 20
pytestmark = pytest.mark.skipif(not prefetch.supported(), reason="this system cannot be asked to read ahead")


@pytest.fixture
def file(short_tmp: Path) -> Iterator[Path]:
    """A file that is on disk and not in the page cache."""
    with tempfile.NamedTemporaryFile(dir=short_tmp) as made:
        made.write(os.urandom(1 << 20) * (SIZE >> 20))
        made.flush()
        os.fsync(made.fileno())
        os.posix_fadvise(made.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if cached(Path(made.name)):
            pytest.skip("this file system keeps its files in memory")
        yield Path(made.name)


def cached(file: Path) -> int:
    """How many of the file's mebibytes have their first byte in the page cache."""
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), flags) == 0
        gc.collect()  # the view of the mapping that `from_buffer` made
    return sum(flag & 1 for flag in flags[:: (1 << 20) // mmap.PAGESIZE])


def test_all_of_it(file: Path) -> None:
    """A file is wholly in the page cache in the end, and a second run has little to ask for."""
    assert Prefetch([file]).run() == SIZE
    with file.open("rb") as content:
        assert len(content.read()) == SIZE
    assert cached(file) == SIZE >> 20
    assert Prefetch([file]).run() == SIZE


def test_a_file_of_which_a_little_is_there(file: Path) -> None:
    """A page here and there in the cache does not make the rest count as read."""
    with file.open("rb", buffering=0) as content:
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, SIZE, 2 << 20):
            os.pread(content.fileno(), 1, at)
    assert cached(file) < SIZE >> 20
    assert Prefetch([file]).run() == SIZE
    deadline = time.monotonic() + 30
    while cached(file) < SIZE >> 20 and time.monotonic() < deadline:
        time.sleep(0.01)  # the last of it was asked for, and the disk is not quite there
    assert cached(file) == SIZE >> 20


def test_looking_reads_nothing(file: Path) -> None:
    """Whether a page is in the cache is told as it is, and no page comes in for the question."""
    with file.open("rb", buffering=0) as content:
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(content.fileno(), 1, 8 << 20)
        with seen_in_cache(content.fileno()) as told:
            assert [told(at << 20) for at in range(SIZE >> 20)] == [at == 8 for at in range(SIZE >> 20)]
            assert told((8 << 20) + 1)
    assert cached(file) == 1


def test_no_more_than_there_is_room_for(file: Path) -> None:
    """What is available beyond the reserve bounds it; with less than the reserve nothing is read."""
    room = prefetch.RESERVE_BYTES + (4 << 20)
    assert Prefetch([file], lambda: room).run() == 4 << 20
    assert cached(file) <= 6  # the system's own read-ahead may go a little beyond
    assert Prefetch([file], lambda: prefetch.RESERVE_BYTES - 1).run() == 0


def test_cancelled_before_it_began(file: Path) -> None:
    """A cancelled run reads nothing."""
    work = Prefetch([file])
    work.cancel()
    assert work.run() == 0
    assert cached(file) == 0


def test_cancelled_on_the_way(file: Path) -> None:
    """A run that is cancelled stops at its next step."""

    def available() -> int:
        work.cancel()
        return 1 << 40

    work = Prefetch([file], available)
    assert work.run() <= prefetch.STEP_BYTES


def test_what_cannot_be_read(file: Path) -> None:
    """A file that is missing is skipped: the engine will say so in its own words."""
    assert Prefetch([Path("/nowhere/model.gguf"), file]).run() == SIZE


def test_memory_is_this_machines() -> None:
    """Without a figure of the test's own, the machine's available memory counts, control groups included."""
    assert sys.platform.startswith("linux")
    assert Prefetch([])._available() > 0
