"""Kept responses: bounded in time and size, each owner's own, and whole after anything."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.errors import StoreError
from corral.gateway.api.responses_store import LONGEST_CHAIN, Kept, ResponsesStore

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponsesStore]:
    made = ResponsesStore(tmp_path / "responses.sqlite", most_bytes=100_000)
    yield made
    made.close()


def kept(name: str, previous: str | None = None, text: str = "") -> Kept:
    output: Any = [{"type": "message", "id": f"msg_{name}", "content": text}]
    return Kept(name, previous, [{"type": "message", "id": f"in_{name}"}], {"id": name, "output": output})


def test_a_chain_is_given_from_its_beginning(store: ResponsesStore) -> None:
    """All that came before, in order; None as soon as one is missing."""
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        store.put(kept(name, previous), "", 0.0, DAY)
    assert [each.id for each in store.chain("c", "", 0.0, DAY) or []] == ["a", "b", "c"]
    assert store.chain("c", "someone", 0.0, DAY) is None
    assert store.drop("b", "someone") is False
    assert store.drop("b", "") is True
    assert store.chain("c", "", 0.0, DAY) is None
    assert store.get("c", "", 0.0, DAY) == kept("c", "b")


def test_what_nobody_goes_on_from_is_dropped_in_time(store: ResponsesStore) -> None:
    """Use keeps a response and those before it; a time of none keeps everything."""
    store.put(kept("a"), "", 0.0, DAY)
    store.put(kept("b", "a"), "", 0.0, DAY)
    store.put(kept("alone"), "", 0.0, DAY)
    assert store.chain("b", "", 0.9 * DAY, DAY) is not None
    assert store.get("alone", "", 1.5 * DAY, DAY) is None
    assert store.get("alone", "", 1.5 * DAY, None) is not None
    assert [each.id for each in store.chain("b", "", 1.5 * DAY, DAY) or []] == ["a", "b"]
    for at in range(60):
        store.put(kept(f"x{at}"), "", 1.6 * DAY, DAY)
    assert store.get("alone", "", 1.6 * DAY, None) is None  # it is gone, not only hidden


def test_the_file_is_bounded(store: ResponsesStore) -> None:
    """Beyond the bound, what was used longest ago goes first."""
    for at in range(300):
        store.put(kept(f"r{at}", text="x" * 1000), "", float(at), None)
        if at == 0:
            first = store.get("r0", "", 0.0, None)
    assert first is not None
    assert store.get("r0", "", 300.0, None) is None
    assert store.get("r299", "", 300.0, None) is not None
    file = sqlite3.connect(store.path)
    (size,) = file.execute("SELECT SUM(bytes) FROM responses").fetchone()
    file.close()
    assert size <= 100_000 + 60 * 1200  # what came since it was last looked at


def test_no_chain_goes_on_for_ever(store: ResponsesStore) -> None:
    """A longer one than anybody has, or one that bites its tail, is none."""
    store.put(kept("a", "b"), "", 0.0, None)
    store.put(kept("b", "a"), "", 0.0, None)
    assert store.chain("a", "", 0.0, None) is None
    assert LONGEST_CHAIN >= 1000


def test_it_is_opened_again_after_it_was_closed(store: ResponsesStore) -> None:
    """By whoever uses it next, and by several threads at once."""
    store.put(kept("a"), "", 0.0, None)
    store.close()
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.get("a", "", 0.0, None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [kept("a")] * 4


def test_the_file_is_its_users_alone_and_a_later_one_is_left_alone(tmp_path: Path) -> None:
    """Mode 0600; a file of a later version, or no SQLite at all, is an error in words."""
    path = tmp_path / "responses.sqlite"
    store = ResponsesStore(path)
    store.put(kept("a"), "", 0.0, None)
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(StoreError, match="later version"):
        store.get("a", "", 0.0, None)
    store.close()
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database at all, whatever it is" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        ResponsesStore(broken).get("a", "", 0.0, None)
