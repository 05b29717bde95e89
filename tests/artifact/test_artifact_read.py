"""Reading manifests of every format, sound and hostile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.artifact import Artifact, read_artifact, safe_path
from corral.artifact import media as m
from corral.descriptors import DOCKER_MANIFEST, Descriptor
from corral.errors import ManifestError
from support.artifacts import CNCF, OLLAMA, descriptor, manifest

GGUF = b"GGUF a model"


def read(layers: list[Descriptor], config_type: str = "", config: dict[str, Any] | None = None) -> Artifact:
    return read_artifact(manifest(layers, descriptor(config_type, b"{}") if config_type else None), config or {})


def roles(artifact: Artifact) -> list[tuple[str, str]]:
    return [(file.role, file.path) for file in artifact.files]


def test_docker_flat() -> None:
    """Docker's v0.1 has no names: each layer gets the usual one for its media type."""
    artifact = read(
        [
            descriptor(m.DOCKER_GGUF, GGUF),
            descriptor(m.DOCKER_LICENSE, b"MIT"),
            descriptor(m.DOCKER_LICENSE, b"more"),
            descriptor(m.DOCKER_MMPROJ, b"proj"),
            descriptor(m.DOCKER_LORA, b"lora"),
            descriptor(m.DOCKER_TEMPLATE, b"{{ x }}"),
        ],
        m.DOCKER_CONFIG_V01,
        {
            "config": {"format": "gguf", "quantization": "Q4_K_M", "parameters": "361.82 M", "architecture": "llama",
                       "context_size": 4096},
            "descriptor": {"created": "2026-01-02T03:04:05Z"},
        },
    )  # fmt: skip
    assert roles(artifact) == [
        ("weights", "model.gguf"),
        ("license", "LICENSE"),
        ("license", "LICENSE-2"),
        ("mmproj", "mmproj.gguf"),
        ("adapter", "adapter.gguf"),
        ("template", "template.jinja"),
    ]
    assert (artifact.flavour, artifact.format, artifact.quantization, artifact.parameters, artifact.architecture) == (
        "docker", "gguf", "Q4_K_M", "361.82 M", "llama",
    )  # fmt: skip
    assert (artifact.context_size, artifact.created) == (4096, "2026-01-02T03:04:05Z")


def test_docker_shards_without_names() -> None:
    """Several GGUF layers of a Docker model are its pieces in order, named so that llama.cpp finds them."""
    artifact = read([descriptor(m.DOCKER_GGUF, bytes([65 + i])) for i in range(3)], m.DOCKER_CONFIG_V01)
    assert roles(artifact) == [
        ("weights", "model-00001-of-00003.gguf"),
        ("shard", "model-00002-of-00003.gguf"),
        ("shard", "model-00003-of-00003.gguf"),
    ]


def test_docker_tree() -> None:
    """Docker's v0.2 has a path for each layer, and archives of configs."""
    artifact = read(
        [
            descriptor(m.DOCKER_SAFETENSORS, b"1", path="model-00001-of-00002.safetensors"),
            descriptor(m.DOCKER_SAFETENSORS, b"2", path="model-00002-of-00002.safetensors"),
            descriptor(m.DOCKER_FILE, b"3", path="config.json"),
            descriptor(m.DOCKER_FILE, b"4", path="sub/tokenizer.json"),
            descriptor(m.DOCKER_TARS[0], b"5"),
        ],
        m.DOCKER_CONFIG_V02,
        {"config": {"format": "safetensors"}},
    )
    assert roles(artifact)[:4] == [
        ("weights", "model-00001-of-00002.safetensors"),
        ("weights", "model-00002-of-00002.safetensors"),
        ("config", "config.json"),
        ("config", "sub/tokenizer.json"),
    ]
    assert artifact.packed
    assert artifact.files[4].packing == "tar"


def test_cncf() -> None:
    """ModelPack layers of each packing, with what its config claims."""
    artifact = read(
        [
            descriptor(CNCF + "weight.v1.raw", GGUF, path="m.gguf"),
            descriptor(CNCF + "weight.v1.raw", b"p", path="mmproj-m-f16.gguf"),
            descriptor(CNCF + "weight.config.v1.tar+gzip", b"1"),
            descriptor(CNCF + "weight.config.v1.raw", b"t", path="chat_template.jinja"),
            descriptor(CNCF + "doc.v1.raw", b"2", path="LICENSE"),
            descriptor(CNCF + "doc.v1.tar+zstd", b"3", path="docs"),
            descriptor(CNCF + "code.v1.tar", b"4", path="code"),
            descriptor(CNCF + "dataset.v1.raw", b"5", path="data.gguf"),
        ],
        m.CNCF_CONFIG,
        {
            "descriptor": {"name": "Named", "licenses": ["MIT", 3], "createdAt": "2026-01-01T00:00:00Z"},
            "config": {"format": "GGUF", "paramSize": "8b", "precision": "fp16", "architecture": "transformer",
                       "capabilities": {"inputTypes": ["text", "image"], "toolUsage": True, "reasoning": False}},
            "modelfs": {"type": "layers", "diffIds": []},
        },
    )  # fmt: skip
    assert roles(artifact) == [
        ("weights", "m.gguf"),
        ("mmproj", "mmproj-m-f16.gguf"),
        ("config", "archive"),
        ("template", "chat_template.jinja"),
        ("license", "LICENSE"),
        ("other", "docs"),
        ("other", "code"),
        ("other", "data.gguf"),
    ]
    assert [file.packing for file in artifact.files if file.packing != "raw"] == ["tar+gzip", "tar+zstd", "tar"]
    assert (artifact.format, artifact.parameters, artifact.quantization) == ("gguf", "8b", "fp16")
    assert (artifact.licenses, artifact.capabilities, artifact.name) == (("MIT",), ("tools", "vision"), "Named")


def test_ollama() -> None:
    """All of Ollama's layer types are honoured."""
    kinds = ["model", "projector", "adapter", "template", "system", "params", "messages", "license", "draft", "embed"]
    data = manifest(
        [descriptor(OLLAMA + kind, kind.encode()) for kind in kinds], descriptor(m.OLLAMA_CONFIG, b"{}")
    ) | {"mediaType": DOCKER_MANIFEST}
    config = {"model_format": "gguf", "model_family": "llama", "model_type": "3.2B", "file_type": "Q4_K_M"}
    artifact = read_artifact(data, config)
    assert roles(artifact) == [
        ("weights", "model.gguf"),
        ("mmproj", "mmproj.gguf"),
        ("adapter", "adapter.gguf"),
        ("template", "template.jinja"),
        ("system", "system.txt"),
        ("params", "params.json"),
        ("messages", "messages.json"),
        ("license", "LICENSE"),
        ("draft", "draft.gguf"),
        ("other", "file.bin"),
    ]
    assert (artifact.parameters, artifact.quantization, artifact.architecture) == ("3.2B", "Q4_K_M", "llama")


@pytest.mark.parametrize("title", ["model.Q4.gguf", ""])
def test_plain(title: str) -> None:
    """A plain OCI artifact with one file is a GGUF model, with or without a title and a config."""
    artifact = read([descriptor("application/octet-stream", GGUF, **({"title": title} if title else {}))])
    assert roles(artifact) == [("weights", title or "model.gguf")]
    assert (artifact.flavour, artifact.format) == ("plain", "gguf")


def test_types_of_oras() -> None:
    """oras calls every plain file a tar layer: only those it marks, and nameless ones, are archives."""
    kind = "application/vnd.oci.image.layer.v1.tar"
    artifact = read(
        [
            descriptor(kind, GGUF, title="m.gguf"),
            descriptor(kind + "+gzip", b"1", title="docs", **{m.ORAS_UNPACK: "true"}),
            descriptor(kind, b"2"),
        ]
    )
    assert [file.packing for file in artifact.files] == ["raw", "tar+gzip", "tar"]
    assert roles(artifact)[0] == ("weights", "m.gguf")


def test_plain_with_company() -> None:
    """Other files beside the one GGUF are told by their names."""
    artifact = read(
        [
            descriptor("application/x", b"1", title="README.md"),
            descriptor("application/x", GGUF, title="m.gguf"),
            descriptor("application/x", b"2", title="mmproj-F16.gguf"),
            descriptor("application/x", b"3", title="my.lora.gguf"),
            descriptor("application/x", b"4", title="LICENSE.txt"),
        ]
    )
    assert [role for role, _ in roles(artifact)] == ["other", "weights", "mmproj", "adapter", "license"]


def test_shards_are_sorted() -> None:
    """The pieces of a split model are in their order whatever the manifest's, and all of them must be there."""
    pieces = [descriptor("application/x", bytes([65 + i]), title=f"m-0000{i}-of-00003.gguf") for i in (3, 1, 2)]
    assert [path for _, path in roles(read(pieces))] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with pytest.raises(ManifestError, match="some files of its split model are missing"):
        read([descriptor("application/x", bytes([i]), title=f"m-0000{i}-of-00003.gguf") for i in (1, 2)])


def test_the_same_file_twice_is_one() -> None:
    """A layer that is listed twice counts once, and other content under the same path is refused."""
    twice = [descriptor("application/x", GGUF, title="m.gguf"), descriptor("application/x", b"a", title="a.json")]
    assert len(read([*twice, twice[1]]).files) == 2
    with pytest.raises(ManifestError, match="two of its files have the path"):
        read([*twice, descriptor("application/x", b"b", title="a.json")])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "no layers"),
        ({"layers": []}, "no layers"),
        ({"layers": {}}, "no layers"),
        ({"layers": [3]}, "a descriptor is an object"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:../../etc/passwd", "size": 1}]}, "is no digest"),
        ({"layers": [{"mediaType": "x", "digest": "sha512:" + "0" * 128, "size": 1}]}, "is no digest"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": -1}]}, "size is -1"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}] * 5000}, "5000 layers"),
        ({"manifests": [], "config": {}}, "size is None"),
    ],
)
def test_damaged(data: dict[str, Any], why: str) -> None:
    """A manifest that is no manifest is refused with the reason."""
    with pytest.raises(ManifestError, match=why):
        read_artifact(data, {})


@pytest.mark.parametrize("context", [-1, 1 << 40, "many", True, 2.5])
def test_absurd_context(context: object) -> None:
    """A context size that cannot be is refused, not passed on to an engine."""
    with pytest.raises(ManifestError, match="context size"):
        read([descriptor(m.DOCKER_GGUF, GGUF)], m.DOCKER_CONFIG_V01, {"config": {"context_size": context}})


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([descriptor(m.DOCKER_LICENSE, b"MIT", path="LICENSE")], "none of its layers is a model"),
        ([descriptor("application/vnd.oci.image.config.v1+json", b"{}", title="a.md")], "none of its layers"),
        ([descriptor("x/x", b"1", title="a.gguf"), descriptor("x/x", b"2", title="b.gguf")], "several models: a.gguf"),
        ([descriptor("x/x", b"1", title="a.gguf"), descriptor("x/x", b"2", title="a.gguf/b.json")], "goes through"),
        ([descriptor(OLLAMA + "tensor;name=a;dtype=F16", b"1")], "single tensors"),
    ],
)  # fmt: skip
def test_no_model(layers: list[Descriptor], why: str) -> None:
    """What is no model, or more than one, is refused with the reason."""
    with pytest.raises(ManifestError, match=why):
        read(layers)


@pytest.mark.parametrize(
    "path",
    ["../m.gguf", "a/../../m.gguf", "/etc/passwd", "a\\..\\b", "C:/x", "a//b", "a/./b", "", ".", "..", "a\0b", "a\nb",
     "a\u202eb", "a\u200bb", "a/" * 20 + "b", "x" * 300, "x/" + "y" * 1100, "\ud800"],
)  # fmt: skip
def test_unsafe_paths(path: str) -> None:
    """No path of a layer can lead out of the model's directory or hide what it is."""
    with pytest.raises(ManifestError, match="is refused"):
        safe_path(path)


@given(st.text(max_size=60))
def test_safe_paths_stay_inside(text: str) -> None:
    """Whatever `safe_path` lets pass is relative, has no empty or climbing part, and is accepted again."""
    try:
        path = safe_path(text)
    except ManifestError:
        return
    parts = path.split("/")
    assert path == safe_path(path)
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(parts)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_KEYS = st.sampled_from(["config", "descriptor", "layers", "modelfs", "model_format", "format", "capabilities"])


@given(st.dictionaries(_KEYS, _JSON), st.sampled_from([m.DOCKER_CONFIG_V01, m.CNCF_CONFIG, m.OLLAMA_CONFIG, "x/y"]))
def test_any_config_is_read_or_refused(config: dict[str, Any], kind: str) -> None:
    """A config of any shape never brings the reader down."""
    try:
        read([descriptor(OLLAMA + "model", GGUF)], kind, config)
    except ManifestError as error:
        assert error.hint
