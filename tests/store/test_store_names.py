"""Names: pointing them to models, removing them, going back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.descriptors import INDEX, MANIFEST, Descriptor, digest_of
from corral.errors import CallerError, CorralError, InUse, ManifestError, NotInStore, StoreError
from corral.store.index import REF_NAME
from corral.store.naming import Naming
from corral.store.store import Store
from support.stored import CONFIG_TYPE, add_model, manifest_of, set_model


def current(store: Store, name: str) -> str:
    named = store.lookup(name)
    assert named is not None
    return named.descriptor.digest


def test_a_name_points_to_a_model(store: Store) -> None:
    """A name that was set is found, with its manifest's descriptor, the model's size and the time."""
    before = time.time()
    root = add_model(store, b"weights" * 100)
    store.set_name("docker.io/ai/a:latest", root, {"org.example.note": "kept"})
    [named] = store.names()
    assert (named.name, named.descriptor.digest) == ("docker.io/ai/a:latest", root.digest)
    assert dict(named.descriptor.annotations) == {"org.example.note": "kept"}
    assert named.bytes == sum(each.size for each in store.whole(root)) > 700
    assert before - 0.01 <= named.at_wall_s <= time.time()
    assert store.lookup("docker.io/ai/b:latest") is None
    assert store.names_of(root.digest) == ["docker.io/ai/a:latest"]
    assert store.manifest(root.digest)["layers"][0]["size"] == 700


def test_the_index_is_oci(store: Store) -> None:
    """Each name is a manifest of `index.json` with the ref.name annotation, as the image layout has it."""
    root = set_model(store, "docker.io/ai/a:latest", b"weights")
    [entry] = json.loads((store.root / "index.json").read_bytes())["manifests"]
    assert (entry["mediaType"], entry["digest"], entry["size"]) == (MANIFEST, root.digest, root.size)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/ai/a:latest"


def test_another_object_sees_it_at_once(store: Store) -> None:
    """A change is seen by every other reader of the directory from then on."""
    other = Store(store.root)
    assert other.names() == []
    for count in range(1, 6):
        set_model(store, f"ai/{count}", b"weights")
        assert len(other.names()) == count
    store.remove_name("ai/3")
    assert [each.name for each in other.names()] == ["ai/1", "ai/2", "ai/4", "ai/5"]


def test_half_a_model_gets_no_name(store: Store) -> None:
    """A manifest whose blobs are not all here cannot be named, and nothing changes."""
    config = Descriptor(CONFIG_TYPE, *store.add_bytes(b"{}"))
    absent = Descriptor("x/y", digest_of(b"absent"), 6)
    root = Descriptor(MANIFEST, *store.add_bytes(manifest_of(config, absent)))
    before = (store.root / "index.json").read_bytes()
    with pytest.raises(NotInStore, match=absent.digest):
        store.set_name("ai/half", root)
    with pytest.raises(NotInStore):
        store.set_names([Naming("ai/whole", add_model(store, b"x")), Naming("ai/half", root)])
    assert (store.root / "index.json").read_bytes() == before
    with pytest.raises(NotInStore):
        store.history("ai/half")


def test_a_layer_whose_size_lies_gets_no_name(store: Store) -> None:
    """A manifest that says another size than its blob has is refused."""
    config = Descriptor(CONFIG_TYPE, *store.add_bytes(b"{}"))
    lying = Descriptor("x/y", store.add_bytes(b"four")[0], 5)
    root = Descriptor(MANIFEST, *store.add_bytes(manifest_of(config, lying)))
    with pytest.raises(ManifestError):
        store.set_name("ai/lie", root)


HOSTILE_MANIFESTS: dict[str, bytes] = {
    "no JSON": b"\x00\x01",
    "no object": b"[]",
    "no manifest": b"{}",
    "layers no list": b'{"layers": {"a": 1}}',
    "a layer no object": b'{"layers": ["x"]}',
    "a digest that leads out": b'{"layers": [{"mediaType": "a", "size": 1, "digest": "sha256:../../x"}]}',
    "a size below zero": b'{"layers": [{"mediaType": "a", "size": -1, "digest": "sha256:%s"}]}' % (b"0" * 64),
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("what", HOSTILE_MANIFESTS)
def test_what_is_no_manifest_gets_no_name(store: Store, what: str) -> None:
    """Damaged and absurd manifests are refused with the reason."""
    root = Descriptor(MANIFEST, *store.add_bytes(HOSTILE_MANIFESTS[what]))
    with pytest.raises(ManifestError):
        store.set_name("ai/bad", root)
    assert store.names() == []


def test_a_chain_of_indexes_is_refused(store: Store) -> None:
    """Indexes within indexes are followed a few levels and no further."""
    inner = add_model(store, b"weights")
    for _ in range(10):
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner.as_data()]}).encode()
        inner = Descriptor(INDEX, *store.add_bytes(data))
    with pytest.raises(ManifestError, match="deep"):
        store.set_name("ai/deep", inner)


def test_an_index_needs_only_what_was_fetched(store: Store) -> None:
    """Of a multi-platform index, the platforms that are here are kept and the others are not missed."""
    here = add_model(store, b"weights")
    elsewhere = Descriptor(MANIFEST, digest_of(b"another platform"), 16)
    data = json.dumps({"schemaVersion": 2, "manifests": [here.as_data(), elsewhere.as_data()]}).encode()
    root = Descriptor(INDEX, *store.add_bytes(data))
    store.set_name("ai/many", root)
    assert {each.digest for each in store.whole(root)} >= {root.digest, here.digest}
    store.collect(keep=0, grace_s=0)
    assert store.verify() == []


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 3000, "a\x1b[31m"])
def test_unprintable_names_are_refused(store: Store, name: str) -> None:
    """A name has printable characters, and not too many."""
    with pytest.raises(CallerError):
        store.set_name(name, add_model(store, b"x"))


def test_removing_one_name_keeps_what_others_use(store: Store) -> None:
    """A removed name is gone; a model with another name, and shared blobs, are not."""
    root = set_model(store, "ai/a", b"weights", b"shared")
    store.set_name("ai/b", root)
    set_model(store, "ai/c", b"other", b"shared")
    assert store.remove_name("ai/a").descriptor.digest == root.digest
    store.collect(grace_s=0)
    assert [each.name for each in store.names()] == ["ai/b", "ai/c"] and store.verify() == []
    with pytest.raises(NotInStore):
        store.remove_name("ai/a")


def test_a_model_in_use_is_not_removed(store: Store) -> None:
    """A held model keeps its last name until the hold is released; a second name may go."""
    root = set_model(store, "ai/a", b"weights")
    store.set_name("ai/b", root)
    with Store(store.root).hold(root.digest):
        store.remove_name("ai/b")
        with pytest.raises(InUse):
            store.remove_name("ai/a")
        assert store.is_held(root.digest) and store.lookup("ai/a") is not None
    assert not store.is_held(root.digest)
    store.remove_name("ai/a")


def test_holding_what_is_not_there(store: Store) -> None:
    """Only a pull may hold what is still to come."""
    with pytest.raises(NotInStore):
        store.hold(digest_of(b"to come"))
    store.hold(digest_of(b"to come"), absent_ok=True).release()


def test_history_tells_what_a_name_was(store: Store) -> None:
    """Every change of a name is in its history, newest first, with the reason; setting it to the same is none."""
    one, two = add_model(store, b"one"), add_model(store, b"two")
    store.set_name("ai/a", one, why="pull")
    store.set_name("ai/a", two, why="update")
    store.set_name("ai/a", two, why="pull")
    store.remove_name("ai/a")
    past = store.history("ai/a")
    assert [(each.digest, each.why) for each in past] == [
        (two.digest, "removed"), (two.digest, "update"), (one.digest, "pull"),
    ]  # fmt: skip
    assert past == sorted(past, key=lambda each: -each.at_wall_s)
    with pytest.raises(NotInStore):
        store.history("ai/never")


def test_rollback_goes_back_and_forth(store: Store) -> None:
    """Without a digest, the name points to what it was before; the second time, to where it began."""
    one, two = set_model(store, "ai/a", b"one"), set_model(store, "ai/a", b"two")
    assert store.rollback("ai/a").digest == one.digest == current(store, "ai/a")
    assert store.rollback("ai/a").digest == two.digest == current(store, "ai/a")
    assert store.rollback("ai/a", one.digest).digest == one.digest == current(store, "ai/a")
    with pytest.raises(NotInStore, match="never"):
        store.rollback("ai/a", digest_of(b"else"))


def test_a_removed_name_can_come_back(store: Store) -> None:
    """Before its blobs are collected, a removed name is brought back by a rollback."""
    root = set_model(store, "ai/a", b"one")
    store.remove_name("ai/a")
    store.rollback("ai/a")
    assert current(store, "ai/a") == root.digest


def test_there_must_be_something_to_go_back_to(store: Store) -> None:
    """A name that was never anything else, or whose earlier blobs were collected, says so and what to pull."""
    one = set_model(store, "ai/a", b"one")
    with pytest.raises(NotInStore, match="nothing to go back to"):
        store.rollback("ai/a")
    two = set_model(store, "ai/a", b"two")
    store.collect(keep=0, grace_s=0)
    with pytest.raises(NotInStore) as caught:
        store.rollback("ai/a")
    assert f"corral pull ai/a@{one.digest}" in caught.value.hint and current(store, "ai/a") == two.digest


def test_history_survives_a_torn_line(store: Store) -> None:
    """A line that was cut short when its writer was killed costs that line only."""
    one = set_model(store, "ai/a", b"one")
    with (store.layout.history / "log.jsonl").open("ab") as log:
        log.write(b'{"name":"ai/a","at":1.0,"wh')
    two = set_model(store, "ai/a", b"two")
    assert [each.digest for each in store.history("ai/a")] == [two.digest, one.digest]


def test_another_tool_may_write_the_index(store: Store) -> None:
    """Entries and members that another tool wrote are read, kept, and shown in the history."""
    root = add_model(store, b"weights")
    entry = {**root.as_data(), "annotations": {REF_NAME: "theirs"}, "platform": {"os": "linux"}}
    unnamed = add_model(store, b"unnamed").as_data()
    index = {"schemaVersion": 2, "manifests": [entry, unnamed], "annotations": {"a": "b"}}
    (store.root / "index.json").write_text(json.dumps(index))
    set_model(store, "ours", b"ours")
    store.collect(keep=0, grace_s=0)
    assert [(each.name, each.bytes is None) for each in store.names()] == [("ours", False), ("theirs", True)]
    written = json.loads((store.root / "index.json").read_bytes())
    assert written["manifests"][:2] == [entry, unnamed] and written["annotations"] == {"a": "b"}
    assert store.verify() == [] and store.find(unnamed["digest"]) is not None
    assert [each.digest for each in store.history("theirs")] == [root.digest]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"manifests": 5}', '{"manifests": [{"digest": "sha256:.."}]}'])
def test_a_damaged_index_is_said(store: Store, text: str) -> None:
    """An index that stays broken is an error with a hint, and is not overwritten."""
    root = add_model(store, b"weights")
    (store.root / "index.json").write_text(text)
    actions: list[Callable[[], object]] = [store.names, lambda: store.set_name("ai/a", root), store.collect]
    threads = []
    errors: list[CorralError] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except StoreError as error:
            errors.append(error)

    for action in actions:  # each waits a second for a writer that is still at it
        threads.append(threading.Thread(target=attempt, args=(action,)))
        threads[-1].start()
    for each in threads:
        each.join()
    assert len(errors) == 3 and all(each.hint for each in errors)
    assert (store.root / "index.json").read_text() == text and store.find(root.digest) is not None


def test_an_index_that_is_being_written_is_waited_for(store: Store) -> None:
    """A tool that writes the index in place does not make a reader fail."""
    set_model(store, "ai/a", b"weights")
    whole = (store.root / "index.json").read_text()
    (store.root / "index.json").write_text(whole[:50])
    timer = threading.Timer(0.1, (store.root / "index.json").write_text, [whole])
    timer.start()
    assert [each.name for each in Store(store.root).names()] == ["ai/a"]
    timer.join()


def test_ten_thousand_names(store: Store) -> None:
    """Ten thousand names are set in one step, listed in order, and each is found."""
    root = add_model(store, b"weights")
    store.set_names([Naming(f"docker.io/ai/model-{number:05}:latest", root) for number in range(10_000)])
    names = Store(store.root).names()
    assert len(names) == 10_000 and names[77].name == "docker.io/ai/model-00077:latest"
    assert store.lookup("docker.io/ai/model-09999:latest") is not None


def test_a_store_that_is_not_prepared(tmp_path: Path) -> None:
    """Using a directory that is no store is an error that says so."""
    with pytest.raises(StoreError, match="no model store"):
        Store(tmp_path).names()
