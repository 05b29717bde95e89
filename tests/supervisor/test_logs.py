"""Engines' logs: names, bounds, tails and followers."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config.paths import Paths
from corral.supervisor import logs
from support.engines import until

POLL_S = 0.002


@pytest.fixture
def log(paths: Paths) -> Path:
    return logs.prepare(paths, "m", 1)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def take(follower: AsyncIterator[bytes], lines: int) -> list[str]:
    """The next `lines` lines of a follower, which must not give more in the same chunk."""
    found: list[str] = []
    async with asyncio.timeout(10):
        while len(found) < lines:
            chunk = await anext(follower)
            assert chunk.endswith(b"\n"), "a chunk ends in the middle of a line"
            found += chunk.decode().splitlines()
    assert len(found) == lines
    return found


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=300), st.integers(1, 10**6))
def test_any_model_name_is_one_directory(name: str, generation: int) -> None:
    """Whatever a model is called, its logs are directly in a directory of its own under the logs' directory."""
    root = Path("/logs")
    paths = Paths(root, root, root, root, root)
    path = logs.log_file(paths, name, generation)
    assert path.parent.parent == paths.logs_dir
    assert path.name == f"{generation}.log"
    assert ".." not in path.parts
    assert len(os.fsencode(path.parent.name)) <= 255


def test_names_do_not_collide(paths: Paths) -> None:
    """Names that differ have directories that differ."""
    names = ["a/b", "a%2Fb", "a:b", "a b", "a_b", "A", ".", "..", "x" * 300, "x" * 301]
    assert len({logs.log_file(paths, name, 1) for name in names}) == len(names)


def test_prepare_makes_a_private_empty_file(paths: Paths) -> None:
    """A unit about to start finds an empty file that only this user may read."""
    path = logs.prepare(paths, "org/model:tag", 3)
    assert path == logs.log_file(paths, "org/model:tag", 3)
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_prepare_keeps_what_was_there(paths: Paths) -> None:
    """A file of the same generation from an earlier run is moved aside, not mixed with the new one."""
    append(logs.prepare(paths, "m", 1), "earlier\n")
    path = logs.prepare(paths, "m", 1)
    assert path.read_text() == ""
    assert path.with_name("1.log.1").read_text() == "earlier\n"


def test_old_generations_go(paths: Paths) -> None:
    """The five newest generations are kept, by number, and their count goes on from the highest."""
    assert logs.last_generation(paths, "m") == 0
    for generation in range(1, 13):
        append(logs.prepare(paths, "m", generation), f"{generation}\n")
    assert [path.name for path in logs.log_files(paths, "m")] == ["8.log", "9.log", "10.log", "11.log", "12.log"]
    assert logs.last_generation(paths, "m") == 12
    assert logs.log_files(paths, "never ran") == []


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        ("", 5, ""),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\nb\nunfinished", 2, "a\nb\n"),
        ("a\nb\n", 0, ""),
        ("\xff\xfe bytes\n", 1, "\xff\xfe bytes\n"),
    ],
)
def test_tail(log: Path, text: str, lines: int, expected: str) -> None:
    """The tail is the last whole lines."""
    append(log, text)
    assert logs.tail(log, lines) == expected


def test_tail_is_bounded(log: Path) -> None:
    """A tail takes no more than its bound in bytes, and begins with a whole line."""
    append(log, "".join(f"line {number:04}\n" for number in range(1000)))
    assert logs.tail(log, 1000, max_bytes=45) == "line 0996\nline 0997\nline 0998\nline 0999\n"


def test_tail_reaches_behind_a_rotation(log: Path) -> None:
    """Right after a rotation the tail still has the lines before it, one that was cut in two included."""
    append(log, "a\nb\nc1 ")
    assert logs.cap(log, max_bytes=4)
    append(log, "c2\nd\n")
    assert logs.tail(log, 3) == "b\nc1 c2\nd\n"


def test_tail_of_nothing(paths: Paths) -> None:
    """A log that does not exist has an empty tail."""
    assert logs.tail(paths.logs_dir / "no" / "1.log") == ""


def test_cap_leaves_small_files(log: Path) -> None:
    """A file within its bound is left as it is, and a missing one is no error."""
    append(log, "12345\n")
    assert not logs.cap(log, max_bytes=6)
    assert log.read_text() == "12345\n"
    assert not logs.cap(log.with_name("none.log"))


def test_cap_bounds_a_very_large_file(log: Path) -> None:
    """Of a file far over its bound only the end is kept, on disk and for readers."""
    append(log, "".join(f"line {number:06}\n" for number in range(100_000)))
    assert logs.cap(log, max_bytes=100_000)
    moved = log.with_name("1.log.1")
    assert log.stat().st_size == 0
    assert moved.stat().st_blocks * 512 <= 100_000 + 8192
    assert logs.tail(log, 2) == "line 099998\nline 099999\n"


async def test_live_files_are_kept_bounded(log: Path) -> None:
    """The task that watches live files caps those that grow over the bound, again and again."""
    watching = asyncio.create_task(logs.keep_bounded(lambda: [log.with_name("none.log"), log], 0.001, 1000))
    for _ in range(3):
        append(log, "line\n" * 300)
        await until(lambda: log.stat().st_size == 0, "the log to be capped")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert logs.tail(log, 1) == "line\n"


async def test_follow_gives_the_last_lines_then_what_comes(log: Path) -> None:
    """A follower starts with the last lines asked for; later ones come whole, however they are written."""
    append(log, "one\ntwo\nthr")
    async with aclosing(logs.follow(log, lines=1, poll_s=POLL_S)) as follower:
        assert await take(follower, 1) == ["two"]
        append(log, "ee\nfour\nfi")
        assert await take(follower, 2) == ["three", "four"]
        append(log, "ve\n")
        assert await take(follower, 1) == ["five"]


async def test_follow_waits_for_a_file(paths: Paths) -> None:
    """One can follow a model that never ran: its first lines come when it does."""
    async with aclosing(logs.follow(lambda: logs.log_files(paths, "m"), poll_s=POLL_S)) as follower:
        first = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        append(logs.prepare(paths, "m", 1), "hello\n")
        async with asyncio.timeout(10):
            assert await first == b"hello\n"


async def test_follow_goes_on_to_the_next_generation(paths: Paths) -> None:
    """When a new generation starts, the rest of the old one comes first, its unfinished last line too."""
    append(logs.prepare(paths, "m", 1), "old\n")
    async with aclosing(logs.follow(lambda: logs.log_files(paths, "m"), poll_s=POLL_S)) as follower:
        assert await take(follower, 1) == ["old"]
        append(logs.log_file(paths, "m", 1), "more\ncrash")
        append(logs.prepare(paths, "m", 2), "new\n")
        assert await take(follower, 1) + await take(follower, 1) + await take(follower, 1) == ["more", "crash", "new"]


async def test_follow_survives_a_restart_under_the_same_name(paths: Paths) -> None:
    """A file that is moved aside and made anew is followed from its beginning, after the rest of the old one."""
    log = logs.prepare(paths, "m", 1)
    async with aclosing(logs.follow(log, poll_s=POLL_S)) as follower:
        append(log, "a\n")
        assert await take(follower, 1) == ["a"]
        append(log, "b\n")
        append(logs.prepare(paths, "m", 1), "c\n")
        assert await take(follower, 1) + await take(follower, 1) == ["b", "c"]


async def test_follow_notices_a_file_that_others_cut(log: Path) -> None:
    """A file that somebody else truncates is followed from its new beginning."""
    append(log, "a\nb\n")
    async with aclosing(logs.follow(log, poll_s=POLL_S)) as follower:
        assert await take(follower, 2) == ["a", "b"]
        os.truncate(log, 0)
        append(log, "c\n")
        assert await take(follower, 1) == ["c"]


async def test_follow_cuts_endless_lines(log: Path) -> None:
    """A line without end does not grow a follower's memory: it comes in pieces."""
    append(log, "first\n")
    async with aclosing(logs.follow(log, poll_s=POLL_S)) as follower:
        assert await take(follower, 1) == ["first"]
        append(log, "x" * (3 * logs.MAX_LINE_BYTES))
        async with asyncio.timeout(10):
            assert len(await anext(follower)) <= 2 * logs.MAX_LINE_BYTES + 1


async def test_rotation_loses_and_tears_no_line(log: Path) -> None:
    """While a file is written in pieces and rotated again and again, a follower gets every line once, whole."""
    dice = random.Random(7)
    expected = [f"{number} " + "·" * dice.randrange(60) for number in range(800)]
    data = "".join(line + "\n" for line in expected).encode()
    found: list[str] = []

    async def read() -> None:
        async with aclosing(logs.follow(log, poll_s=0)) as follower:
            async for chunk in follower:
                assert chunk.endswith(b"\n")
                found.extend(chunk.decode().splitlines())
                if len(found) >= len(expected):
                    return

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    rotations = at = 0
    with log.open("ab", buffering=0) as file:
        while at < len(data):
            step = dice.randrange(1, 120)
            file.write(data[at : at + step])
            at += step
            rotations += logs.cap(log, max_bytes=1500)
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await reading
    assert rotations > 20
    assert found == expected


WRITER = """
import os, sys
for number in range(20000):
    os.write(1, b"%d\\n" % number)
"""


def test_rotation_under_a_running_writer(log: Path) -> None:
    """A process that appends meanwhile goes on at the new beginning: what is there afterwards are lines in order, and
    the file stays within its bound. Where a line was being written in the moment of a truncation, its end may be lost
    (a write over a page's end is seen in two parts): what was seen of it then stands before the next line."""
    with log.open("ab") as file:
        writer = subprocess.Popen([sys.executable, "-S", "-c", WRITER], stdout=file)
    rotations = 0
    while writer.poll() is None:
        rotations += logs.cap(log, 4000)
    assert writer.returncode == 0
    assert rotations
    # What is written in the moment of a truncation may be lost, the writer's last line too.
    with log.open("ab") as file:
        file.write(b"20000\n")
    logs.cap(log, 4000)
    numbers = [int(line) for line in logs.tail(log, 300).splitlines()]
    assert numbers[-1] == 20000
    whole = [number for number in numbers if number <= 20000]
    assert whole == sorted(whole)
    assert len(numbers) - len(whole) <= 2  # the tail is made from two files: at most so many truncations are in it
    assert log.stat().st_size <= 4000
