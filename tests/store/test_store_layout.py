"""What a store is on the disk, and which directories are none."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from corral.errors import StoreError
from corral.store.store import Store
from support.stored import set_model


def test_a_new_store_is_an_oci_image_layout(store: Store) -> None:
    """A prepared store has the files the image layout asks for, and its own version."""
    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_bytes())
    assert (index["schemaVersion"], index["manifests"]) == (2, [])
    assert (store.root / "blobs" / "sha256").is_dir()
    assert json.loads((store.root / "corral.json").read_bytes()) == {"version": 1}


def test_preparing_again_changes_nothing(store: Store) -> None:
    """`prepare` on a store that is there keeps its models."""
    set_model(store, "ai/a", b"weights")
    before = (store.root / "index.json").read_bytes()
    Store(store.root).prepare()
    assert (store.root / "index.json").read_bytes() == before


def test_a_newer_version_is_refused(store: Store) -> None:
    """A store of a version that this Corral does not know is left alone."""
    (store.root / "corral.json").write_text('{"version": 2}')
    with pytest.raises(StoreError, match="version 2") as caught:
        Store(store.root).prepare()
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version"'])
def test_a_damaged_version_is_said(store: Store, text: str) -> None:
    """A version file that cannot be read is not guessed at."""
    (store.root / "corral.json").write_text(text)
    with pytest.raises(StoreError):
        Store(store.root).prepare()


def test_another_directory_is_no_store(tmp_path: Path) -> None:
    """A directory with other things in it is not made a store."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        Store(tmp_path).prepare()
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    """A path that cannot be a directory is a clear error."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        Store(tmp_path / "file" / "models").prepare()


def test_another_tools_layout_becomes_a_store(store: Store, tmp_path: Path) -> None:
    """An image layout that another tool made is taken as it is, its models with it."""
    root = set_model(store, "ai/a", b"weights")
    (store.root / "corral.json").unlink()
    (store.root / "some-other-tools-file").touch()
    again = Store(store.root)
    again.prepare()
    named = again.lookup("ai/a")
    assert named is not None and named.descriptor.digest == root.digest


def test_a_half_made_store_is_finished(tmp_path: Path) -> None:
    """A process that was killed while it made the store leaves nothing that a second one cannot finish."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "corral" / "partial").mkdir(parents=True)
    (tmp_path / "corral" / "oci-layout.new").write_text("{")
    store = Store(tmp_path)
    store.prepare()
    set_model(store, "ai/a", b"weights")
    assert [each.name for each in store.names()] == ["ai/a"]


def test_many_may_prepare_at_once(tmp_path: Path) -> None:
    """Threads that prepare one store at the same time all end with the same one."""
    stores = [Store(tmp_path / "models") for _ in range(8)]
    threads = [threading.Thread(target=each.prepare) for each in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    set_model(stores[0], "ai/a", b"weights")
    assert all([named.name for named in each.names()] == ["ai/a"] for each in stores)
