"""Placing stored models under their real names."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from corral.artifact import media as m
from corral.errors import ManifestError, ModelFileError, NotInStore, StoreError
from corral.models.making.package import package
from corral.models.unpack import Placed, place, placed_root
from corral.store.store import Store
from support.artifacts import CNCF, OLLAMA, descriptor, entry, layer, new_store, packed, put, safetensors, tar
from support.bare_engine import bare_engine
from support.ggufs import chain_text, write_chain, write_random
from support.splits import split

WORDS = ["It", "runs."]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def gguf(tmp_path: Path) -> bytes:
    return write_chain(tmp_path / "chain.gguf", WORDS).read_bytes()


def names(placed: Placed) -> list[str]:
    return sorted(str(each.relative_to(placed.directory)) for each in placed.directory.rglob("*"))


def test_links_cost_nothing(store: Store, gguf: bytes) -> None:
    """Plain layers are relative links to blobs: no byte is copied, and the store may be moved as a whole."""
    digest = put(store, [layer(m.DOCKER_GGUF, gguf), layer(m.DOCKER_TEMPLATE, b"{{ x }}")], {}, m.DOCKER_CONFIG_V01)
    placed = place(store, digest)
    assert names(placed) == ["model.gguf", "template.jinja"]
    assert placed.main.samefile(store.blob(descriptor("", gguf).digest).path)
    assert not os.path.isabs(os.readlink(placed.main))  # noqa: PTH115, PTH117
    assert (placed.template, placed.unpacked_bytes) == (placed.directory / "template.jinja", 0)
    moved = store.root.rename(store.root.with_name("elsewhere"))
    assert place(Store(moved), digest).main.read_bytes() == gguf


def test_placed_once(store: Store, gguf: bytes) -> None:
    """A second start uses what is there; what somebody damaged is placed again."""
    digest = put(store, [layer("application/x", gguf, title="m.gguf")])
    first = place(store, digest)
    before = first.main.lstat().st_ino
    assert place(store, digest) == first
    assert first.main.lstat().st_ino == before
    first.main.unlink()
    first.main.write_bytes(b"something else")
    assert place(store, digest).main.read_bytes() == gguf


def test_many_at_once(store: Store, gguf: bytes) -> None:
    """Ten threads that place one model get the same directory."""
    digest = put(store, [layer(CNCF + "weight.v1.tar", tar({"m.gguf": gguf}))], {}, m.CNCF_CONFIG)
    found: list[Placed] = []
    threads = [threading.Thread(target=lambda: found.append(place(store, digest))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(set(found)) == 1
    assert [each.name for each in placed_root(store).iterdir()] == [digest.removeprefix("sha256:")]


@pytest.mark.parametrize("packing", ["tar", "tar+gzip", "tar+zstd"])
def test_archives_are_taken_out(store: Store, gguf: bytes, packing: str) -> None:
    """A ModelPack model in archives is placed and answers on a real engine."""
    weights = packed(tar({"sub/m.gguf": gguf}), packing)
    doc = packed(tar({"LICENSE": b"MIT", "sub/decoy.gguf": b"not weights"}), packing)
    digest = put(
        store,
        [layer(CNCF + f"weight.v1.{packing}", weights), layer(CNCF + f"doc.v1.{packing}", doc, path="docs")],
        {"config": {"format": "gguf"}},
        m.CNCF_CONFIG,
    )
    placed = place(store, digest)
    assert names(placed) == ["LICENSE", "sub", "sub/decoy.gguf", "sub/m.gguf"]
    assert placed.main == placed.directory / "sub" / "m.gguf"
    assert placed.unpacked_bytes == len(gguf) + 3 + 11
    with bare_engine(placed.main) as engine:
        assert engine.chat("go") == chain_text(WORDS)


def test_archives_of_other_tools(store: Store, gguf: bytes) -> None:
    """An archive whose type nobody here knows, as some packagers push them, is a model when one is in it."""
    archive = packed(tar({"models/m.gguf": gguf, "models/notes.md": b"x"}), "tar+gzip")
    digest = put(store, [layer("application/vnd.example.modelkit.v1.tar+gzip", archive)])
    assert place(store, digest).main.name == "m.gguf"


def test_split_model_runs(store: Store, tmp_path: Path) -> None:
    """The pieces of a split model, nameless as Docker's are, get names by which a real engine finds them all."""
    pieces = split(write_chain(tmp_path / "m.gguf", WORDS), tmp_path / "pieces", 3)
    digest = put(store, [layer(m.DOCKER_GGUF, each.read_bytes()) for each in pieces], {}, m.DOCKER_CONFIG_V01)
    placed = place(store, digest)
    assert names(placed) == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with bare_engine(placed.main) as engine:
        assert engine.chat("go") == chain_text(WORDS)


def test_split_model_in_an_archive(store: Store, tmp_path: Path) -> None:
    """The pieces may also come in archives, one or several."""
    pieces = split(write_chain(tmp_path / "m.gguf", WORDS), tmp_path / "pieces", 2)
    layers = [layer(CNCF + "weight.v1.tar", tar({each.name: each.read_bytes()})) for each in reversed(pieces)]
    placed = place(store, put(store, layers, {}, m.CNCF_CONFIG))
    assert placed.main.name == "m-00001-of-00002.gguf"


def test_ollama_model(store: Store, gguf: bytes) -> None:
    """Ollama's Go template is no Jinja template: no engine is given it."""
    digest = put(
        store,
        [
            layer(OLLAMA + "model", gguf),
            layer(OLLAMA + "template", b"{{ .Prompt }}"),
            layer(OLLAMA + "projector", gguf + b" "),
            layer(OLLAMA + "adapter", gguf + b"  "),
        ],
        {"model_format": "gguf"},
        m.OLLAMA_CONFIG,
    )
    placed = place(store, digest)
    assert placed.template is None
    assert placed.mmproj == placed.directory / "mmproj.gguf"
    assert placed.adapters == (placed.directory / "adapter.gguf",)


def test_safetensors_is_a_directory(store: Store) -> None:
    """What serves a safetensors model gets its directory, with config and tokenizer in it."""
    weights = safetensors({"w": ("F16", [2, 2], b"\0" * 8)})
    digest = put(
        store,
        [
            layer(m.DOCKER_SAFETENSORS, weights, path="model.safetensors"),
            layer(m.DOCKER_FILE, b"{}", path="config.json"),
            layer(m.DOCKER_FILE, b"{}", path="sub/tokenizer.json"),
        ],
        {"config": {"format": "safetensors"}},
        m.DOCKER_CONFIG_V02,
    )
    placed = place(store, digest)
    assert (placed.main, placed.format) == (placed.directory, "safetensors")
    assert names(placed) == ["config.json", "model.safetensors", "sub", "sub/tokenizer.json"]


def test_elsewhere(store: Store, gguf: bytes, tmp_path: Path) -> None:
    """Placed outside the store, links are absolute."""
    digest = put(store, [layer("application/x", gguf, title="m.gguf")])
    placed = place(store, digest, tmp_path / "there")
    assert placed.main.read_bytes() == gguf
    assert os.path.isabs(os.readlink(placed.main))  # noqa: PTH115, PTH117


def test_external_files_are_looked_at_again(store: Store, tmp_path: Path) -> None:
    """A model that refers to a file elsewhere is no longer placed once that file is another one."""
    file = write_random(tmp_path / "m.gguf")
    digest = package(store, file, "localhost/m:latest", how="reference").digest
    assert place(store, digest).main.samefile(file)
    file.write_bytes(file.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(NotInStore, match="has changed"):
        place(store, digest)


def test_hostile_archive_leaves_nothing(store: Store, gguf: bytes, tmp_path: Path) -> None:
    """An archive that is refused leaves no directory behind, in the store or outside."""
    evil = tar({"m.gguf": gguf, "../../../evil": b"x"})
    digest = put(store, [layer(CNCF + "weight.v1.tar", evil)], {}, m.CNCF_CONFIG)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match="is refused"):
        place(store, digest)
    assert [each for each in sorted(tmp_path.rglob("*")) if each not in before and "holds" not in each.parts] == []


def test_archive_cannot_write_through_a_link(store: Store, gguf: bytes) -> None:
    """An archive's file with the path of a plain layer never reaches the blob behind it."""
    layers = [layer(CNCF + "weight.v1.raw", gguf, path="m.gguf"), layer(CNCF + "doc.v1.tar", tar({"m.gguf": b"evil"}))]
    digest = put(store, layers, {}, m.CNCF_CONFIG)
    with pytest.raises(ManifestError, match=r"two of its files have the path 'm\.gguf'"):
        place(store, digest)
    assert store.blob(layers[0][0].digest).path.read_bytes() == gguf


def test_links_in_archives_are_refused(store: Store, gguf: bytes) -> None:
    """A symbolic link in an archive could lead a later file outside: it is refused."""
    evil = tar({"m.gguf": gguf}, entry("out", b"2", "/"))
    with pytest.raises(ManifestError, match="is no plain file"):
        place(store, put(store, [layer(CNCF + "weight.v1.tar", evil)], {}, m.CNCF_CONFIG))


def test_no_gguf(store: Store) -> None:
    """What was packaged as a model and is something else says what it is before any engine sees it."""
    with pytest.raises(ModelFileError, match="it is an HTML page"):
        place(store, put(store, [layer("application/x", b"<!doctype html><html></html>")]))


def test_empty_archive(store: Store) -> None:
    """An archive without a model in it is said to be one."""
    with pytest.raises(ManifestError, match="no model was in the artifact's archives"):
        place(store, put(store, [layer(CNCF + "weight.v1.tar", tar({"readme.md": b"x"}))], {}, m.CNCF_CONFIG))


def test_left_over_parts_are_cleared(store: Store, gguf: bytes) -> None:
    """What a killed process left half placed is removed by the next one."""
    digest = put(store, [layer(CNCF + "weight.v1.tar", tar({"m.gguf": gguf}))], {}, m.CNCF_CONFIG)
    part = placed_root(store) / f"{digest.removeprefix('sha256:')}.part"
    (part / "model").mkdir(parents=True)
    (part / "model" / "m.gguf").write_bytes(b"half")
    assert place(store, digest).main.read_bytes() == gguf
    assert not part.exists()


def test_record_of_another_version(store: Store, gguf: bytes) -> None:
    """A model placed by other rules, or with a damaged record, is placed again."""
    digest = put(store, [layer("application/x", gguf, title="m.gguf")])
    record = place(store, digest).directory.parent / "placed.json"
    for text in (json.dumps({**json.loads(record.read_text()), "version": 99}), "{", "[]", '{"version": 1}'):
        record.write_text(text)
        assert place(store, digest).main.read_bytes() == gguf


def test_unknown_digest(store: Store) -> None:
    """A digest that is none, or not here, is said to be that."""
    with pytest.raises(ManifestError, match="is no digest"):
        place(store, "sha256:../../x")
    with pytest.raises(NotInStore):
        place(store, "sha256:" + "0" * 64)


def test_removed_with_its_model(store: Store, gguf: bytes) -> None:
    """What was placed of a model goes when the model is collected; of the others it stays, every byte accounted for."""
    kept = put(store, [layer("application/x", gguf, title="m.gguf")], name="localhost/kept:1")
    gone = put(store, [layer(CNCF + "weight.v1.tar", tar({"m.gguf": gguf}))], {}, m.CNCF_CONFIG, "localhost/gone:1")
    here, there = place(store, kept), place(store, gone)
    before = store.usage()
    assert before.placed_bytes >= len(gguf) == there.unpacked_bytes
    store.remove_name("localhost/gone:1")
    with store.hold(gone):
        store.collect()
        assert there.main.exists()
    freed = store.collect().bytes
    assert (here.main.exists(), there.directory.exists()) == (True, False)
    assert before.total_bytes - store.usage().total_bytes == pytest.approx(freed, abs=4096)


def test_no_place_to_write(store: Store, gguf: bytes, tmp_path: Path) -> None:
    """A place that cannot be written to is an error of the store with a hint."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        place(store, put(store, [layer("application/x", gguf, title="m.gguf")]), tmp_path / "file" / "there")
    assert caught.value.hint
