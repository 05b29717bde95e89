"""Pulling from every other source into a real store: what arrives is what an engine opens."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from corral.models.fetching.downloads import Downloads
from corral.models.unpack import place
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from corral.registry.ollama import OllamaRegistry
from corral.registry.source import Source
from corral.registry.url import UrlSource, expecting
from corral.store.store import Store
from support import hf_server, ollama_server
from support.ggufs import write_random
from support.hf_server import HfServer, Repo
from support.ollama_server import OllamaServer


@dataclass
class World:
    store: Store
    downloads: Downloads
    hub: HfServer
    ollama: OllamaServer

    def pull(self, ref: Ref) -> str:
        """The digest of `ref`, once it is in the store."""
        view = self.downloads.wait(self.downloads.start(ref).id, 30)
        assert view.state == "done", view.error
        assert view.digest is not None
        named = self.store.lookup(ref.name)
        assert named is not None and named.descriptor.digest == view.digest
        assert self.store.verify([ref.name]) == []
        return view.digest


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = Store(tmp_path / "store")
    store.prepare()
    policy = EgressPolicy(private_addresses=("127.0.0.1",), insecure=("127.0.0.1",), stall_s=5)
    with hf_server.serving() as hub, ollama_server.serving() as ollama, Egress(policy, env={}) as egress:
        sources: dict[str, Source] = {
            "hf": HuggingFace(egress, endpoint=lambda: hub.endpoint, token=lambda: None),
            "ollama": OllamaRegistry(egress, key=tmp_path / "no-key"),
            "url": UrlSource(egress),
        }
        downloads = Downloads(store, sources)
        yield World(store, downloads, hub, ollama)
        downloads.close()


@cache
def content(name: str) -> bytes:
    """A real small GGUF file, another for each name."""
    with tempfile.TemporaryDirectory() as folder:
        return write_random(Path(folder) / "m.gguf", sum(name.encode()), name=name, mib=0.1).read_bytes()


def test_hugging_face_repository_with_shards_and_projector(world: World) -> None:
    """A split model of Hugging Face lies beside its parts under their own names, with projector and template."""
    parts = {f"Q4_K_M/m-Q4_K_M-{number:05}-of-00002.gguf": content(f"part {number}") for number in (1, 2)}
    files = {**parts, "mmproj-F16.gguf": content("mmproj"), "chat_template.jinja": b"{{ messages }}"}
    world.hub.repos["org/m"] = Repo(files)
    placed = place(world.store, world.pull(parse_ref("hf.co/org/m:Q4_K_M")))
    assert placed.main.name == "m-Q4_K_M-00001-of-00002.gguf"
    assert placed.main.read_bytes() == content("part 1")
    assert placed.main.with_name("m-Q4_K_M-00002-of-00002.gguf").read_bytes() == content("part 2")
    assert placed.mmproj is not None and placed.mmproj.read_bytes() == content("mmproj")
    assert placed.template is not None and placed.template.read_bytes() == b"{{ messages }}"


def test_hugging_face_safetensors_become_a_directory(world: World) -> None:
    """A safetensors repository is a directory with its configuration."""
    files = {"model.safetensors": content("weights"), "config.json": b"{}", "tokenizer.json": b'{"x":1}'}
    world.hub.repos["org/s"] = Repo(files)
    placed = place(world.store, world.pull(parse_ref("hf.co/org/s")))
    assert placed.format == "safetensors"
    assert {path.name: path.read_bytes() for path in placed.directory.iterdir() if path.name in files} == files


def test_ollama_model_with_its_digest(world: World) -> None:
    """A model of Ollama's registry keeps the digest that Ollama shows, and its weights and projector are opened."""
    layers = {"model": content("m"), "projector": content("p"), "params": b'{"temperature":0}', "system": b"Be brief."}
    raw = world.ollama.add("o/m:7b", layers)
    digest = world.pull(Ref("ollama", world.ollama.host, "o/m", "7b"))
    assert digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    placed = place(world.store, digest)
    assert placed.main.read_bytes() == layers["model"]
    assert placed.mmproj is not None and placed.mmproj.read_bytes() == layers["projector"]


def test_url_with_and_without_its_sha256(world: World) -> None:
    """A file at a URL becomes the same model whether its digest was known before or not."""
    world.hub.repos["org/m"] = Repo({"m.gguf": content("m")})
    ref = parse_ref(f"{world.hub.storage}/org/m/file/m.gguf")
    digest = world.pull(ref)
    assert place(world.store, digest).main.read_bytes() == content("m")
    assert world.pull(expecting(ref, hashlib.sha256(content("m")).hexdigest())) == digest


def test_url_with_another_sha256_is_not_stored(world: World) -> None:
    """A file that is not what --sha256 says fails, and no name points to it."""
    world.hub.repos["org/m"] = Repo({"m.gguf": content("m")})
    ref = expecting(parse_ref(f"{world.hub.storage}/org/m/file/m.gguf"), "0" * 64)
    view = world.downloads.wait(world.downloads.start(ref).id, 30)
    assert view.state == "failed"
    assert world.store.lookup(ref.name) is None
