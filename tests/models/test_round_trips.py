"""Models through a real registry and other tools, there and back, up to a real engine that answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import oras.client
import pytest

from corral.descriptors import Descriptor
from corral.errors import CallerError, NotInStore
from corral.models.content import read_content
from corral.models.fetching.downloads import Downloads
from corral.models.making.package import Format, package
from corral.models.push import push
from corral.models.unpack import place
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.oci_push import Progress, PushBlob
from corral.store.store import Store
from support.artifacts import new_store, packed, safetensors, tar
from support.bare_engine import bare_engine
from support.docker_registry import docker_registry, needs
from support.ggufs import chain_text, write_chain
from support.splits import split

WORDS = ["There", "and", "back."]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running registry that all tests here share, each with names of its own."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def registry(short_tmp: Path) -> Iterator[OciRegistry]:
    with Egress(EgressPolicy(proxy="")) as egress:
        environment = {"HOME": str(short_tmp), "PATH": os.environ["PATH"]}
        yield OciRegistry(egress, Auth(egress, short_tmp / "config", env=environment))


@contextmanager
def pulled(store: Store, registry: OciRegistry, text: str) -> Iterator[str]:
    """The digest that `text` has in `store` after a pull."""
    downloads = Downloads(store, {"oci": registry})
    try:
        job = downloads.wait(downloads.start(parse_ref(text)).id, 60)
        assert (job.state, job.error) == ("done", None)
        assert job.digest is not None
        yield job.digest
    finally:
        downloads.close()


def answers(store: Store, digest: str) -> None:
    """The model answers on a real engine with what it knows by heart."""
    with bare_engine(place(store, digest).main) as engine:
        assert engine.chat("go") == chain_text(WORDS)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.registry
@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_package_push_pull_run(host: str, registry: OciRegistry, tmp_path: Path, format: Format) -> None:
    """A packaged model, pushed and pulled elsewhere, has the same digest and answers, in both formats."""
    here, there = new_store(tmp_path / "here"), new_store(tmp_path / "there")
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    pieces = split(write_chain(tmp_path / "m.gguf", WORDS), tmp_path / "pieces", 3)
    name = f"{host}/me/whole-{format}:v1"
    made = package(
        here, pieces[0], name, format=format, template=tmp_path / "t.jinja", license=[tmp_path / "t.jinja"],
        context_size=512,
    )  # fmt: skip
    seen: dict[str, tuple[int, int]] = {}
    sent = push(here, name, registry, parse_ref(name), progress=lambda d, done, size: seen.update({d: (done, size)}))
    assert sent.digest == made.digest
    assert len(seen) == 5
    assert all(done == size for done, size in seen.values())
    with pulled(there, registry, name) as digest:
        assert digest == made.digest
        assert [Path(path).name for path in (each.path for each in read_content(there, digest).artifact.files)][:3] == [
            piece.name for piece in pieces
        ]
        assert read_content(there, digest).context_size == 512
        answers(there, digest)


@pytest.mark.registry
@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_safetensors_round_trip(host: str, registry: OciRegistry, tmp_path: Path, format: Format) -> None:
    """A safetensors directory comes back file for file."""
    here, there = new_store(tmp_path / "here"), new_store(tmp_path / "there")
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(safetensors({"w": ("BF16", [64], os.urandom(128))}))
    (root / "config.json").write_text("{}")
    (root / "sub" / "tokenizer.json").write_text("{}")
    name = f"{host}/me/tensors-{format}:v1"
    package(here, root, name, format=format)
    push(here, name, registry, parse_ref(name))
    with pulled(there, registry, name) as digest:
        placed = place(there, digest).main
        for file in (each for each in root.rglob("*") if each.is_file()):
            assert (placed / file.relative_to(root)).read_bytes() == file.read_bytes()


@pytest.mark.registry
@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_skopeo_both_ways(host: str, registry: OciRegistry, tmp_path: Path, format: Format) -> None:
    """skopeo copies our models from our store to a registry and from a registry to a layout, bytes and digest kept."""
    needs("skopeo")
    here, there = new_store(tmp_path / "here"), new_store(tmp_path / "there")
    name = f"{host}/me/skopeo-{format}:v1"
    made = package(here, write_chain(tmp_path / "m.gguf", WORDS), name, format=format)
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{here.root}:{name}", f"docker://{name}")
    with pulled(there, registry, name) as digest:
        assert digest == made.digest
        answers(there, digest)
    layout = tmp_path / "layout"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:v1")
    assert (layout / "blobs" / "sha256" / made.digest.removeprefix("sha256:")).exists()


def oras_push(host: str, repository: str, files: Sequence[str], folder: Path) -> str:
    """Pushes `files` of `folder` as oras does; the reference."""
    ref = f"{host}/{repository}:v1"
    before = Path.cwd()
    os.chdir(folder)
    try:
        oras.client.OrasClient(insecure=True).push(target=ref, files=list(files), disable_path_validation=False)
    finally:
        os.chdir(before)
    return ref


@pytest.mark.registry
def test_oras_pushes_and_we_pull(host: str, registry: OciRegistry, tmp_path: Path) -> None:
    """A GGUF file that oras pushed, alone or with its licence, is pulled and answers."""
    store = new_store(tmp_path / "store")
    write_chain(tmp_path / "m.gguf", WORDS)
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("read me")
    cases = {"one": ["m.gguf"], "two": ["LICENSE", "m.gguf"], "three": ["docs", "m.gguf"]}
    for repository, files in ((f"oras/{name}", files) for name, files in cases.items()):
        with pulled(store, registry, oras_push(host, repository, files, tmp_path)) as digest:
            assert read_content(store, digest).artifact.flavour == "plain"
            answers(store, digest)


@pytest.mark.registry
@pytest.mark.parametrize("packing", ["tar", "tar+gzip", "tar+zstd"])
def test_packed_layers_pushed_by_oras(host: str, registry: OciRegistry, tmp_path: Path, packing: str) -> None:
    """ModelPack layers in archives, pushed by another client with their media types, are pulled and answer."""
    store = new_store(tmp_path / "store")
    archive = packed(tar({"m.gguf": write_chain(tmp_path / "m.gguf", WORDS).read_bytes()}), packing)
    (tmp_path / "weights").write_bytes(archive)
    media_type = f"application/vnd.cncf.model.weight.v1.{packing}"
    repository = "oras/packed-" + packing.replace("+", "-")
    with pulled(store, registry, oras_push(host, repository, [f"weights:{media_type}"], tmp_path)) as digest:
        answers(store, digest)


@pytest.mark.registry
@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_we_push_and_oras_pulls(host: str, registry: OciRegistry, tmp_path: Path, format: Format) -> None:
    """oras pulls what we pushed, under the names that the files had."""
    store = new_store(tmp_path / "store")
    file = write_chain(tmp_path / "m.gguf", WORDS)
    name = f"{host}/me/for-oras-{format}:v1"
    package(store, file, name, format=format)
    push(store, name, registry, parse_ref(name))
    out = tmp_path / "out"
    out.mkdir()
    if shutil.which("oras"):
        run("oras", "pull", "--plain-http", "-o", out, name)
    else:
        oras.client.OrasClient(insecure=True).pull(target=name, outdir=str(out))
    assert (out / "m.gguf").read_bytes() == file.read_bytes()


class Recorder:
    """A destination that takes everything and says what it was given."""

    def __init__(self) -> None:
        self.blobs: list[PushBlob] = []
        self.manifests: list[str] = []

    def push(
        self, ref: Ref, manifest: bytes, media_type: str, blobs: Sequence[PushBlob],
        progress: Progress = lambda digest, done, size: None,
    ) -> str:  # fmt: skip
        self.blobs += blobs
        self.manifests.append(str(ref))
        for blob in blobs:
            with blob.open() as file:
                assert len(file.read()) == blob.descriptor.size
        return "sha256:" + "0" * 64


def test_known_repositories_are_named_for_mounting(tmp_path: Path) -> None:
    """A push says which other repository of the same registry has a blob, and no repository of another one."""
    store = new_store(tmp_path / "store")
    file = write_chain(tmp_path / "m.gguf", WORDS)
    digest = package(store, file, "ghcr.io/upstream/model:v1").digest
    package(store, file, "quay.io/other/model:v1")
    package(store, file, "ghcr.io/me/copy:v1")
    to = Recorder()
    push(store, "ghcr.io/me/copy:v1", to, parse_ref("ghcr.io/me/copy:v1"))
    assert {blob.mount_from for blob in to.blobs} == {"upstream/model"}
    assert digest in store.names()[0].descriptor.digest


def test_what_cannot_be_pushed(tmp_path: Path) -> None:
    """A push to what is no OCI registry, of a model that is not here, or under another digest is refused first."""
    store = new_store(tmp_path / "store")
    made = package(store, write_chain(tmp_path / "m.gguf", WORDS), "ghcr.io/me/model:v1")
    to = Recorder()
    with pytest.raises(CallerError, match="no OCI registry"):
        push(store, "ghcr.io/me/model:v1", to, Ref("hf", "hf.co", "me/model"))
    with pytest.raises(NotInStore, match="no model is called"):
        push(store, "ghcr.io/me/none:v1", to, parse_ref("ghcr.io/me/none:v1"))
    with pytest.raises(CallerError, match="not sha256:1111"):
        push(store, "ghcr.io/me/model:v1", to, Ref("oci", "ghcr.io", "me/model", digest="sha256:" + "1" * 64))
    assert to.manifests == []
    store.layout.blob(made.files[0].descriptor.digest).unlink()
    with pytest.raises(NotInStore):
        push(store, "ghcr.io/me/model:v1", to, parse_ref("ghcr.io/me/model:v1"))


def test_an_index_goes_after_its_manifests(tmp_path: Path) -> None:
    """Of an index, which another tool may have put into the store, the manifests are sent first."""
    store = new_store(tmp_path / "store")
    made = package(store, write_chain(tmp_path / "m.gguf", WORDS), "ghcr.io/me/model:v1")
    named = store.lookup("ghcr.io/me/model:v1")
    assert named is not None
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [named.descriptor.as_data()]}  # fmt: skip
    digest, size = store.add_bytes(json.dumps(index).encode())
    store.set_name("ghcr.io/me/index:v1", Descriptor(index["mediaType"], digest, size))  # type: ignore[arg-type]
    to = Recorder()
    push(store, "ghcr.io/me/index:v1", to, parse_ref("ghcr.io/me/index:v1"))
    assert to.manifests == [f"ghcr.io/me/index@{made.digest}", "ghcr.io/me/index:v1"]
