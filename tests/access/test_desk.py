"""The desk: what is written when, and what a crash, a full disk or a successor finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.access.book import Book, has_keys
from corral.access.desk import Desk
from corral.access.figures import Slab, UsageKey, Used
from corral.access.keys import Key, Limits
from corral.access.sizes import Size
from corral.errors import CallerError, NoSuchKey, StoreError


@asynccontextmanager
async def running(path: Path, warned: list[str] | None = None) -> AsyncIterator[Desk]:
    """A desk whose task runs; left as a killed server leaves it, unless it is closed."""
    desk = Desk(path, (warned if warned is not None else []).append)
    await desk.open()
    task = asyncio.create_task(desk.run())
    try:
        yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def spend(desk: Desk, key: Key, reserve: int, take: int) -> None:
    account, admission, saved = desk.admit(key, Size(reserve, 0))
    if saved is not None:
        await saved
    account.settle(admission, take)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.db"


def spent(path: Path, key: Key) -> int:
    book = Book(path)
    try:
        return max(book.spent().get(key.id, {}).values(), default=0)
    finally:
        book.close()


async def test_nothing_runs_before_it_is_written_down(path: Path) -> None:
    """When a reservation may run, the book has it; most need no writing of their own."""
    async with running(path) as desk:
        key = (await desk.create("k", ["infer"], [], Limits(tokens_per_day=32_000), None)).key
        waits = 0
        for _ in range(100):
            account, admission, saved = desk.admit(key, Size(100, 0))
            if saved is not None:
                waits += 1
                await saved
            (budget,) = account.budgets
            assert spent(path, key) >= budget.used + budget.held
            account.settle(admission, 100)
            await asyncio.sleep(0)
        assert 1 <= waits <= 60
        await desk.close()
    assert spent(path, key) == 10_000


async def test_a_killed_server_has_counted_too_much_at_most(path: Path) -> None:
    """One that is not closed leaves the slab that it was in; the next goes on from there, and never lets the limit be
    passed."""
    limit, real = 3200, 0
    for _ in range(6):
        async with running(path) as desk:
            key = next(iter(desk.keys.values()), None)
            if key is None:
                key = (await desk.create("k", ["infer"], [], Limits(tokens_per_month=limit), None)).key
            for _ in range(10):
                try:
                    await spend(desk, key, 60, 50)
                    real += 50
                except CallerError:
                    break
            assert desk._book is not None
            desk._book.close()
        assert real <= spent(path, key) <= limit


async def test_many_at_once_wait_for_few_writes(path: Path) -> None:
    """Two hundred that come together are let go together, and a waiting one that leaves holds up nobody."""
    async with running(path) as desk:
        key = (await desk.create("k", ["infer"], [], Limits(tokens_per_day=10**6), None)).key
        leaving = asyncio.create_task(spend(desk, key, 10, 0))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(*(spend(desk, key, 100, 70) for _ in range(200)))
        assert desk.taken(key).day == 200 * 70 + 10
        await desk.close()


async def test_a_full_disk_is_told_and_lets_nothing_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would need the write gets an error; usage is kept in memory for later, and all is well once it is."""
    warned: list[str] = []
    async with running(path, warned) as desk:
        key = (await desk.create("k", ["infer"], [], Limits(tokens_per_day=10**6), None)).key
        book = desk._book
        assert book is not None
        write = book.write
        monkeypatch.setattr(book, "write", _full)
        desk.used("", "m", 1, 2)
        for _ in range(2):
            with pytest.raises(StoreError):
                await spend(desk, key, 100, 70)
        assert len(warned) == 1 and "cannot be written" in warned[0]
        monkeypatch.setattr(book, "write", write)
        await spend(desk, key, 100, 70)
        assert await desk.usage() == {UsageKey(desk._day(), "", "m"): Used(1, 1, 2)}
        await desk.close()


def _full(*_: object) -> None:
    raise StoreError("no room", hint="make some")


async def test_a_successor_goes_on_and_is_not_overwritten(path: Path) -> None:
    """A server that hands over leaves its slab; what it writes at last does not lower what the next has spent."""
    async with running(path) as old:
        key = (await old.create("k", ["infer"], [], Limits(tokens_per_day=3200), None)).key
        account, admission, saved = old.admit(key, Size(50, 0))
        assert saved is not None
        await saved
        old.used(key.id, "m", 1, 1)
        await old.flush()
        async with running(path) as new:
            assert new.taken(key).day == spent(path, key) > 50
            await spend(new, key, 500, 500)
            account.settle(admission, 50)
            old.used(key.id, "m", 1, 1)
            await old.close(last=False)
            assert spent(path, key) >= 550
            assert sum(each.requests for each in (await new.usage()).values()) == 2
            await new.close()


async def test_names_and_ids(path: Path) -> None:
    """A name is enough while one key that counts has it."""
    async with running(path) as desk:
        first = (await desk.create("a", ["infer"], [], Limits(), None)).key
        assert (await desk.rotate("a", 0.0)).key.id == first.id
        second = (await desk.create("a", ["infer"], [], Limits(), None)).key
        with pytest.raises(CallerError, match="2 keys are named 'a'"):
            await desk.revoke("a")
        assert (await desk.revoke(first.id)).id == first.id
        assert (await desk.revoke("a")).id == second.id
        with pytest.raises(CallerError, match="was revoked"):
            await desk.rotate(second.id, 0.0)
        with pytest.raises(NoSuchKey):
            await desk.revoke("b")
        await desk.close()
    assert not has_keys(path)


async def test_what_another_process_wrote_is_taken_up(path: Path) -> None:
    """On reload: keys made by a command that saw no server."""
    async with running(path) as desk, running(path) as other:
        key = (await other.create("k", ["infer"], [], Limits(), None)).key
        assert desk.keys == {}
        await desk.reload()
        assert desk.keys == {key.id: key}
        assert has_keys(path)
        await other.close()
        await desk.close()


def test_the_book_is_of_this_user_and_never_goes_back(path: Path) -> None:
    """Mode 600; what is spent only rises, except where its writer gives back what it knows to be unused."""
    book = Book(path)
    assert path.stat().st_mode & 0o777 == 0o600
    book.write([Slab("k", "2026-11", 100)], {})
    book.write([Slab("k", "2026-11", 60)], {})
    assert book.spent() == {"k": {"2026-11": 100}}
    book.give_back([(Slab("k", "2026-11", 90), 10)])
    assert book.spent() == {"k": {"2026-11": 100}}
    book.give_back([(Slab("k", "2026-11", 100), 10)])
    assert book.spent() == {"k": {"2026-11": 10}}
    book.write([], {UsageKey("2026-11-21", "k", "m"): Used(1, 2, 3)})
    book.write([], {UsageKey("2026-11-21", "k", "m"): Used(1, 2, 3), UsageKey("2026-11-22", "", "m"): Used(1, 1, 1)})
    assert book.usage(key="k") == {UsageKey("2026-11-21", "k", "m"): Used(2, 4, 6)}
    assert list(book.usage("2026-11-22")) == [UsageKey("2026-11-22", "", "m")]
    book.close()


def test_a_file_that_is_none_is_left_alone(path: Path) -> None:
    """It is told, and nothing of it is lost."""
    path.write_text("this is no database, and somebody may want it back" * 100)
    with pytest.raises(StoreError):
        Book(path)
    assert path.read_text().startswith("this is no database")


async def test_what_each_key_used_since_the_start_only_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written down or not, while it is being written, and when that fails."""
    async with running(path) as desk:
        desk.used("a", "m", 10, 5)
        desk.used("a", "other", 1, 1)
        desk.used("", "m", 2, 2)
        told = {"a": Used(2, 11, 6), "": Used(1, 2, 2)}
        assert desk.totals() == told
        with monkeypatch.context() as broken:
            broken.setattr(Book, "write", _full)
            writing = asyncio.create_task(desk.flush())
            await asyncio.sleep(0)
            assert desk.totals() == told
            await writing
            assert desk.totals() == told
        await desk.flush()
        desk.used("a", "m", 1, 0)
        assert desk.totals() == {**told, "a": Used(3, 12, 6)}
        await desk.close()


async def test_a_secret_that_was_written_as_a_name_is_not_shown(path: Path) -> None:
    async with running(path) as desk:
        made = await desk.create("laptop", ["infer"], [], Limits(), None)
        odd = await desk.create(f"my {made.secret}", ["infer"], [], Limits(), None)
        assert (desk.label_of(made.key.id), desk.label_of(odd.key.id)) == ("laptop", odd.key.id)
        assert desk.label_of("gone") == "gone"
        await desk.close()
