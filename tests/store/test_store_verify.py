"""Finding damage, and mending it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.descriptors import MANIFEST, Descriptor, digest_of
from corral.errors import NotInStore, Unavailable
from corral.store.store import Store
from corral.store.verify import Damage
from support.stored import digests_on_disk, set_model

WEIGHTS = b"weights" * 1000
DIGEST = digest_of(WEIGHTS)


def spoil(store: Store, digest: str, data: bytes) -> None:
    """Other bytes in the file of `digest`."""
    path = store.layout.blob(digest)
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_good_store_has_no_damage(store: Store) -> None:
    """Every byte of every blob is read; the progress ends at its total."""
    set_model(store, "ai/a", WEIGHTS, b"more")
    store.add_bytes(b"unreferenced")
    seen: list[tuple[int, int]] = []
    assert store.verify(progress=lambda done, total: seen.append((done, total))) == []
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] >= len(WEIGHTS)


@pytest.mark.parametrize(
    ("data", "kind"), [(WEIGHTS[:-1], "damaged"), (b"W" + WEIGHTS[1:], "damaged"), (None, "missing")]
)
def test_damage_is_found_and_named(store: Store, data: bytes | None, kind: str) -> None:
    """A blob that is short, other, or gone is told with its names and path, and left as it is."""
    set_model(store, "ai/a", WEIGHTS)
    set_model(store, "ai/b", WEIGHTS, b"more")
    set_model(store, "ai/c", b"others")
    if data is None:
        store.layout.blob(DIGEST).unlink()
    else:
        spoil(store, DIGEST, data)
    [damage] = store.verify()
    assert (damage.kind, damage.digest, damage.names, damage.repaired) == (kind, DIGEST, ("ai/a", "ai/b"), False)
    assert damage.path == store.layout.blob(DIGEST) and damage.what
    assert store.verify(["ai/c"]) == [] and len(store.verify(["ai/a"])) == 1
    assert data is None or store.layout.blob(DIGEST).read_bytes() == data
    assert not list(store.layout.scratch.iterdir())


def test_repair_fetches_again(store: Store) -> None:
    """The bad file is out of the way while it is fetched again, and what comes is checked."""
    set_model(store, "ai/a", WEIGHTS)
    spoil(store, DIGEST, b"rubbish")
    asked: list[Damage] = []

    def fetch(damage: Damage) -> bool:
        asked.append(damage)
        assert store.find(damage.digest) is None
        store.add_bytes(WEIGHTS)
        return True

    [damage] = store.verify(repair=fetch)
    assert damage.repaired and [each.digest for each in asked] == [DIGEST]
    assert store.verify() == []


def test_a_repaired_manifest_is_gone_on_with(store: Store) -> None:
    """When the manifest itself was damaged, what it needs is checked once it is back."""
    root = set_model(store, "ai/a", WEIGHTS)
    good = store.read_bytes(root.digest)
    spoil(store, root.digest, b"{}")
    store.layout.blob(DIGEST).unlink()
    fresh = Store(store.root)
    assert [each.digest for each in fresh.verify()] == [root.digest]
    content = {root.digest: good, DIGEST: WEIGHTS}
    mended = fresh.verify(repair=lambda damage: bool(store.add_bytes(content[damage.digest])))
    assert [(each.digest, each.repaired) for each in mended] == [(root.digest, True), (DIGEST, True)]


@pytest.mark.parametrize("way", ["says no", "lies", "raises"])
def test_a_failed_repair_loses_nothing(store: Store, way: str) -> None:
    """When it cannot be fetched again, the damaged file is put back: part of a model may be better than none."""
    set_model(store, "ai/a", WEIGHTS)
    spoil(store, DIGEST, b"rubbish")

    def fetch(damage: Damage) -> bool:
        if way == "raises":
            raise Unavailable("no network", hint="later")
        return way == "lies"

    [damage] = store.verify(repair=fetch)
    assert not damage.repaired and store.layout.blob(DIGEST).read_bytes() == b"rubbish"


def test_damage_that_nobody_needs_is_removed(store: Store) -> None:
    """With repair, a damaged blob without a name goes: a later pull would take it for whole."""
    store.add_bytes(WEIGHTS)
    spoil(store, DIGEST, b"rubbish")
    [damage] = store.verify()
    assert damage.names == () and DIGEST in digests_on_disk(store)
    [damage] = store.verify(repair=lambda damage: False)
    assert damage.repaired and DIGEST not in digests_on_disk(store)


def test_the_same_bytes_written_again_are_taken_back(store: Store, tmp_path: Path) -> None:
    """A file outside that has another time and the same bytes is believed again once it was read."""
    file = tmp_path / "model.gguf"
    file.write_bytes(WEIGHTS)
    store.add_file(file, how="reference")
    set_model(store, "ai/a", WEIGHTS)
    os.utime(file, (1, 1))
    assert store.find(DIGEST) is None
    assert store.verify() == []
    assert store.find(DIGEST) is not None


def test_a_changed_reference_is_damage(store: Store, tmp_path: Path) -> None:
    """A file outside with other bytes, or none, is told with its own path; a failed repair keeps the reference."""
    file = tmp_path / "model.gguf"
    file.write_bytes(WEIGHTS)
    store.add_file(file, how="reference")
    set_model(store, "ai/a", WEIGHTS)
    file.unlink()
    [damage] = store.verify(repair=lambda damage: False)
    assert damage.kind == "changed" and str(file) in damage.what
    file.write_bytes(WEIGHTS)
    assert store.verify() == [] and store.blob(DIGEST).kind == "external"


def test_a_name_of_what_is_no_manifest(store: Store) -> None:
    """An index entry that points to something else is told as that."""
    set_model(store, "ai/a", WEIGHTS)
    digest, size = store.add_bytes(b'{"no": "manifest"}')
    text = (store.root / "index.json").read_text()
    named = store.lookup("ai/a")
    assert named is not None
    wrong = Descriptor(MANIFEST, digest, size)
    text = text.replace(named.descriptor.digest, digest).replace(
        f'"size":{named.descriptor.size}', f'"size":{wrong.size}'
    )
    (store.root / "index.json").write_text(text)
    assert [(each.kind, each.names) for each in store.verify()] == [("manifest", ("ai/a",))]


def test_verifying_what_is_not_there(store: Store) -> None:
    """A name that does not exist is an error, not a clean bill."""
    with pytest.raises(NotInStore):
        store.verify(["ai/none"])
