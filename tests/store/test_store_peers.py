"""The store in the hands of skopeo and oras: read, copied from, copied into."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.store.store import Store
from support.stored import set_model

pytestmark = pytest.mark.registry

NAME = "docker.io/ai/smollm2:latest"
WEIGHTS = b"weights" * 1000


def run(program: str, *arguments: str | Path) -> bytes:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("name", [NAME, "localhost:5000/team/model:v1", "hf.co/org/repo:Q4_K_M", "short"])
def test_skopeo_inspects_a_model(store: Store, name: str) -> None:
    """`skopeo inspect --raw oci:STORE:ref` shows the manifest, byte for byte."""
    root = set_model(store, name, WEIGHTS)
    assert run("skopeo", "inspect", "--raw", f"oci:{store.root}:{name}") == store.read_bytes(root.digest)


def test_skopeo_copies_a_model(store: Store, tmp_path: Path) -> None:
    """`skopeo copy` takes a model out of the store with its digest."""
    root = set_model(store, NAME, WEIGHTS)
    run("skopeo", "copy", f"oci:{store.root}:{NAME}", f"oci:{tmp_path}/copy:there")
    [entry] = json.loads((tmp_path / "copy" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == root.digest


def test_a_reference_is_copied_too(store: Store, tmp_path: Path) -> None:
    """A model whose file lies elsewhere is read by other tools as well."""
    file = tmp_path / "model.gguf"
    file.write_bytes(WEIGHTS)
    store.add_file(file, how="reference")
    set_model(store, NAME, WEIGHTS)
    run("skopeo", "copy", f"oci:{store.root}:{NAME}", f"dir:{tmp_path}/copy")
    assert (tmp_path / "copy" / digest_of(WEIGHTS)[7:]).read_bytes() == WEIGHTS


def test_skopeo_copies_into_the_store(store: Store, tmp_path: Path) -> None:
    """A model that skopeo put into the store is one like any other."""
    other = Store(tmp_path / "other")
    other.prepare()
    root = set_model(other, NAME, WEIGHTS)
    set_model(store, "ai/mine", b"mine")
    run("skopeo", "copy", f"oci:{other.root}:{NAME}", f"oci:{store.root}:{NAME}")
    named = store.lookup(NAME)
    assert named is not None and named.descriptor.digest == root.digest
    store.collect(keep=0, grace_s=0)
    assert store.verify() == [] and len(store.names()) == 2


def test_archives_go_both_ways(store: Store, tmp_path: Path) -> None:
    """skopeo reads what `export` wrote, and `load` reads what skopeo wrote."""
    root = set_model(store, NAME, WEIGHTS)
    store.export([NAME], tmp_path / "ours.tar")
    raw = run("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/ours.tar:{NAME}")
    assert digest_of(raw) == root.digest
    run("skopeo", "copy", f"oci:{store.root}:{NAME}", f"oci-archive:{tmp_path}/theirs.tar:ai/theirs")
    other = Store(tmp_path / "other")
    other.prepare()
    assert other.load(tmp_path / "theirs.tar").names == ("ai/theirs",)
    assert other.names()[0].descriptor.digest == root.digest and other.verify() == []


def test_oras_reads_the_store(store: Store, tmp_path: Path) -> None:
    """oras fetches manifests by digest and by a plain tag, lists the names, and copies a model out."""
    root = set_model(store, NAME, WEIGHTS)
    store.set_name("smollm2", root)
    manifest = store.read_bytes(root.digest)
    assert run("oras", "manifest", "fetch", "--oci-layout", f"{store.root}@{root.digest}") == manifest
    assert run("oras", "manifest", "fetch", "--oci-layout", f"{store.root}:smollm2") == manifest
    assert run("oras", "repo", "tags", "--oci-layout", store.root).decode().split() == [NAME, "smollm2"]
    run("oras", "cp", "--from-oci-layout", f"{store.root}@{root.digest}", "--to-oci-layout", f"{tmp_path}/copy:x")
    assert (tmp_path / "copy" / "blobs" / "sha256" / digest_of(WEIGHTS)[7:]).read_bytes() == WEIGHTS


def test_oras_pushes_into_the_store(store: Store, tmp_path: Path) -> None:
    """An artifact that oras put into the store is a model of it, and what it left around it is left alone."""
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    run("oras", "push", "--disable-path-validation", "--oci-layout", f"{store.root}:theirs", tmp_path / "model.gguf")
    store.collect(keep=0, grace_s=0)
    assert store.find(digest_of(WEIGHTS)) is not None and store.verify() == []
    assert [each.name for each in store.names()] == ["theirs"]
    assert run("oras", "manifest", "fetch", "--oci-layout", f"{store.root}:theirs")
