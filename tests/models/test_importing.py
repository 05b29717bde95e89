"""Importing: nothing copied where a link will do, everything hashed once, and the user told what it depends on."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.artifact import Facts, File, build_docker
from corral.descriptors import Descriptor, digest_of
from corral.errors import DigestMismatch, ManifestError, ModelFileError, NotInStore, SignatureError, Unavailable
from corral.models.content import read_content
from corral.models.importing import (
    Imported,
    NotImported,
    import_all,
    import_model,
    list_models,
)
from corral.models.peers.outside import OutsideModel
from corral.models.roots import models_in
from corral.refs import Ref
from corral.registry.egress import Egress
from corral.store.store import Store
from support.artifacts import new_store
from support.ggufs import write_chain, write_random
from support.http_servers import QuietHandler, running
from support.peer_stores import docker_model, write_docker, write_hub, write_ollama

LINKS = ("reflink", "hardlink")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def gguf(tmp_path: Path) -> bytes:
    """Two megabytes, so that it is no small file."""
    return write_random(tmp_path / "source.gguf", mib=2).read_bytes()


def test_an_ollama_model_keeps_its_digest(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """What Ollama pulled is, once imported, the model its registry knows: same name, same digest, all its layers."""
    digest = write_ollama(tmp_path / "o", [("model", gguf), ("params", b'{"stop":["x"]}'), ("system", b"Be brief.")])
    (model,) = list_models("ollama", place=tmp_path / "o")
    imported = import_model(store, model)
    assert (imported.name, imported.digest) == ("registry.ollama.ai/library/tiny:latest", digest)
    assert imported.how in LINKS and imported.bytes_added < 1000 < imported.size_bytes
    named = store.lookup(imported.name)
    assert named is not None and named.descriptor.digest == digest
    assert named.descriptor.annotations["corral.imported-from"] == "ollama"
    content = read_content(store, digest)
    assert content.system == "Be brief." and content.params["stop"] == ["x"]


def test_a_hard_link_outlives_the_other_tools_copy(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """After a hard link the other tool may prune: the model stays, and the note says so."""
    write_ollama(tmp_path / "o", [("model", gguf)])
    (model,) = list_models("ollama", place=tmp_path / "o")
    imported = import_model(store, model, way="hardlink")
    assert imported.how == "hardlink" and imported.bytes_added == 0
    assert "Ollama deletes" in imported.note and "the model stays here" in imported.note
    shutil.rmtree(tmp_path / "o")
    blob = store.blob(model.files[0].digest or "")
    assert blob.path.read_bytes() == gguf


def test_a_reference_notices_that_the_other_tool_pruned(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """A reference stays in place and costs nothing; once the file is gone or changed, the store says where it was."""
    write_ollama(tmp_path / "o", [("model", gguf)])
    (model,) = list_models("ollama", place=tmp_path / "o")
    imported = import_model(store, model, way="reference")
    assert imported.how == "reference" and str(tmp_path / "o") in imported.note
    digest = model.files[0].digest or ""
    assert store.blob(digest).kind == "external"
    assert store.lookup(imported.name) is not None
    config = next(file for file in model.files if file.role == "config")
    assert store.blob(config.digest or "").kind == "file"
    os.utime(model.files[0].path, ns=(1, 1))
    with pytest.raises(NotInStore, match="has changed"):
        store.blob(digest)
    shutil.rmtree(tmp_path / "o")
    with pytest.raises(NotInStore, match="is gone"):
        store.blob(digest)


def test_a_copy_says_what_it_cost(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """A copy depends on nobody, and every byte of it is told."""
    write_docker(tmp_path / "d", {gguf: ["ai/tiny:latest"]})
    (model,) = list_models("docker", place=tmp_path / "d")
    imported = import_model(store, model, way="copy")
    assert imported.how == "copy" and imported.bytes_added == model.size_bytes == imported.size_bytes
    again = import_model(store, model)
    assert (again.how, again.bytes_added) == ("present", 0)


def test_between_file_systems_it_is_a_reference(store: Store, tmp_path: Path, gguf: bytes) -> None:
    """Where no link is possible the file stays in place rather than being copied, and the note says why."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        write_ollama(Path(other), [("model", gguf)])
        (model,) = list_models("ollama", place=Path(other))
        imported = import_model(store, model)
    assert imported.how == "reference" and "another file system" in imported.note


def test_a_file_that_is_not_its_digest_is_refused(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """A peer's names are claims: a blob with other content of the same size is refused, and nothing is named."""
    write_ollama(tmp_path / "o", [("model", gguf)])
    (model,) = list_models("ollama", place=tmp_path / "o")
    model.files[0].path.write_bytes(gguf[:-1] + b"?")
    with pytest.raises(DigestMismatch, match="not what its owner's records say"):
        import_model(store, model)
    assert store.names() == []


def test_plain_files_become_a_model(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """Files without a manifest get one, the same each time; a truncated file is refused before it is hashed."""
    (tmp_path / "lm/Pub/Tiny").mkdir(parents=True)
    path = tmp_path / "lm/Pub/Tiny/tiny-Q8_0.gguf"
    path.write_bytes(gguf)
    (model,) = list_models("lmstudio", place=tmp_path / "lm")
    imported = import_model(store, model)
    assert imported.name == "localhost/lmstudio/pub/tiny:q8_0" and imported.how in LINKS
    assert import_model(store, model, name="me/mine:v1").digest == imported.digest
    assert {named.name for named in store.names()} == {imported.name, "docker.io/me/mine:v1"}
    layers = store.manifest(imported.digest)["layers"]
    assert layers[0]["annotations"]["org.cncf.model.filepath"] == "tiny-Q8_0.gguf"
    path.unlink()
    path.write_bytes(gguf[:-100])
    (model,) = list_models("lmstudio", place=tmp_path / "lm")
    with pytest.raises(ModelFileError, match="truncated"):
        import_model(store, model)


def test_a_hub_model_is_the_one_that_a_pull_would_make(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """Files of the Hugging Face cache come to the manifest that Corral's own pull makes of the same files."""
    write_hub(tmp_path / "hub", "org/Tiny-GGUF", {"Tiny-Q8_0.gguf": gguf})
    (model,) = list_models("hf", place=tmp_path / "hub")
    imported = import_model(store, model)
    weights = File("weights", "Tiny-Q8_0.gguf", Descriptor("", digest_of(gguf), len(gguf)))
    pulled = build_docker([weights], Facts("gguf", quantization="Q8_0", size=len(gguf)))
    assert (imported.name, imported.digest) == ("hf.co/org/Tiny-GGUF:Q8_0", pulled.digest)


def test_importing_all_goes_on_after_a_bad_one(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """One damaged model does not keep the others out, and its reason is in the result."""
    write_ollama(tmp_path / "o", [("model", gguf)], name="registry.ollama.ai/library/a/latest")
    write_ollama(tmp_path / "o", [("license", b"MIT")], name="registry.ollama.ai/library/b/latest")
    write_ollama(tmp_path / "o", [("model", gguf)], name="registry.ollama.ai/library/c/latest")
    results = list(import_all(store, list_models("ollama", place=tmp_path / "o")))
    assert [type(result) for result in results] == [Imported, NotImported, Imported]
    assert isinstance(results[1], NotImported) and results[1].error.hint
    assert len(store.names()) == 2


def test_a_policy_holds_for_imports_too(tmp_path: Path, store: Store, gguf: bytes) -> None:
    """What `verify` refuses is not named, and a model with a manifest is refused before it is read."""
    digest = write_ollama(tmp_path / "o", [("model", gguf)])
    (model,) = list_models("ollama", place=tmp_path / "o")
    asked: list[tuple[Ref, str]] = []

    def verify(ref: Ref, found: str) -> None:
        asked.append((ref, found))
        raise SignatureError("not signed", hint="sign it")

    with pytest.raises(SignatureError):
        import_model(store, model, verify=verify)
    assert asked == [(model.ref, digest)] and store.names() == [] and store.find(model.files[0].digest or "") is None


def test_a_file_is_imported_by_its_path(tmp_path: Path, store: Store) -> None:
    """One file or folder is imported as a peer's model is, without a peer."""
    write_chain(tmp_path / "my model.gguf", ["a", "b"])
    (model,) = models_in(tmp_path / "my model.gguf")
    imported = import_model(store, model)
    assert imported.name == "localhost/my-model:latest" and imported.digest


# Another user's files ------------------------------------------------------------------------------------------------


def as_nobody(work: Callable[[], Any]) -> Any:
    """What `work` gives or raises in a child process that is no longer root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            outcome: Any = work()
        except BaseException as error:  # noqa: BLE001
            outcome = error
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(outcome if not isinstance(outcome, BaseException) else repr(outcome), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pickle.load(pipe)
    os.waitpid(child, 0)
    return outcome


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_users_file_is_referred_to_with_the_reason() -> None:
    """Where fs.protected_hardlinks forbids a link to the service's file, it is a reference, and the note says so."""
    switch = Path("/proc/sys/fs/protected_hardlinks")
    if not switch.exists() or switch.read_text().strip() == "0":
        pytest.skip("this kernel lets anybody link anything")
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        base = Path(made)
        base.chmod(0o755)
        gguf = write_random(base / "m.gguf", mib=2).read_bytes()
        write_ollama(base / "o", [("model", gguf)])
        (base / "home").mkdir()
        os.chown(base / "home", 65534, 65534)

        def work() -> tuple[str, str]:
            store = new_store(base / "home" / "store")
            (model,) = list_models("ollama", place=base / "o")
            imported = import_model(store, model)
            return imported.how, imported.note

        outcome = as_nobody(work)
        if isinstance(outcome, tuple) and outcome[0] == "reflink":
            pytest.skip("this file system shares blocks, which the kernel allows")
        how, note = outcome
        assert how == "reference" and "fs.protected_hardlinks" in note and "OLLAMA_NOPRUNE" in note


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_unreadable_store_says_how_to_be_let_in() -> None:
    """A peer's directory that this user may not read is an error with the way in, for Docker its API too."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        base = Path(made)
        base.chmod(0o755)
        write_docker(base / "d", {b"GGUF": ["ai/tiny"]})
        (base / "d").chmod(0o700)

        def work() -> str:
            try:
                list_models("docker", place=base / "d")
            except ModelFileError as error:
                return error.hint
            return ""

        hint = as_nobody(work)
        assert "setfacl" in hint and "whose API" in hint


# Docker's API --------------------------------------------------------------------------------------------------------


class DockerApi(QuietHandler):
    """The two routes that are needed, as Docker Model Runner answers them."""

    def do_GET(self) -> None:
        body = self.state.get(self.path)
        self.answer(404 if body is None else 200, body or b"no such model", {"Content-Type": "application/x-tar"})


def exported(manifest: bytes, blobs: dict[str, bytes], *extra: tuple[str, bytes]) -> bytes:
    """The archive that an export sends."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("blobs", "blobs/sha256"):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        contents = [(f"blobs/sha256/{digest[7:]}", content) for digest, content in blobs.items()]
        for name, content in [*contents, *extra, ("manifest.json", manifest)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@contextmanager
def api(manifest: bytes, archive: bytes) -> Iterator[tuple[Egress, OutsideModel]]:
    """Docker's API with one model, and that model as it is listed."""
    digest = digest_of(manifest)
    listed = json.dumps([{"id": digest, "tags": ["ai/tiny:latest"], "created": 0, "config": {}}, {"id": "x"}])
    state = {"/models": listed.encode(), f"/models/{digest}/export": archive}
    with running(DockerApi, state) as base, Egress() as egress:
        env = {"MODEL_RUNNER_HOST": base, "MODELS_PATH": "/nonexistent"}
        (model,) = list_models("docker", env=env, egress=egress)
        yield egress, model


def test_docker_exports_what_cannot_be_read(store: Store, gguf: bytes) -> None:
    """Through Docker's API a model comes with its own digest and tags, copied and checked."""
    manifest, blobs = docker_model(gguf)
    with api(manifest, exported(manifest, blobs)) as (egress, model):
        imported = import_model(store, model, egress=egress)
        assert (imported.name, imported.how, imported.digest) == ("docker.io/ai/tiny:latest", "copy", model.digest)
        assert imported.bytes_added == sum(map(len, blobs.values())) + len(manifest)
        assert import_model(store, model, egress=egress).how == "present"
    assert store.blob(next(iter(blobs))).kind == "file"


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "blobs/sha256/../../x", "blobs/sha512/00", "other"])
def test_an_export_with_anything_else_in_it_is_refused(store: Store, gguf: bytes, name: str) -> None:
    """An archive with a path that does not belong there is refused, and nothing is written outside the store."""
    manifest, blobs = docker_model(gguf)
    archive = exported(manifest, blobs, (name, b"x"))
    with api(manifest, archive) as (egress, model), pytest.raises(ManifestError, match="does not belong"):
        import_model(store, model, egress=egress)
    assert store.names() == []


def broken(archive: bytes, how: str) -> bytes:
    match how:
        case "cut":
            return archive[: len(archive) // 2]
        case "flipped":
            at = archive.index(b"GGUF") + 100_000
            return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
        case "no archive":
            return b"<html>" + bytes(4096)
        case _:
            return archive[:512] + b"\x80" + archive[513:]


@pytest.mark.parametrize("how", ["cut", "flipped", "no archive", "bad header"])
def test_a_damaged_export_leaves_nothing(store: Store, gguf: bytes, how: str) -> None:
    """A cut, changed or senseless answer is an error with its reason, and no name and no wrong blob are left."""
    manifest, blobs = docker_model(gguf)
    with api(manifest, broken(exported(manifest, blobs), how)) as (egress, model):
        with pytest.raises((ManifestError, DigestMismatch, Unavailable)) as caught:
            import_model(store, model, egress=egress)
        assert caught.value.hint
    assert store.names() == []


def test_an_export_that_lacks_a_blob_is_refused(store: Store, gguf: bytes) -> None:
    """A manifest is named only when every blob of it came."""
    manifest, blobs = docker_model(gguf)
    blobs.pop(next(iter(blobs)))
    archive = exported(manifest, blobs)
    with api(manifest, archive) as (egress, model), pytest.raises(ManifestError, match="lacks"):
        import_model(store, model, egress=egress)
    assert store.names() == []
