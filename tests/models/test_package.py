"""Packaging files as models in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFWriter

from corral.artifact import media as m
from corral.artifact import read_artifact
from corral.errors import CallerError, CorralError, ModelFileError
from corral.models.content import read_content
from corral.models.making.package import Format, package
from corral.models.unpack import place
from corral.store.store import Store
from support.artifacts import new_store, safetensors
from support.ggufs import corrupt, write_chain, write_random
from support.splits import split

NAME = "localhost:5000/me/model:v1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_chain(tmp_path / "chain.gguf", ["a", "b"])


def write_part(path: Path, kind: str, architecture: str = "llama") -> Path:
    """A GGUF file that is an adapter or a projector by its header."""
    writer = GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def roles(store: Store, digest: str) -> list[tuple[str, str]]:
    return [(file.role, file.path) for file in read_content(store, digest).artifact.files]


@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_everything(store: Store, gguf: Path, tmp_path: Path, format: Format) -> None:
    """A model with all that may go with it reads back whole in both formats."""
    (tmp_path / "MIT.txt").write_text("MIT License\n")
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    made = package(
        store, gguf, NAME, format=format, context_size=1024,
        license=[tmp_path / "MIT.txt"], template=tmp_path / "chat.jinja",
        mmproj=write_part(tmp_path / "mm.gguf", "mmproj", "clip"), lora=[write_part(tmp_path / "l.gguf", "adapter")],
    )  # fmt: skip
    assert roles(store, made.digest) == [
        ("weights", "chain.gguf"),
        ("mmproj", "mmproj.gguf"),
        ("adapter", "adapter.gguf"),
        ("template", "template.jinja"),
        ("license", "LICENSE"),
    ]
    content = read_content(store, made.digest)
    assert (content.template, content.licenses, content.context_size) == ("{{ messages }}", ("MIT License\n",), 1024)
    assert (content.artifact.architecture, content.artifact.quantization) == ("llama", "F16")
    placed = place(store, made.digest)
    assert placed.template is not None
    assert (placed.mmproj, len(placed.adapters)) == (placed.directory / "mmproj.gguf", 1)
    named = store.lookup(NAME)
    assert named is not None
    assert named.descriptor.digest == made.digest
    assert sum(made.how.values()) == 5


def test_deterministic(store: Store, gguf: Path, tmp_path: Path) -> None:
    """The same files give the same digest elsewhere, whenever and however they get into a store."""
    other = new_store(tmp_path / "other")
    one = package(store, gguf, NAME)
    two = package(other, gguf, "localhost/another:name", how="copy")
    assert one.digest == two.digest
    assert (two.how, gguf.exists()) == ({"copy": 1}, True)


def test_any_name(store: Store, gguf: Path) -> None:
    """A GGUF file may be called anything: in the model it has the ending that tells what it is."""
    blob = gguf.rename(gguf.with_name("sha256-abcdef"))
    assert roles(store, package(store, blob, NAME).digest) == [("weights", "sha256-abcdef.gguf")]


def test_split_model(store: Store, gguf: Path, tmp_path: Path) -> None:
    """Of a split model the first file stands for all."""
    pieces = split(gguf, tmp_path / "pieces", 3)
    found = roles(store, package(store, pieces[0], NAME).digest)
    assert [role for role, _ in found] == ["weights", "shard", "shard"]
    assert [path for _, path in found] == [piece.name for piece in pieces]
    with pytest.raises(ModelFileError, match="not the first file"):
        package(store, pieces[1], NAME)
    pieces[2].unlink()
    with pytest.raises(ModelFileError, match="are not there"):
        package(store, pieces[0], NAME)


def test_directory_with_a_gguf(store: Store, gguf: Path, tmp_path: Path) -> None:
    """A directory's GGUF model takes its template, licence and documents along; what is hidden or a pickle stays."""
    root = tmp_path / "dir"
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "config").write_text("")
    gguf.rename(root / "m.gguf")
    for name in ("LICENSE", "README.md", "chat_template.jinja", "pytorch_model.bin", "half.gguf.part"):
        (root / name).write_text(name)
    made = package(store, root, NAME)
    assert roles(store, made.digest) == [
        ("weights", "m.gguf"),
        ("template", "chat_template.jinja"),
        ("license", "LICENSE"),
        ("other", "README.md"),
    ]
    assert made.left_out == ("half.gguf.part", "pytorch_model.bin")
    assert store.manifest(made.digest)["config"]["mediaType"] == m.DOCKER_CONFIG_V02


def test_directory_with_several_models(store: Store, tmp_path: Path) -> None:
    """A directory with two models is not guessed about."""
    (tmp_path / "d").mkdir()
    write_random(tmp_path / "d" / "a.gguf")
    write_random(tmp_path / "d" / "b.gguf", seed=2)
    with pytest.raises(CallerError, match=r"several models: a\.gguf and b\.gguf"):
        package(store, tmp_path / "d", NAME)


@pytest.mark.parametrize("format", ["docker", "cncf"])
def test_safetensors_directory(store: Store, tmp_path: Path, format: Format) -> None:
    """A safetensors directory, its links followed as Hugging Face's cache has them, is placed as it was."""
    root, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    (root / "sub").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0a").write_bytes(safetensors({"w": ("BF16", [8], b"\0" * 16)}))
    (root / "model.safetensors").symlink_to("../blobs/0a")
    (root / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    (root / "sub" / "tokenizer.json").write_text("{}")
    (root / "loop").symlink_to(".")
    made = package(store, root, NAME, format=format)
    placed = place(store, made.digest)
    assert placed.main == placed.directory
    assert sorted(str(p.relative_to(placed.directory)) for p in placed.directory.rglob("*") if p.is_file()) == [
        "config.json", "model.safetensors", "sub/tokenizer.json",
    ]  # fmt: skip
    artifact = read_content(store, made.digest).artifact
    assert (artifact.format, artifact.architecture, artifact.quantization) == ("safetensors", "llama", "bf16")


def test_single_safetensors_file(store: Store, tmp_path: Path) -> None:
    """One safetensors file takes the configs beside it along."""
    (tmp_path / "model.safetensors").write_bytes(safetensors({"w": ("F16", [2], b"\0" * 4)}))
    (tmp_path / "config.json").write_text("{}")
    assert [path for _, path in roles(store, package(store, tmp_path / "model.safetensors", NAME).digest)] == [
        "model.safetensors", "config.json",
    ]  # fmt: skip


def test_what_is_wrong_is_said_first(store: Store, gguf: Path, tmp_path: Path) -> None:
    """Nothing is named when any of the files is not what it should be."""
    adapter = write_part(tmp_path / "adapter.gguf", "adapter")
    foreign = write_part(tmp_path / "foreign.gguf", "adapter", "qwen3")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    damaged = corrupt(write_random(tmp_path / "damaged.gguf"), "truncated tensors")
    cases: list[tuple[str, dict[str, object]]] = [
        ("there is no file", {"path": tmp_path / "none"}),
        ("has no model in it", {"path": tmp_path / "empty"}),
        ("truncated", {"path": damaged}),
        ("is not a GGUF file", {"path": tmp_path / "binary"}),
        ("no model of its own but an adapter", {"path": adapter}),
        ("is a model and no projector", {"path": gguf, "mmproj": gguf}),
        ("is a model and no adapter", {"path": gguf, "lora": [gguf]}),
        ("made for qwen3 models", {"path": gguf, "lora": [foreign]}),
        ("no UTF-8 text", {"path": gguf, "template": tmp_path / "binary"}),
        ("there is no file", {"path": gguf, "license": [tmp_path / "none"]}),
        ("no context size", {"path": gguf, "context_size": -1}),
    ]
    for why, given in cases:
        path = given.pop("path")
        with pytest.raises(CorralError, match=why) as caught:
            package(store, path, NAME, **given)  # type: ignore[arg-type]
        assert caught.value.hint
    assert store.names() == []


def test_own_manifest_is_read_by_the_specification(store: Store, gguf: Path) -> None:
    """A CNCF manifest of ours has the specification's artifact type, and diff ids in the order of its layers."""
    made = package(store, gguf, NAME, format="cncf")
    manifest = store.manifest(made.digest)
    config = store.read_json(manifest["config"]["digest"])
    assert manifest["artifactType"] == m.CNCF_ARTIFACT
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert read_artifact(manifest, config).parameters == config["config"]["paramSize"]
