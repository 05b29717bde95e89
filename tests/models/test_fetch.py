"""Fetching one blob from a server that is not always good."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.errors import DigestMismatch, DiskFull, NotInRegistry, RateLimited, RegistryError, Unavailable
from corral.models.fetching import following, past_cache, worker
from corral.models.fetching.chunks import SYNCED, WRITTEN
from corral.models.fetching.control import Control, Limit, Stopped, Why
from corral.models.fetching.fetch import Fetching, fetch_blob
from corral.registry.source import RemoteBlob
from models.fetching import CHUNK, QUICK, World, world
from support.faulty_registry import Fault, noise

SIZE = 20 * CHUNK + 12345


@pytest.fixture(params=["by the page cache", "past it"])
def here(request: pytest.FixtureRequest, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Everything holds for slow and fast downloads alike."""
    if request.param == "past it":
        monkeypatch.setattr(worker, "GIGABIT_BYTES_PER_S", 0.0)
        monkeypatch.setattr(worker, "LOOK_BYTES", 1)
        monkeypatch.setattr(worker, "LARGE_BYTES", CHUNK)
    with world(short_tmp) as made:
        yield made


def fetch(
    here: World,
    blob: RemoteBlob,
    *,
    control: Control | None = None,
    how: Fetching = QUICK,
    notes: list[str] | None = None,
) -> bytes:
    """The content of `blob` as it came to be in the store."""
    with here.store.partial(blob.digest or "nameless", blob.size) as partial:
        digest = fetch_blob(
            partial, blob, control=control or Control(), how=how, on_note=(notes if notes is not None else []).append
        )
        assert blob.digest in (None, digest)
        return partial.finish(digest).path.read_bytes()


def overlap(ranges: list[tuple[int, int]]) -> int:
    """How many bytes were sent more than once."""
    again, end = 0, 0
    for first, count in sorted(ranges):
        again += max(0, min(end, first + count) - first)
        end = max(end, first + count)
    return again


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, SIZE])
def test_content_of_any_size_comes_whole_and_no_byte_twice(here: World, size: int) -> None:
    """A blob comes as it is, whatever its size, and each byte is sent once."""
    content = noise(size)
    blob = here.blob(content)
    assert fetch(here, blob) == content
    assert overlap(here.registry.sent_of(digest_of(content))) == 0


def test_large_blobs_come_in_parallel_ranges(here: World) -> None:
    """Several connections share a blob."""
    content = noise(SIZE)
    here.registry.faults.append(Fault(times=-1, pace_s=0.01))
    assert fetch(here, here.blob(content)) == content
    assert here.registry.most_sending >= 2
    assert overlap(here.registry.sent_of(digest_of(content))) == 0


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each length that is written past the page cache, in a fast download over one connection."""
    lengths: list[int] = []
    write = past_cache.PastCache.write

    def watched(self: past_cache.PastCache, position: int, data: memoryview) -> int:
        lengths.append(write(self, position, data))
        return lengths[-1]

    monkeypatch.setattr(past_cache.PastCache, "write", watched)
    monkeypatch.setattr(worker, "GIGABIT_BYTES_PER_S", 0.0)
    monkeypatch.setattr(worker, "LOOK_BYTES", 1)
    monkeypatch.setattr(worker, "LARGE_BYTES", CHUNK)
    return lengths


def test_a_fast_download_is_written_past_the_page_cache_and_hashed_from_memory(
    short_tmp: Path, past: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first step and what is no multiple of a page; nothing of it is read back to be hashed."""
    read: list[int] = []
    hand = following.Hasher.hand

    def watched(self: following.Hasher, handed: following.Handed) -> None:
        read.append(len(handed.data))
        hand(self, handed)

    monkeypatch.setattr(following.Hasher, "hand", watched)
    with world(short_tmp) as here:
        (short_tmp / "any").touch()
        with closing(past_cache.PastCache(short_tmp / "any")) as found:
            if not found.works:
                pytest.skip("this file system takes no writes past the page cache")
        content = noise(SIZE)
        assert fetch(here, here.blob(content), how=replace(QUICK, connections=1)) == content
    assert SIZE - 2 * CHUNK < sum(past) <= sum(read) < SIZE


def test_a_file_system_that_turns_out_to_take_no_such_writes_is_written_by_the_cache(
    short_tmp: Path, past: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening worked and the first write did not: the same bytes go the common way, and it is not tried again."""
    pwrite, refused = os.pwrite, []

    def picky(fd: int, data: memoryview, position: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0):
            refused.append(position)
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "pwrite", picky)
    content = noise(SIZE)
    with world(short_tmp) as here:
        assert fetch(here, here.blob(content), how=replace(QUICK, connections=1)) == content
    assert sum(past) == 0
    assert len(refused) <= 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(times=5, cut_after=CHUNK // 2 + 7), "broke off"),
        (Fault(times=2, stall_after=100), "sent nothing"),
        (Fault(times=4, status=500), "500"),
        (Fault(times=2, status=429, headers={"Retry-After": "0"}), "429|requests|limit"),
        (Fault(times=2, shift=5), "range"),
        (Fault(times=1, status=403), "403"),
        (Fault(times=1, status=404), "404|not"),
        (Fault(times=2, lie=9), "promised"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str({k: v for k, v in vars(value).items() if v})[:40],
)
def test_a_fault_is_gone_past_and_said(here: World, fault: Fault, said: str) -> None:
    """What a server does wrong some times is tried again, and whoever watches is told."""
    content, notes = noise(SIZE), list[str]()
    blob = here.blob(content)
    fault = replace(fault)  # it counts down
    here.registry.faults.append(fault)
    assert fetch(here, blob, notes=notes) == content
    assert notes
    assert fault.times == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(times=-1, status=503), Unavailable),
        (Fault(times=-1, status=429), RateLimited),
        (Fault(times=-1, status=404), NotInRegistry),
        (Fault(times=-1, lie=9), DigestMismatch),
        (Fault(times=-1, status=429, headers={"Retry-After": "3000"}), RateLimited),
        (Fault(times=-1, cut_after=1), RegistryError),
    ],
    ids=["503", "429", "404", "lies", "too long to wait", "a byte and no more"],
)
def test_a_fault_that_stays_ends_it(here: World, fault: Fault, error: type[Exception]) -> None:
    """A server that makes no progress possible is given up after a bounded number of tries."""
    blob = here.blob(noise(SIZE))
    fault = replace(fault)  # it counts down
    here.registry.faults.append(fault)
    with pytest.raises(error) as raised:
        fetch(here, blob)
    assert getattr(raised.value, "hint", "")
    assert len(here.registry.asked) < 60


def test_what_a_failed_run_has_is_not_fetched_again(here: World) -> None:
    """After a failure the next run fetches only what is missing."""
    content = noise(SIZE)
    blob = here.blob(content)
    asked = threading.Event()
    here.registry.faults += [Fault(times=4), Fault(times=-1, status=503, then=asked.set)]
    with pytest.raises(Unavailable):
        fetch(here, blob)
    here.registry.faults.clear()
    before = sum(count for _, count in here.registry.sent_of(digest_of(content)))
    assert before >= 4 * CHUNK
    assert fetch(here, blob) == content
    assert overlap(here.registry.sent_of(digest_of(content))) == 0


def test_a_server_without_ranges_gives_the_whole(here: World) -> None:
    """A server that ignores Range is read in one go, by one connection."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.faults.append(Fault(times=-1, whole=True))
    assert fetch(here, blob) == content


def test_a_server_that_forgets_about_ranges_midway(here: World) -> None:
    """Ranges that end being served midway lose nothing that is there."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.faults += [Fault(times=4), Fault(times=-1, whole=True)]
    assert fetch(here, blob) == content


def test_a_server_without_ranges_that_breaks_off(here: World) -> None:
    """Without ranges the next try reads from the start again and still ends."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.faults += [
        Fault(times=1, whole=True, cut_after=6 * CHUNK),
        Fault(times=1, whole=True, cut_after=12 * CHUNK),
        Fault(times=-1, whole=True),
    ]
    assert fetch(here, blob) == content


def test_redirects_to_signed_addresses_are_made_anew(here: World) -> None:
    """Each request is redirected to an address that is good once; none is used again."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.cdn = True
    assert fetch(here, blob) == content


def test_a_token_that_expires_midway_is_renewed(here: World) -> None:
    """A token good for two requests does not end the download."""
    content = noise(SIZE)
    here.registry.token_uses = 2
    blob = here.blob(content)
    assert fetch(here, blob) == content
    assert here.registry.made > 1


def test_content_that_changed_midway_is_fetched_anew(here: World) -> None:
    """Bytes of other content under the same digest are found out, and the blob is fetched once more."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.faults.append(Fault(times=2, content=noise(SIZE, seed=1)))
    assert fetch(here, blob) == content


def test_content_that_is_always_wrong_is_refused(here: World) -> None:
    """Content that does not have its digest never gets into the store, and nothing of it is kept."""
    blob = here.blob(noise(SIZE))
    here.registry.faults.append(Fault(times=-1, content=noise(SIZE, seed=1)))
    with pytest.raises(DigestMismatch):
        fetch(here, blob)
    assert here.store.find(blob.digest or "") is None
    assert sum(each.bytes for each in here.store.partials()) == 0


def test_a_file_without_a_digest_goes_on_by_its_etag(here: World) -> None:
    """Without a digest, the same ETag and size make it the same file."""
    content = noise(SIZE)
    blob = here.nameless(here.blob(content), etag='"a"', size=SIZE)
    here.registry.faults += [Fault(times=4), Fault(times=-1, status=503)]
    with pytest.raises(Unavailable):
        fetch(here, blob)
    here.registry.faults.clear()
    assert fetch(here, blob) == content
    assert overlap(here.registry.sent_of(digest_of(content))) == 0


def test_a_file_without_digest_and_etag_starts_anew(here: World) -> None:
    """What cannot be known to be the same is not gone on with."""
    content = noise(SIZE)
    blob = here.nameless(here.blob(content), size=SIZE)
    here.registry.faults += [Fault(times=4), Fault(times=-1, status=503)]
    with pytest.raises(Unavailable):
        fetch(here, blob)
    here.registry.faults.clear()
    here.registry.asked.clear()
    assert fetch(here, blob) == content
    assert sum(count for _, count in here.registry.sent_of(digest_of(content))) == SIZE


def test_a_file_of_another_size_than_resolved_has_changed(here: World) -> None:
    """A file without a digest whose size is another one now has to be resolved again."""
    blob = here.nameless(here.blob(noise(SIZE)), etag='"a"', size=SIZE - 1)
    with pytest.raises(DigestMismatch) as raised:
        fetch(here, blob)
    assert raised.value.details["changed"]


@pytest.mark.parametrize("fault", [Fault(times=-1), Fault(times=-1, whole=True), Fault(times=-1, no_length=True)])
def test_a_file_of_unknown_size(here: World, fault: Fault) -> None:
    """A file whose size nobody told comes whole, whether the server says it on asking or never."""
    content = noise(SIZE)
    blob = here.nameless(here.blob(content))
    fault = replace(fault)  # it counts down
    here.registry.faults.append(fault)
    assert fetch(here, blob) == content


def test_a_full_disk_is_seen_before_anything_is_fetched(here: World) -> None:
    """Space is looked at first; the error says how much is needed and how much is free."""
    blob = here.blob(noise(SIZE))
    with pytest.raises(DiskFull) as raised:
        fetch(here, blob, how=replace(QUICK, free=lambda path: SIZE - 1))
    assert raised.value.details["needed_bytes"] == SIZE
    assert not here.registry.sent_of(blob.digest or "")


def test_a_disk_that_becomes_full_midway_leaves_what_can_be_gone_on_with(here: World) -> None:
    """Bytes that the disk does not take end the download with the reason; the chunks before them are not lost."""
    content = noise(SIZE)
    blob = here.blob(content)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 * CHUNK, before[1]))
    try:
        with pytest.raises(DiskFull):
            fetch(here, blob, how=replace(QUICK, connections=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    here.registry.asked.clear()
    assert fetch(here, blob) == content
    assert min(first for first, _ in here.registry.sent_of(digest_of(content))) >= 8 * CHUNK


@pytest.mark.parametrize("why", ["paused", "cancelled", "closing"])
def test_stopping_is_prompt_and_keeps_what_is_there(here: World, why: Why) -> None:
    """A download that is told to stop while the server stalls stops, and its whole chunks stay."""
    content = noise(SIZE)
    blob = here.blob(content)
    control, stalled = Control(), threading.Event()
    here.registry.faults += [Fault(times=3), Fault(times=-1, stall_after=0, then=stalled.set)]

    def stop_it() -> None:
        stalled.wait(20)
        control.stop(why)

    stop = threading.Thread(target=stop_it)
    stop.start()
    with pytest.raises(Stopped) as raised:
        fetch(here, blob, control=control)
    stop.join()
    assert raised.value.why == why
    here.registry.faults.clear()
    here.registry.asked.clear()
    assert fetch(here, blob) == content
    assert sum(count for _, count in here.registry.sent_of(digest_of(content))) < SIZE


def test_a_limit_is_kept_evenly() -> None:
    """Bytes beyond the limit are waited for, and small ones are let through at once."""
    limit = Limit(1000.0)
    assert limit.book(50) == 0.0 or limit.book(0) <= 0.05
    assert limit.book(1000) == pytest.approx(1.0, abs=0.2)
    assert Control(limit).grain(1 << 20) == 100


def test_chunks_are_on_record_as_they_come(here: World) -> None:
    """Every whole chunk is in the record beside the file, and nothing that is not there."""
    content = noise(SIZE)
    blob = here.blob(content)
    here.registry.faults += [Fault(times=4), Fault(times=-1, status=503)]
    with pytest.raises(Unavailable):
        fetch(here, blob)
    with here.store.partial(blob.digest or "", SIZE) as partial:
        states = partial.state_path.read_bytes().split(b"\n", 1)[1]
        data = partial.path.read_bytes()
    whole = [index for index, state in enumerate(states) if state in (WRITTEN, SYNCED)]
    assert whole
    for index in whole:
        assert data[index * CHUNK : (index + 1) * CHUNK] == content[index * CHUNK : (index + 1) * CHUNK]
