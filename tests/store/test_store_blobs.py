"""Putting bytes and files into the store, and finding them again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import cast

import pytest

from corral.descriptors import digest_of
from corral.errors import DigestMismatch, DiskFull, ManifestError, NotInStore, StoreError
from corral.store.adding import How
from corral.store.store import Store

DATA = bytes(range(256)) * 9000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(DATA)
    return file


def change_in_place(file: Path) -> None:
    """Changes a byte as a tool that rewrites its file does."""
    seen = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(b"X")
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1_000_000))


def test_bytes_are_found_by_their_digest(store: Store) -> None:
    """What was added is there under the sha256 of its bytes, read-only, and nothing else is."""
    digest, size = store.add_bytes(b"hello")
    blob = store.find(digest)
    assert blob is not None and (blob.size, blob.kind) == (size, "file") == (5, "file")
    assert blob.path.read_bytes() == b"hello" and not blob.path.stat().st_mode & 0o222
    assert digest == digest_of(b"hello") and store.find(digest_of(b"other")) is None
    assert store.add_bytes(b"hello") == (digest, 5)


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:../../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "A" * 64]
)
def test_what_is_no_digest_is_no_path(store: Store, digest: str) -> None:
    """A digest is checked before it becomes a path."""
    with pytest.raises(ManifestError):
        store.find(digest)
    with pytest.raises(ManifestError):
        store.hold(digest)


def test_a_missing_blob_says_what_to_do(store: Store) -> None:
    """Asking for a blob that is not there names it and gives a hint."""
    with pytest.raises(NotInStore) as caught:
        store.blob(digest_of(b"nothing"))
    assert digest_of(b"nothing") in caught.value.message and caught.value.hint


def test_reading_checks_the_digest(store: Store) -> None:
    """A small blob that was damaged on the disk is not given out."""
    digest, _ = store.add_bytes(b'{"a": 1}')
    assert store.read_json(digest) == {"a": 1}
    change_in_place(store.blob(digest).path)
    with pytest.raises(DigestMismatch):
        store.read_json(digest)


def test_reading_is_bounded(store: Store, source: Path) -> None:
    """Only small blobs are read whole."""
    added = store.add_file(source)
    with pytest.raises(ManifestError):
        store.read_bytes(added.digest, limit=1000)


@pytest.mark.parametrize("how", ["auto", "move", "hardlink", "copy", "reference"])
def test_a_file_becomes_a_blob(store: Store, source: Path, how: str) -> None:
    """Each way gives a blob of the file's content, says which way it was, and only a move takes the file away."""
    added = store.add_file(source, how=cast(How, how))
    assert (added.digest, added.size) == (digest_of(DATA), len(DATA))
    assert added.how == how or (how == "auto" and added.how in ("reflink", "hardlink"))
    blob = store.blob(added.digest)
    assert blob.path.read_bytes() == DATA
    assert blob.kind == ("external" if how == "reference" else "file")
    assert source.exists() == (how != "move")
    assert store.verify() == []


def test_a_reflink_is_made_or_refused(store: Store, source: Path) -> None:
    """Where the file system cannot clone, reflink says so and what to do instead, and nothing is left."""
    try:
        assert store.add_file(source, how="reflink").how == "reflink"
    except StoreError as error:
        assert "reflink" in error.message and "copy" in error.hint
        assert not list(store.layout.blobs.iterdir())
    assert not list(store.layout.scratch.iterdir())


@pytest.mark.parametrize("how", ["auto", "move", "hardlink", "copy", "reference"])
def test_content_that_is_there_is_not_added_again(store: Store, source: Path, how: str) -> None:
    """A file whose content the store has is `present`, whatever way was asked for."""
    store.add_bytes(DATA)
    assert store.add_file(source, how=cast(How, how)).how == "present"
    assert len(list(store.layout.blobs.iterdir())) == 1
    assert source.exists() == (how != "move")


@pytest.mark.parametrize("how", ["auto", "move", "hardlink", "copy", "reference"])
def test_another_digest_than_promised_is_refused(store: Store, source: Path, how: str) -> None:
    """A file that is not what its name says is not added, and stays where it is."""
    with pytest.raises(DigestMismatch):
        store.add_file(source, how=cast(How, how), digest=digest_of(b"something else"))
    assert source.read_bytes() == DATA
    assert not list(store.layout.blobs.iterdir()) and not list(store.layout.scratch.iterdir())


def test_a_promised_digest_is_no_proof(store: Store, source: Path) -> None:
    """A file is hashed even when the store has the digest it claims: a move must not remove something else."""
    digest, _ = store.add_bytes(b"the real one")
    with pytest.raises(DigestMismatch):
        store.add_file(source, how="move", digest=digest)
    assert source.exists()


def test_links_are_followed_to_their_file(store: Store, source: Path, tmp_path: Path) -> None:
    """A symbolic link, as caches have them, is added as the file it leads to."""
    link = tmp_path / "link.gguf"
    link.symlink_to(source.name)
    added = store.add_file(link, how="reference")
    link.unlink()
    assert store.blob(added.digest).path == source


@pytest.mark.parametrize("what", ["directory", "fifo", "nothing"])
def test_what_is_no_plain_file_is_refused(store: Store, tmp_path: Path, what: str) -> None:
    """Only plain files are added."""
    path = tmp_path / "it"
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    with pytest.raises(StoreError):
        store.add_file(path)


@pytest.mark.parametrize("how", ["reference", "hardlink"])
def test_a_file_that_others_change_is_not_used(store: Store, source: Path, how: str) -> None:
    """A blob that shares its file is looked at before each use: changed in place, it is no longer there."""
    added = store.add_file(source, how=cast(How, how))
    change_in_place(source)
    assert store.find(added.digest) is None
    with pytest.raises(NotInStore) as caught:
        store.blob(added.digest)
    assert caught.value.hint
    assert [each.kind for each in store.verify()] == ["changed"]


def test_a_pruned_reference_is_noticed(store: Store, source: Path) -> None:
    """When the other tool removes the file that the store refers to, that is said with the file's path."""
    added = store.add_file(source, how="reference")
    source.unlink()
    assert store.find(added.digest) is None
    with pytest.raises(NotInStore, match="is gone"):
        store.blob(added.digest)


def test_a_pruned_hard_link_is_not_lost(store: Store, source: Path) -> None:
    """When the other tool removes a file that the store has linked, the blob stays."""
    added = store.add_file(source, how="hardlink")
    source.unlink()
    assert store.blob(added.digest).path.read_bytes() == DATA


def test_a_reference_can_be_made_whole(store: Store, source: Path) -> None:
    """A blob that was referred to and is fetched or copied later is the store's own from then on."""
    added = store.add_file(source, how="reference")
    source.unlink()
    other = source.with_name("again.gguf")
    other.write_bytes(DATA)
    assert store.add_file(other, how="copy").how == "copy"
    assert store.blob(added.digest).kind == "file"
    assert not list(store.layout.external.iterdir())


def test_a_hard_link_does_not_touch_the_file(store: Store, source: Path) -> None:
    """The mode and times of a file that belongs to another tool stay as they were."""
    before = source.stat()
    store.add_file(source, how="hardlink")
    store.add_file(source, how="hardlink")
    after = source.stat()
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)


@pytest.mark.parametrize("how", ["copy", "hardlink", "reference"])
def test_a_file_that_grows_meanwhile_is_refused(store: Store, source: Path, how: str) -> None:
    """A file that somebody still writes is not taken for whole."""
    source.write_bytes(bytes(16 << 20))
    started, over = threading.Event(), threading.Event()

    def grow() -> None:
        with source.open("ab", buffering=0) as file:
            while not over.is_set():
                file.write(b"more")
                started.set()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        assert started.wait(10)
        with pytest.raises(StoreError, match="changed while"):
            store.add_file(source, how=cast(How, how))
    finally:
        over.set()
        writer.join()
    assert not list(store.layout.blobs.iterdir())


def test_a_full_disk_is_said_before(store: Store) -> None:
    """More than there is room for is refused before anything is written."""
    with pytest.raises(DiskFull) as caught:
        store.require_room(1 << 60)
    assert "prune" in caught.value.hint
    store.require_room(0)
