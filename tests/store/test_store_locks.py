"""Locks: one owner at a time, whatever happens to their files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from corral.store import locks
from corral.store.locks import StoreLock
from corral.store.store import Store
from support.stored import set_model


def test_a_lock_file_may_be_removed_by_its_owner(tmp_path: Path) -> None:
    """Owners that remove the file before they let go never make two owners at once."""
    path = tmp_path / "lock"
    inside, most = 0, 0

    def own() -> None:
        nonlocal inside, most
        for _ in range(300):
            fd = locks.take(path, wait_s=30)
            assert fd is not None
            inside += 1
            most = max(most, inside)
            os.stat(path)  # noqa: PTH116 - gives the others a chance to run
            inside -= 1
            path.unlink()
            os.close(fd)

    threads = [threading.Thread(target=own) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1


def test_looking_leaves_the_lock_free(tmp_path: Path) -> None:
    """`free` says whether somebody has the lock, and neither takes it nor makes the file."""
    path = tmp_path / "lock"
    assert locks.free(path) and not path.exists()
    fd = locks.take(path, shared=True)
    assert fd is not None and not locks.free(path)
    other = locks.take(path, shared=True)
    assert other is not None and locks.take(path) is None
    os.close(fd)
    assert not locks.free(path)
    os.close(other)
    assert locks.free(path)


def test_a_hold_waits_for_a_sweep(store: Store) -> None:
    """While somebody sweeps, no hold is given: what it would hold may be gone a moment later."""
    root = set_model(store, "ai/a", b"weights")
    done = threading.Event()

    def hold() -> None:
        store.hold(root.digest).release()
        done.set()

    with StoreLock(store.layout.lock).exclusive():
        thread = threading.Thread(target=hold)
        thread.start()
        assert not done.wait(0.1)
    thread.join()
    assert done.is_set()


def test_readers_wait_for_nobody(store: Store) -> None:
    """Reading goes on while the store is locked."""
    root = set_model(store, "ai/a", b"weights")
    with StoreLock(store.layout.lock).exclusive():
        assert [each.name for each in Store(store.root).names()] == ["ai/a"]
        assert store.manifest(root.digest) and store.find(root.digest) and store.usage() and store.verify() == []
