"""Models as archives: out, in, and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.descriptors import INDEX, MANIFEST, Descriptor, digest_of
from corral.errors import ArchiveRefused, CallerError, DigestMismatch, DiskFull, NotInStore
from corral.store import tar
from corral.store.index import REF_NAME
from corral.store.store import Store
from support.stored import CONFIG_TYPE, bytes_on_disk, digests_on_disk, manifest_of, set_model


@pytest.fixture
def other(tmp_path: Path) -> Store:
    made = Store(tmp_path / "other")
    made.prepare()
    return made


def packed(*members: tuple[tarfile.TarInfo | str, bytes], format: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """A tar archive of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data


def layout(*names: str, weights: bytes = b"weights") -> list[tuple[tarfile.TarInfo | str, bytes]]:
    """The members of an archive of one model, called `names`."""
    config = b"{}"
    manifest = manifest_of(
        Descriptor(CONFIG_TYPE, digest_of(config), 2), Descriptor("x", digest_of(weights), len(weights))
    )
    root = Descriptor(MANIFEST, digest_of(manifest), len(manifest)).as_data()
    entries = [{**root, "annotations": {REF_NAME: name}} for name in names] or [root]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
        *(blob(data) for data in (config, weights, manifest)),
    ]


def test_out_and_in_again(store: Store, other: Store, tmp_path: Path) -> None:
    """What was exported and loaded elsewhere has the same names, digests and bytes."""
    one, two = set_model(store, "ai/a", b"one" * 999, b"shared"), set_model(store, "ai/b", b"two", b"shared")
    set_model(store, "ai/c", b"stays at home")
    file = tmp_path / "models.tar"
    seen: list[tuple[int, int]] = []
    moved = store.export(["ai/b", "ai/a"], file, progress=lambda done, total: seen.append((done, total)))
    assert moved.names == ("ai/a", "ai/b") and seen[-1] == (moved.bytes, moved.bytes)
    assert other.load(file) == moved
    assert [(each.name, each.descriptor.digest) for each in other.names()] == [
        ("ai/a", one.digest),
        ("ai/b", two.digest),
    ]
    assert other.verify() == [] and digest_of(b"stays at home") not in digests_on_disk(other)
    assert [each.why for each in other.history("ai/a")] == ["load"]


def test_the_same_models_give_the_same_archive(store: Store) -> None:
    """An archive has no times, owners or order of its own."""
    set_model(store, "ai/a", b"one"), set_model(store, "ai/b", b"two")
    first, second = io.BytesIO(), io.BytesIO()
    store.export(["ai/a", "ai/b"], first)
    Store(store.root).export(["ai/b", "ai/a"], second)
    assert first.getvalue() == second.getvalue()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as archive:
        assert archive.getnames()[:2] == ["oci-layout", "index.json"]


def test_references_are_exported_whole(store: Store, other: Store, tmp_path: Path) -> None:
    """A model whose file lies elsewhere is in the archive with its bytes."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    store.add_file(file, how="reference")
    set_model(store, "ai/a", b"weights")
    archive = io.BytesIO()
    store.export(["ai/a"], archive)
    archive.seek(0)
    other.load(archive)
    assert other.blob(digest_of(b"weights")).kind == "file"


def test_damage_is_not_exported(store: Store, tmp_path: Path) -> None:
    """A damaged blob stops an export; no archive appears, nor a part of one."""
    set_model(store, "ai/a", b"weights")
    path = store.layout.blob(digest_of(b"weights"))
    path.chmod(0o644)
    path.write_bytes(b"Weights")
    (tmp_path / "out").mkdir()
    with pytest.raises(DigestMismatch):
        store.export(["ai/a"], tmp_path / "out" / "models.tar")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(NotInStore):
        store.export(["ai/none"], tmp_path / "out" / "models.tar")


def test_one_model_may_be_renamed(other: Store) -> None:
    """An archive of one model takes the name it is given, and needs one when it has none."""
    with pytest.raises(CallerError):
        other.load(packed(*layout()))
    other.load(packed(*layout()), name="ai/mine")
    assert [each.name for each in other.names()] == ["ai/mine"]
    with pytest.raises(CallerError):
        other.load(packed(*layout("ai/a", "ai/b")), name="ai/mine")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_common_tar_is_read(other: Store, format: int) -> None:
    """pax, GNU and ustar archives, with `./` before their names, directories and other files, are all read."""
    directory = tarfile.TarInfo("./blobs/sha256")
    directory.type = tarfile.DIRTYPE
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [(directory, b""), ("./manifest.json", b"[]")]
    members += [(f"./{name}", data) for name, data in layout("ai/a")]
    other.load(packed(*members, format=format))
    assert other.verify() == [] and len(other.names()) == 1


def link(kind: bytes, name: str, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def sparse() -> tarfile.TarInfo:
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "1099511627776"}
    return info


def long_header() -> tarfile.TarInfo:
    info = tarfile.TarInfo("index.json")
    info.pax_headers = {"comment": "x" * 100_000}
    return info


WEIGHTS_NAME = blob(b"weights")[0]
HOSTILE: dict[str, Callable[[], io.BytesIO]] = {
    "an absolute path": lambda: packed(("/etc/cron.d/x", b"x"), *layout("a")),
    "a path that leads out": lambda: packed(("blobs/sha256/../../../x", b"x"), *layout("a")),
    "a path that leads out by pax": lambda: packed(("../" + "é" * 200, b"x"), *layout("a")),
    "a symbolic link": lambda: packed((link(tarfile.SYMTYPE, "blobs", "/tmp"), b""), *layout("a")),
    "a hard link": lambda: packed((link(tarfile.LNKTYPE, WEIGHTS_NAME, "/etc/passwd"), b""), *layout("a")),
    "a device": lambda: packed((link(tarfile.BLKTYPE, WEIGHTS_NAME, ""), b""), *layout("a")),
    "a pipe": lambda: packed((link(tarfile.FIFOTYPE, WEIGHTS_NAME, ""), b""), *layout("a")),
    "a sparse file": lambda: packed((sparse(), b"1\n0\n0\n"), *layout("a")),
    "a header of 100 kB": lambda: packed((long_header(), b"{}"), *layout("a")),
    "bytes of another digest": lambda: packed((WEIGHTS_NAME, b"Weights"), *layout("a")),
    "a blob's name that is no digest": lambda: packed(("blobs/sha256/abc", b"x"), *layout("a")),
    "an index of 5 MB": lambda: packed(("index.json", b" " * (5 << 20)), *layout("a")),
    "an index that is no JSON": lambda: packed(("index.json", b"\xff")),
    "an index of a bad digest": lambda: packed(("index.json", b'{"manifests": [{"digest": "sha256:../x"}]}')),
    "no index": lambda: packed(*layout("a")[2:]),
    "no model": lambda: packed(("index.json", b'{"manifests": []}')),
    "a missing blob": lambda: packed(*layout("a")[:-2], layout("a")[-1]),
    "another version": lambda: packed(("oci-layout", b'{"imageLayoutVersion": "2.0.0"}'), *layout("a")),
    "compression": lambda: io.BytesIO(gzip.compress(packed(*layout("a")).getvalue())),
    "a cut end": lambda: io.BytesIO(packed(*layout("a")).getvalue()[:1700]),
    "nothing": lambda: io.BytesIO(b""),
    "rubbish": lambda: io.BytesIO(b"rubbish" * 1000),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused(other: Store, tmp_path: Path, what: str) -> None:
    """Whatever no store would write is refused with a reason; no name is set and nothing appears outside."""
    before = sorted(each for each in tmp_path.rglob("*") if not each.is_relative_to(other.root))
    with pytest.raises(ArchiveRefused) as caught:
        other.load(HOSTILE[what]())
    assert caught.value.hint
    assert other.names() == [] and not other.partials() and not list(other.layout.scratch.iterdir())
    assert sorted(each for each in tmp_path.rglob("*") if not each.is_relative_to(other.root)) == before
    assert not any(each.is_symlink() for each in other.root.rglob("*"))
    other.collect(grace_s=0)
    assert digests_on_disk(other) == set()


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_size_that_does_not_fit_is_refused_first(other: Store, format: Literal[1, 2]) -> None:
    """A file that says it has 2^50 bytes is refused before any is written."""
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.size = 1 << 50
    with pytest.raises(DiskFull):
        other.load(io.BytesIO(info.tobuf(format) + bytes(4096)))
    assert bytes_on_disk(other.root / "corral") < (1 << 20) + 1000


class Chopped(io.RawIOBase):
    """A stream that gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, count: int = -1, /) -> bytes:
        return self._inner.read(min(count, 7))


def test_a_pipe_is_read_as_well(other: Store) -> None:
    """An archive may come in pieces of any size."""
    other.load(Chopped(packed(*layout("ai/a")).getvalue()))  # type: ignore[arg-type]
    assert other.verify() == [] and len(other.names()) == 1


@given(st.data())
def test_no_bytes_make_the_reader_do_anything_else(data: st.DataObject) -> None:
    """Any bytes are read as plain files with safe names, or refused; nothing else is raised."""
    whole = bytearray(packed(*layout("ai/a")).getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    reader = tar.Reader(io.BytesIO(bytes(whole)))
    try:
        for entry in reader:
            assert not entry.name.startswith("/") and ".." not in entry.name.split("/")
            size = 0
            while part := reader.read(1000):
                size += len(part)
            assert size == entry.size
    except ArchiveRefused as error:
        assert error.hint
