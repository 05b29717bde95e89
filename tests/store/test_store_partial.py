"""Blobs on their way into the store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.errors import InUse, StoreError
from corral.store.store import Store

DATA = b"weights" * 1000
DIGEST = digest_of(DATA)


def test_a_finished_partial_is_a_blob(store: Store) -> None:
    """What was written becomes the blob, and nothing of the download stays."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.path.write_bytes(DATA)
        partial.state_path.write_text("half")
        assert store.find(DIGEST) is None
        blob = partial.finish(DIGEST)
    assert blob.path.read_bytes() == DATA and store.find(DIGEST) == blob
    assert not list(store.layout.partial.iterdir())


def test_a_partial_waits_for_its_next_owner(store: Store) -> None:
    """What was left is there again, with its state, for whoever opens the key next."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.path.write_bytes(DATA[:500])
        partial.state_path.write_text("500")
    with store.partial(DIGEST, len(DATA)) as partial:
        assert (partial.path.read_bytes(), partial.state_path.read_text()) == (DATA[:500], "500")


def test_one_owner_at_a_time(store: Store) -> None:
    """A second owner, in this process or another, is told that the blob is being fetched."""
    with store.partial(DIGEST, 5), pytest.raises(InUse, match="fetched already"):
        Store(store.root).partial(DIGEST, 5)
    store.partial(DIGEST, 5).close()


def test_a_lock_dies_with_its_owner(store: Store) -> None:
    """A process that is killed leaves its bytes and no lock."""
    code = (
        "import sys, pathlib; from corral.store.store import Store\n"
        "partial = Store(pathlib.Path(sys.argv[1])).partial(sys.argv[2], 7000)\n"
        "partial.path.write_bytes(b'first bytes'); partial.state_path.write_text('11')\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root, DIGEST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"open\n"
        with pytest.raises(InUse):
            store.partial(DIGEST, 7000)
        child.kill()
        child.wait()
    with store.partial(DIGEST, 7000) as partial:
        assert partial.path.read_bytes() == b"first bytes"


def test_a_state_without_its_file_is_dropped(store: Store) -> None:
    """Killed between the rename and the end, the next owner starts anew instead of trusting a state of nothing."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.path.write_bytes(DATA)
        partial.state_path.write_text("all")
    partial.path.unlink()
    with store.partial(DIGEST, len(DATA)) as partial:
        assert partial.path.read_bytes() == b"" and not partial.state_path.exists()


def test_another_size_starts_anew(store: Store) -> None:
    """A key without a digest whose size has changed is another file by now."""
    with store.partial("https://example.com/model.gguf", 100) as partial:
        partial.path.write_bytes(b"old")
        partial.state_path.write_text("3")
    with store.partial("https://example.com/model.gguf", 101) as partial:
        assert partial.path.read_bytes() == b"" and not partial.state_path.exists()


def test_a_wrong_size_is_not_finished(store: Store) -> None:
    """A file that is shorter than promised does not become a blob."""
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.path.write_bytes(DATA[:-1])
        with pytest.raises(StoreError):
            partial.finish(DIGEST)
    assert store.find(DIGEST) is None


def test_a_discarded_partial_is_gone(store: Store) -> None:
    """Discarding leaves nothing, and the key is free."""
    partial = store.partial(DIGEST, 5)
    partial.path.write_bytes(b"12345")
    partial.discard()
    partial.discard()
    assert not list(store.layout.partial.iterdir())
    store.partial(DIGEST, 5).discard()


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "a" * 5000, "https://example.com/a?b=c", "é\ud800"])
def test_any_key_stays_inside(store: Store, key: str) -> None:
    """Whatever the key is, its files lie in the store."""
    with store.partial(key) as partial:
        assert partial.path.parent == store.layout.partial


def test_partials_are_listed(store: Store) -> None:
    """The list says what each download has so far and whether anybody is at it."""
    with store.partial(DIGEST, 1 << 20) as partial:
        partial.path.write_bytes(bytes(8192))
        os.truncate(partial.path, 1 << 20)
        view = store.partials()[0]
        assert (view.key, view.size, view.busy) == (DIGEST, 1 << 20, True)
        assert 0 < view.bytes < 1 << 20
    assert [each.busy for each in store.partials()] == [False]


def test_racing_owners_finish_once(store: Store) -> None:
    """Many threads that want one blob: each finds it taken, finished, or gets it alone."""
    done: list[str] = []

    def fetch() -> None:
        while store.find(DIGEST) is None:
            try:
                with store.partial(DIGEST, len(DATA)) as partial:
                    if store.find(DIGEST) is None:
                        partial.path.write_bytes(DATA)
                        partial.finish(DIGEST)
                        done.append("finished")
            except InUse:
                continue

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert store.blob(DIGEST).path.read_bytes() == DATA and done == ["finished"]


def test_a_partial_may_replace_a_reference(store: Store, tmp_path: Path) -> None:
    """A fetched blob takes the place of one that was only referred to."""
    file = tmp_path / "file"
    file.write_bytes(DATA)
    store.add_file(file, how="reference")
    with store.partial(DIGEST, len(DATA)) as partial:
        partial.path.write_bytes(DATA)
        assert partial.finish(DIGEST).kind == "file"
    assert file.read_bytes() == DATA
