"""Which image a model gets, by what is asked for and what GPUs there are, as shipped and as changed."""

from __future__ import annotations

import json

import pytest

from corral.config.paths import Paths
from corral.errors import ConfigError
from corral.hardware.gpus import Gpu
from corral.runners.containers import catalogue, naming

NVIDIA = Gpu("nvidia", "A", "nvidia", "/dev/nvidia0")
AMD = Gpu("amd", "B", "amdgpu", "/dev/dri/renderD128")
BROKEN = Gpu("nvidia", "C", None, None, problem="no driver for it is loaded")


def test_what_is_shipped_is_whole(paths: Paths) -> None:
    """llama.cpp has an image for every kind of device; each entry has a tag, and no digest that nobody resolved."""
    found = catalogue.load(paths)
    assert found.variants("llama.cpp") == ["cpu", "vulkan", "cuda", "rocm", "intel"]
    for entry in found.entries.values():
        for reference in entry.references:
            assert naming.is_reference(reference) and ":" in reference.rpartition("/")[2] and "@" not in reference
            assert not reference.endswith(":latest")


def test_ones_own_entries_go_over_the_shipped(paths: Paths) -> None:
    """What is changed replaces that key; an image of one's own is no image that Corral builds."""
    paths.config_dir.mkdir(parents=True)
    (paths.config_dir / "images.yaml").write_text(
        "llama.cpp: {cpu: {image: registry.example/llama:1}, vulkan: {program: /opt/llama-server}}\n"
        "mine: {cpu: {image: localhost/mine:1, program: /mine}}\n"
    )
    found = catalogue.load(paths)
    assert found.get("llama.cpp", "cpu").references == ("registry.example/llama:1",)
    assert found.get("llama.cpp", "vulkan").program == "/opt/llama-server"
    assert found.get("llama.cpp", "vulkan").built
    assert found.get("mine", "cpu").program == "/mine"
    with pytest.raises(ConfigError, match=r"no image for llama\.cpp on tpu"):
        found.get("llama.cpp", "tpu")


@pytest.mark.parametrize(
    "text",
    ["[", "llama.cpp: 3", "a: {cpu: {image: x:1}}", "a: {cpu: {image: --privileged, program: /x}}",
     "a: {cpu: {image: x:1, program: /x, devices: [sda]}}", "a: {cpu: {image: x:1, program: /x, digest: y}}"],
)  # fmt: skip
def test_a_wrong_file_is_said(paths: Paths, text: str) -> None:
    """One sentence with the file's name."""
    paths.config_dir.mkdir(parents=True)
    (paths.config_dir / "images.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"images\.yaml"):
        catalogue.load(paths)


@pytest.mark.parametrize(
    ("engine", "backend", "layers", "gpus", "variant"),
    [
        ("llama.cpp", "auto", "auto", [], "cpu"),
        ("llama.cpp", "auto", "auto", [NVIDIA], "cuda"),
        ("llama.cpp", "auto", "auto", [AMD], "vulkan"),
        ("llama.cpp", "auto", "auto", [BROKEN, AMD], "vulkan"),
        ("llama.cpp", "auto", "auto", [BROKEN], "cpu"),
        ("llama.cpp", "rocm", "auto", [AMD], "rocm"),
        ("llama.cpp", "vulkan", 99, [NVIDIA], "vulkan"),
        ("llama.cpp", "cuda", 0, [NVIDIA], "cpu"),
        ("vllm", "auto", "auto", [NVIDIA], "cuda"),
        ("vllm", "auto", "auto", [AMD], "rocm"),
        ("vllm", "auto", "auto", [BROKEN], "cpu"),
        ("detector", "auto", "auto", [NVIDIA], "cpu"),
    ],
)
def test_by_the_hardware(
    paths: Paths, engine: str, backend: str, layers: int | str, gpus: list[Gpu], variant: str
) -> None:
    """What is asked for, else what the first GPU that works is served by, of what the engine has images for."""
    assert catalogue.load(paths).chosen(engine, backend, layers, gpus).variant == variant


def test_an_engine_without_an_image_for_what_is_asked(paths: Paths) -> None:
    """That is said, and nothing else taken."""
    with pytest.raises(ConfigError, match="no image for vllm on vulkan"):
        catalogue.load(paths).chosen("vllm", "vulkan", "auto", [AMD])


def test_devices_that_a_container_is_given(paths: Paths) -> None:
    """Only those of the entry's kind, and only those that work; NVIDIA_VISIBLE_DEVICES chooses."""
    found = catalogue.load(paths)
    both = [NVIDIA, AMD, BROKEN]
    assert catalogue.nodes_for(found.get("llama.cpp", "cpu"), both) == ()
    assert catalogue.nodes_for(found.get("llama.cpp", "cuda"), both) == ("nvidia.com/gpu=0",)
    assert catalogue.nodes_for(found.get("llama.cpp", "cuda"), both, "1,2") == ("nvidia.com/gpu=1", "nvidia.com/gpu=2")
    assert catalogue.nodes_for(found.get("llama.cpp", "cuda"), both, "none") == ()
    assert catalogue.nodes_for(found.get("llama.cpp", "rocm"), both) == ("/dev/kfd", "/dev/dri/renderD128")
    assert catalogue.nodes_for(found.get("llama.cpp", "vulkan"), both) == ("/dev/dri/renderD128",)


def test_the_lock_is_read(paths: Paths) -> None:
    """Digests by reference, plain or with more about each; a broken file is said."""
    paths.config_dir.mkdir(parents=True)
    assert catalogue.locked(paths) == {}
    digest = "sha256:" + "a" * 64
    (paths.config_dir / "images.lock.json").write_text(
        json.dumps({"a:1": digest, "b:1": {"digest": digest}, "at": "x"})
    )
    assert catalogue.locked(paths) == {"a:1": digest, "b:1": digest}
    (paths.config_dir / "images.lock.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        catalogue.locked(paths)
