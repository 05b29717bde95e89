"""Building manifests, deterministic and read back the same."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.artifact import Facts, File, build_cncf, build_docker, read_artifact
from corral.artifact import media as m
from corral.descriptors import digest_of
from corral.errors import ManifestError
from support.artifacts import descriptor

FILES = [
    File("weights", "m-00001-of-00002.gguf", descriptor("", b"1")),
    File("shard", "m-00002-of-00002.gguf", descriptor("", b"2")),
    File("mmproj", "vision.gguf", descriptor("", b"3")),
    File("adapter", "style.gguf", descriptor("", b"4")),
    File("template", "chat.jinja", descriptor("", b"5")),
    File("license", "LICENSE", descriptor("", b"6")),
]
FACTS = Facts(
    "gguf", architecture="llama", parameters=361_821_120, quantization="Q4_K_M", size=270_598_523, context_size=8192,
    name="SmolLM2", licenses=("Apache-2.0",), capabilities=("completion", "tools", "vision"),
)  # fmt: skip


@pytest.mark.parametrize("build", [build_docker, build_cncf])
def test_read_back(build: object) -> None:
    """What is built reads back with the same roles, paths, digests and facts, in both formats."""
    built = build(FILES, FACTS)  # type: ignore[operator]
    artifact = read_artifact(json.loads(built.manifest), json.loads(built.config))
    assert [(f.role, f.path, f.descriptor.digest) for f in artifact.files] == [
        (f.role, f.path, f.descriptor.digest) for f in FILES
    ]
    assert (artifact.format, artifact.architecture, artifact.quantization) == ("gguf", "llama", "Q4_K_M")
    assert artifact.context_size == 8192
    assert built.digest == digest_of(built.manifest)
    assert json.loads(built.manifest)["config"]["digest"] == digest_of(built.config)


def test_docker_bytes() -> None:
    """Docker's format to the letter, for a single file: another tool's digest of it would be the same."""
    built = build_docker([File("weights", "m.gguf", descriptor("", b"1"))], Facts("gguf", quantization="F16"))
    one = digest_of(b"1")
    assert json.loads(built.config) == {
        "config": {"format": "gguf", "quantization": "F16"},
        "descriptor": {},
        "rootfs": {"type": "rootfs", "diff_ids": [one]},
    }
    assert json.loads(built.manifest) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": m.DOCKER_CONFIG_V01, "digest": digest_of(built.config), "size": len(built.config)},
        "layers": [
            {
                "mediaType": m.DOCKER_GGUF,
                "digest": one,
                "size": 1,
                "annotations": {m.FILEPATH: "m.gguf", m.OCI_TITLE: "m.gguf"},
            }
        ],
    }


def test_docker_figures() -> None:
    """Counts and sizes are written as Docker's own tool writes them."""
    inner = json.loads(build_docker(FILES, FACTS).config)["config"]
    assert (inner["parameters"], inner["size"], inner["context_size"]) == ("361.82 M", "270.60 MB", 8192)


def test_cncf_figures() -> None:
    """The CNCF's `paramSize` has one digit after the point and a letter."""
    built = build_cncf(FILES, FACTS)
    config = json.loads(built.config)
    assert config["config"]["paramSize"] == "361.8M"
    assert config["config"]["capabilities"]["inputTypes"] == ["text", "image"]
    assert config["descriptor"] == {"name": "SmolLM2", "licenses": ["Apache-2.0"]}
    assert len(config["modelfs"]["diffIds"]) == len(FILES)
    assert json.loads(built.manifest)["artifactType"] == m.CNCF_ARTIFACT


def test_trees_are_v02() -> None:
    """Safetensors models and nested paths need Docker's v0.2, flat GGUF models stay readable by older tools."""
    tree = [
        File("weights", "a.safetensors", descriptor("", b"1")),
        File("config", "x/config.json", descriptor("", b"2")),
    ]
    built = build_docker(tree, Facts("safetensors"))
    assert built.config_type == m.DOCKER_CONFIG_V02
    assert build_docker(FILES, FACTS).config_type == m.DOCKER_CONFIG_V01
    assert [f.path for f in read_artifact(json.loads(built.manifest), json.loads(built.config)).files] == [
        "a.safetensors", "x/config.json",
    ]  # fmt: skip


@given(st.randoms())
def test_order_does_not_matter(chance: random.Random) -> None:
    """The same files give the same bytes in whatever order they were found."""
    shuffled = list(FILES)
    chance.shuffle(shuffled)
    assert build_docker(shuffled, FACTS) == build_docker(FILES, FACTS)
    assert build_cncf(shuffled, FACTS) == build_cncf(FILES, FACTS)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "no model among the files"),
        ([FILES[5]], "no model among the files"),
        ([FILES[0], FILES[0]], "the same path"),
        ([File("weights", "../m.gguf", descriptor("", b"1"))], "is refused"),
        ([File("weights", "m.gguf", descriptor("", b"1"), "tar")], "packed"),
    ],
)
def test_refused(files: list[File], why: str) -> None:
    """What would make no sound model is not built."""
    with pytest.raises(ManifestError, match=why):
        build_docker(files, FACTS)
