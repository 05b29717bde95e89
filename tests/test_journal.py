"""Events on disk."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import journal
from corral.api import EventInfo
from corral.events import EventLog
from corral.journal import Journal
from support.engines import until


def entry(seq: int, kind: str = "unit.state", model: str | None = "m", **data: object) -> EventInfo:
    return EventInfo(seq, 1000.0 + seq, kind, model, f"{model}.1" if model else None, f"event {seq}", data)


@asynccontextmanager
async def running(kept: Journal) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    """Entries come back whole and in order, for this user only."""
    kept = Journal(tmp_path)
    given_in = [entry(1), entry(2, "server.ready", None, pid=7), entry(3, why="ünïcode\n")]
    for each in given_in:
        kept.take(each)
    assert await kept.flush()
    assert list(journal.read(tmp_path)) == given_in == journal.last(tmp_path)
    assert stat.S_IMODE((tmp_path / "events.jsonl").stat().st_mode) == 0o600


async def test_it_is_written_within_a_second_and_at_once_when_something_went_wrong(tmp_path: Path) -> None:
    """Nobody has to ask for it; a crash does not wait for the second to be over."""
    kept = Journal(tmp_path)
    async with running(kept):
        kept.take(entry(1))
        await until(lambda: len(list(journal.read(tmp_path))) == 1, "the first entry on disk")
        kept.take(entry(2, after="backoff"))
        assert journal.went_wrong(entry(2, after="backoff")) and not journal.went_wrong(entry(1))
        await until(lambda: len(list(journal.read(tmp_path))) == 2, "the crash on disk")


async def test_what_was_begun_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that had begun when the journal's task was cancelled is waited for by the next flush: it is there
    when a server that takes over reads it."""
    kept, may_write, begun = Journal(tmp_path), threading.Event(), threading.Event()
    write = Journal._write

    def slow(self: Journal, batch: list[EventInfo]) -> None:
        begun.set()
        may_write.wait(10)
        write(self, batch)

    monkeypatch.setattr(Journal, "_write", slow)
    async with running(kept):
        kept.take(entry(1, "server.ending", None))
        await until(begun.is_set, "the write to begin")
    flushing = asyncio.create_task(kept.flush())
    await asyncio.sleep(0.01)
    assert not flushing.done()
    may_write.set()
    assert await flushing
    assert [each.seq for each in journal.read(tmp_path)] == [1]


async def test_its_size_is_bounded(tmp_path: Path) -> None:
    """A full file is put aside, the one put aside before goes, and the newest entries are always there."""
    kept = Journal(tmp_path, max_bytes=2000)
    for seq in range(1, 200):
        kept.take(entry(seq))
        await kept.flush()
    sizes = [file.stat().st_size for file in journal.files(tmp_path)]
    assert set(journal.files(tmp_path)) == set(tmp_path.iterdir()) and sum(sizes) <= 2 * 2200  # noqa: ASYNC240
    found = [each.seq for each in journal.read(tmp_path)]
    assert found == list(range(found[0], 200))
    assert journal.last(tmp_path)[-1].seq == 199


async def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    """What was cut is skipped, and what is written after it is not spoilt."""
    kept = Journal(tmp_path)
    kept.take(entry(1))
    await kept.flush()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"seq": 2, "wall_s": 10')
    kept = Journal(tmp_path)
    kept.take(entry(3))
    await kept.flush()
    assert [each.seq for each in journal.read(tmp_path)] == [1, 3]


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.just(b'{"seq": 1}'), st.just(b"[1]"), st.just(b"null")), max_size=9)
)
def test_any_damage_is_left_out(lines: list[bytes]) -> None:
    """Whatever is in the file, reading it raises nothing and gives what is right."""
    assert all(journal._entry(line) is None for line in lines)


async def test_a_disk_that_takes_nothing_loses_nothing(tmp_path: Path) -> None:
    """It is said once, entries wait, and they are written when the disk takes them again."""
    said: list[str] = []
    directory = tmp_path / "gone"
    kept = Journal(directory, say=said.append)
    kept.take(entry(1))
    assert not await kept.flush()
    kept.take(entry(2))
    assert not await kept.flush()
    assert len(said) == 1 and "events.jsonl" in said[0]
    directory.mkdir()
    assert await kept.flush()
    assert [each.seq for each in journal.read(directory)] == [1, 2]


async def test_many_refusals_do_not_push_out_the_rest(tmp_path: Path) -> None:
    """Of refusals that say the same, one in ten seconds is kept."""
    kept = Journal(tmp_path)
    for seq in range(1, 1000):
        kept.take(entry(seq, "request.refused", code="queue_full"))
    kept.take(entry(1000, "request.refused", code="deadline_passed"))
    await kept.flush()
    assert [each.seq for each in journal.read(tmp_path)] == [1, 1000]


async def test_reading_about_one_model(tmp_path: Path) -> None:
    """Only what names it is read, and what the server did."""
    kept = Journal(tmp_path)
    kept.take(entry(1, model="gemma"))
    kept.take(entry(2, model="other"))
    kept.take(entry(3, "scheduler.stop", "other", why="making room for gemma"))
    kept.take(EventInfo(4, 0.0, "server.ending", None, None, "ending: SIGTERM"))
    await kept.flush()
    assert [each.seq for each in journal.read(tmp_path, about="gemma")] == [1, 3, 4]


def test_no_number_is_given_out_twice() -> None:
    """After an end in order the count goes on; after another it leaves out what may have been given out unwritten."""
    assert journal.next_number([]) == 1
    assert journal.next_number([entry(41), entry(42, "server.ended", None)]) == 43
    assert journal.next_number([entry(41), entry(42)]) == 1001
    assert journal.next_number([entry(1000)]) == 2001


def test_an_event_log_goes_on() -> None:
    """Entries of an earlier daemon are there, below the new ones, with a gap in the numbers where one may be."""
    log = EventLog()
    log.resume([entry(41), entry(42)], 1001)
    kept: list[EventInfo] = []
    log.keep = kept.append
    new = log.post("unit.state", "new", model="m")
    assert new.seq == log.last_seq == 1001 and kept == [new]
    assert [each.seq for each in log.since()] == [41, 42, 1001]
    assert [each.seq for each in log.since(41)] == [42, 1001]
    assert [each.seq for each in log.since(500, model="m")] == [1001]
    assert log.since(1001) == []


async def test_lines_are_plain_json(tmp_path: Path) -> None:
    """Each line is one object with the fields of the wire type, for anybody's tools."""
    kept = Journal(tmp_path)
    kept.take(entry(1, path=os.fspath(tmp_path)))
    await kept.flush()
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"seq", "wall_s", "kind", "model", "unit", "text", "data"}
