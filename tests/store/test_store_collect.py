"""What a collection keeps, and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.errors import StoreError
from corral.store.store import Store
from support.stored import add_model, bytes_on_disk, digests_on_disk, set_model


def age(store: Store, *digests: str, by_s: float = 10_000) -> None:
    """Makes blobs look as if they had come earlier."""
    then = time.time() - by_s
    for digest in digests:
        os.utime(store.layout.blob(digest), (then, then))


def test_a_removed_model_is_collected(store: Store) -> None:
    """What only a removed name reached goes at once, its bytes are counted, and the rest stays."""
    gone = set_model(store, "ai/gone", b"gone" * 1000, b"shared")
    kept = set_model(store, "ai/kept", b"kept", b"shared")
    only = {each.digest for each in store.whole(gone)} - {each.digest for each in store.whole(kept)}
    sizes = sum(store.blob(digest).size for digest in only)
    store.remove_name("ai/gone")
    collected = store.collect()
    assert (set(collected.blobs), collected.bytes) == (only, sizes)
    assert collected.names == ("ai/gone",)
    assert digests_on_disk(store) == {each.digest for each in store.whole(kept)}
    assert store.verify() == []


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    """What a dry run names is what the collection then removes."""
    set_model(store, "ai/a", b"weights" * 100)
    store.remove_name("ai/a")
    before = digests_on_disk(store)
    dry = store.collect(dry_run=True)
    assert digests_on_disk(store) == before and dry.blobs
    assert store.collect() == dry
    assert store.collect() == type(dry)((), 0, (), 0, 0)


def test_freed_bytes_are_those_of_the_file_system(store: Store) -> None:
    """The bytes that a collection gives back are the bytes that the directory has less."""
    set_model(store, "ai/a", b"weights" * 10_000, b"more" * 999)
    store.remove_name("ai/a")
    before = bytes_on_disk(store.root / "blobs")
    freed = store.collect().bytes
    assert before - bytes_on_disk(store.root / "blobs") == freed > 70_000


def test_what_may_be_on_its_way_is_spared(store: Store) -> None:
    """A blob that no name ever reached is spared while it is young, and goes when it is old."""
    digest, _ = store.add_bytes(b"of a pull that goes on")
    assert store.collect().blobs == ()
    age(store, digest)
    assert store.collect().blobs == (digest,)


def test_a_long_pull_keeps_what_it_has(store: Store) -> None:
    """However long a pull takes: what came after its oldest open partial was opened is spared."""
    early, _ = store.add_bytes(b"from before")
    age(store, early, by_s=30_000)
    with store.partial(digest_of(b"large"), 5) as partial:
        lock = partial.path.with_suffix(".lock")
        opened = time.time() - 20_000
        os.utime(lock, (opened, opened))
        done, _ = store.add_bytes(b"an earlier layer of the same pull")
        age(store, done)
        assert store.collect().blobs == (early,)
    assert store.collect().blobs == (done,)


def test_a_download_gone_on_with_counts_from_then(store: Store) -> None:
    """An old download that somebody opens again spares what came since that, not what came since its first day."""
    store.partial("key").close()
    old = time.time() - 50_000
    for each in store.layout.partial.iterdir():
        os.utime(each, (old, old))
    garbage, _ = store.add_bytes(b"garbage")
    age(store, garbage)
    with store.partial("key"):
        assert store.collect().blobs == (garbage,)


def test_what_is_pulled_again_is_spared(store: Store) -> None:
    """A blob that was removed with its model and is added again before the collection waits for its new name."""
    root = set_model(store, "ai/a", b"weights")
    parts = {each.digest for each in store.whole(root)}
    store.remove_name("ai/a")
    store.add_bytes(b"weights")
    collected = store.collect()
    assert digest_of(b"weights") not in collected.blobs and set(collected.blobs) < parts


def test_held_models_stay(store: Store) -> None:
    """What a unit holds, and everything its manifest reaches, stays until it is released."""
    first = set_model(store, "ai/a", b"one")
    with store.hold(first.digest):
        set_model(store, "ai/a", b"two")
        assert store.collect(keep=0, grace_s=0).blobs == ()
        assert {each.digest for each in store.whole(first)} <= digests_on_disk(store)
    assert first.digest in store.collect(keep=0, grace_s=0).blobs


def test_a_pull_holds_what_it_found(store: Store) -> None:
    """A blob that a pull found and holds is not collected from under it."""
    digest, _ = store.add_bytes(b"layer")
    with store.hold(digest, digest_of(b"to come"), absent_ok=True):
        assert store.collect(grace_s=0).blobs == ()
    assert store.collect(grace_s=0).blobs == (digest,)


def test_earlier_digests_are_kept_for_going_back(store: Store) -> None:
    """The newest `keep` digests a name had stay; older ones go, and the name is told to have lost something."""
    roots = [set_model(store, "ai/a", text) for text in (b"one", b"two", b"three", b"four")]
    collected = store.collect(keep=2)
    assert collected.names == ("ai/a",)
    assert roots[0].digest in collected.blobs and store.verify() == []
    assert {each.digest for each in roots[1:]} <= digests_on_disk(store)
    assert store.rollback("ai/a", roots[1].digest).digest == roots[1].digest
    store.collect(keep=0)
    assert not {roots[2].digest, roots[3].digest} & digests_on_disk(store)


def test_unfinished_downloads_wait_a_week(store: Store) -> None:
    """A download that nobody goes on with is removed after a while, not before, and never while it is open."""
    old = time.time() - 8 * 86400
    with store.partial("https://example.com/a", 100_000) as partial:
        partial.path.write_bytes(bytes(100_000))
        assert store.collect().partial_bytes == 0
        for each in store.layout.partial.iterdir():
            os.utime(each, (old, old))
        assert store.collect().partial_bytes == 0
    assert store.collect(dry_run=True).partial_bytes >= 100_000
    collected = store.collect()
    assert collected.bytes == collected.partial_bytes >= 100_000 and store.partials() == []
    assert not list(store.layout.partial.iterdir())


def test_hard_links_and_references_free_nothing(store: Store, tmp_path: Path) -> None:
    """What is in another tool's file too is removed here, counted apart, and left alone there."""
    for how in ("hardlink", "reference"):
        file = tmp_path / how
        file.write_bytes(how.encode() * 1000)
        store.add_file(file, how="hardlink" if how == "hardlink" else "reference")
    collected = store.collect(grace_s=0)
    assert (collected.bytes, collected.shared_bytes) == (0, len("hardlink" * 1000) + len("reference" * 1000))
    assert len(collected.blobs) == 2 and digests_on_disk(store) == set()
    assert (tmp_path / "hardlink").read_bytes() == b"hardlink" * 1000 and (tmp_path / "reference").exists()
    assert not list(store.layout.external.iterdir())


def test_placed_files_go_with_their_model(store: Store) -> None:
    """The directory of real file names goes with its model, and the bytes it linked are freed with the blob."""
    kept, gone = set_model(store, "ai/kept", b"kept"), set_model(store, "ai/gone", b"gone" * 500)
    for root in (kept, gone):
        directory = store.placed_dir / root.digest
        directory.mkdir()
        blob = store.blob(digest_of(b"kept" if root is kept else b"gone" * 500))
        (directory / "model.gguf").hardlink_to(blob.path)
    store.remove_name("ai/gone")
    collected = store.collect()
    assert collected.bytes >= 2000 and collected.shared_bytes == 0
    assert [each.name for each in store.placed_dir.iterdir()] == [kept.digest]


@pytest.mark.parametrize("damage", ["rubbish", "gone"])
def test_a_damaged_manifest_stops_the_sweep(store: Store, damage: str) -> None:
    """When what a name needs cannot be known, nothing is removed; without that name, the sweep goes on."""
    root = set_model(store, "ai/a", b"weights")
    store.add_bytes(b"garbage")
    manifest = store.layout.blob(root.digest)
    manifest.unlink()
    if damage == "rubbish":
        manifest.write_bytes(b"rubbish")
    fresh = Store(store.root)
    before = digests_on_disk(store)
    with pytest.raises(StoreError, match="cannot tell"):
        fresh.collect(grace_s=0)
    assert digests_on_disk(store) == before and fresh.usage().total_bytes
    fresh.remove_name("ai/a")
    assert digest_of(b"weights") in fresh.collect(grace_s=0).blobs


def test_what_killed_processes_left_is_collected(store: Store) -> None:
    """Scratch directories without an owner and the rest of an interrupted sweep go."""
    (store.layout.scratch / "1-dead").mkdir()
    (store.layout.scratch / "1-dead" / "blob").write_bytes(bytes(5000))
    (store.layout.trash / "old").write_bytes(bytes(3000))
    assert store.collect().bytes == 8000
    assert not list(store.layout.scratch.iterdir()) and not list(store.layout.trash.iterdir())


def test_other_files_are_left_alone(store: Store) -> None:
    """A file that is no blob, such as another tool's temporary one, is none of a collection's business."""
    for place in (store.root / "oci-put-blob1", store.layout.blobs / "note.txt"):
        place.write_text("theirs")
    store.collect(grace_s=0)
    assert (store.root / "oci-put-blob1").exists() and (store.layout.blobs / "note.txt").exists()


def test_names_long_gone_are_forgotten(store: Store) -> None:
    """The history forgets a name whose blobs are gone after three months, and no other."""
    set_model(store, "ai/a", b"one")
    store.remove_name("ai/a")
    set_model(store, "ai/b", b"two")
    log = store.layout.history / "log.jsonl"
    old = time.time() - 100 * 86400
    lines = log.read_text().splitlines()
    text = "".join(line.replace(line.split('"at":')[1].split(",")[0], str(old)) + "\n" for line in lines)
    log.write_text(text)
    add_model(store, b"unnamed")
    store.collect(grace_s=0)
    assert "ai/a" not in log.read_text() and "ai/b" in log.read_text()
