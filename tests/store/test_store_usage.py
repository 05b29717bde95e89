"""Accounting for every byte of the store."""

from __future__ import annotations

import os
from pathlib import Path

from corral.descriptors import digest_of
from corral.store.store import Store
from corral.store.usage import NameUsage, Usage
from support.stored import add_model, bytes_on_disk, set_model

PARTS = (
    "named_bytes", "kept_bytes", "unreferenced_bytes", "partial_bytes", "placed_bytes", "other_bytes",
)  # fmt: skip


def of_name(usage: Usage, name: str) -> NameUsage:
    return next(each for each in usage.names if each.name == name)


def test_every_byte_is_somewhere(store: Store, tmp_path: Path) -> None:
    """The parts sum to what the directory's files come to, each inode once, whatever is in it."""
    set_model(store, "ai/a", b"old" * 1000)
    root = set_model(store, "ai/a", b"new" * 1000, b"shared" * 500)
    set_model(store, "ai/b", b"b" * 777, b"shared" * 500)
    store.add_bytes(b"nobody's" * 50)
    file = tmp_path / "linked"
    file.write_bytes(b"linked" * 100)
    store.add_file(file, how="hardlink")
    other = tmp_path / "referred"
    other.write_bytes(b"referred" * 100)
    store.add_file(other, how="reference")
    placed = store.placed_dir / root.digest
    placed.mkdir()
    (placed / "model.gguf").hardlink_to(store.blob(digest_of(b"new" * 1000)).path)
    (placed / "link.gguf").symlink_to(store.blob(digest_of(b"new" * 1000)).path)
    (placed / "unpacked.json").write_bytes(bytes(321))
    (store.root / "somebody's file").write_bytes(bytes(99))
    with store.partial("key", 1 << 20) as partial:
        partial.path.write_bytes(bytes(5000))
        os.truncate(partial.path, 1 << 20)
    usage = store.usage()
    assert sum(getattr(usage, part) for part in PARTS) == usage.total_bytes == bytes_on_disk(store.root)
    assert usage.unreferenced_bytes == len(b"nobody's" * 50) + 600
    assert usage.kept_bytes >= 3000 and usage.shared_bytes >= 3000
    assert usage.placed_bytes >= 321 and 5000 <= usage.partial_bytes < 1 << 20
    assert (usage.linked_bytes, usage.external_bytes) == (600, 800)
    assert usage.room_bytes > 0


def test_a_names_own_bytes_are_what_its_removal_gives_back(store: Store) -> None:
    """What a name alone reaches is what removing and collecting it frees; what it shares is not."""
    set_model(store, "ai/a", b"a" * 5000, b"shared" * 500)
    set_model(store, "ai/b", b"b" * 777, b"shared" * 500)
    own = of_name(store.usage(), "ai/a").own_bytes
    store.remove_name("ai/a")
    assert store.collect(keep=0).bytes == own > 5000


def test_two_names_of_one_model_own_nothing_alone(store: Store) -> None:
    """Removing one of a model's two names would free nothing, and the account says so."""
    root = set_model(store, "ai/a", b"a" * 5000)
    store.set_name("ai/b", root)
    usage = store.usage()
    assert [each.own_bytes for each in usage.names] == [0, 0]
    assert [each.bytes for each in usage.names] == [usage.named_bytes] * 2 and usage.shared_bytes == 0


def test_bytes_outside_are_told_apart(store: Store, tmp_path: Path) -> None:
    """A model whose weights lie in another tool's file says how much of it is there."""
    for how in ("reference", "hardlink"):
        file = tmp_path / how
        file.write_bytes(how.encode() * 1000)
        store.add_file(file, how="reference" if how == "reference" else "hardlink")
        root = add_model(store, how.encode() * 1000)
        store.set_name(how, root)
        used = of_name(store.usage(), how)
        assert used.external_bytes == len(how) * 1000 and used.own_bytes < 1000 < used.bytes


def test_an_empty_store(store: Store) -> None:
    """A new store has only its own few files, and the little it keeps back for a full disk."""
    usage = store.usage()
    assert usage.names == () and usage.total_bytes == usage.other_bytes == bytes_on_disk(store.root) < (1 << 20) + 1000
