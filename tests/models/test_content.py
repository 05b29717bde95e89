"""What a stored model's small layers say, and its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.artifact import media as m
from corral.errors import ManifestError
from corral.hardware.cpu import Cpu
from corral.hardware.gpus import Gpu
from corral.hardware.memory import Memory
from corral.hardware.probe import Hardware
from corral.models.card import card
from corral.models.content import read_content, read_stored_header
from corral.models.footprint import estimate
from corral.models.formats.capabilities import capabilities
from corral.models.formats.gguf import read_header
from corral.models.formats.shards import read_model
from corral.models.making.package import package
from corral.store.store import Store
from support.artifacts import CNCF, OLLAMA, layer, new_store, put, safetensors, tar
from support.ggufs import corrupt, write_bert, write_chain, write_random
from support.splits import split

NAME = "localhost/me/model:v1"
CPU = Cpu("test", "x86_64", 4, 4, 4.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def machine(total: int, available: int, *gpus: Gpu) -> Hardware:
    return Hardware("Linux", Memory(total, available), CPU, gpus)


def ollama(store: Store, tmp_path: Path, **texts: bytes) -> str:
    weights = write_random(tmp_path / "m.gguf").read_bytes()
    layers = [layer(OLLAMA + "model", weights), *(layer(OLLAMA + kind, text) for kind, text in texts.items())]
    return put(store, layers, {"model_format": "gguf", "capabilities": ["completion", "tools"]}, m.OLLAMA_CONFIG)


def test_ollamas_layers_are_honoured(store: Store, tmp_path: Path) -> None:
    """Params, system, messages, template and licence of an Ollama model become the model's own."""
    digest = ollama(
        store, tmp_path,
        params=b'{"stop": ["<|eot|>"], "temperature": 0.5, "num_ctx": 4096}', system=b"Be brief.",
        messages=b'[{"role": "user", "content": "hi"}]', template=b"{{ .Prompt }}", license=b"\n Llama licence\nText",
    )  # fmt: skip
    content = read_content(store, digest)
    assert content.params == {"stop": ["<|eot|>"], "temperature": 0.5, "num_ctx": 4096}
    assert (content.system, content.context_size) == ("Be brief.", 4096)
    assert content.messages == ({"role": "user", "content": "hi"},)
    assert (content.template, content.go_template) == (None, "{{ .Prompt }}")
    described = card(store, digest)
    assert described.licenses == ("Llama licence",)
    assert described.capabilities == ("completion", "tools")
    assert any("Ollama's Go text" in note for note in described.notes)
    assert described.template == "header"


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("params", b"{", "are no JSON"),
        ("params", b"[1]", "no names with plain values"),
        ("params", b'{"a": {"b": 1}}', "no names with plain values"),
        ("params", b'{"a":' * 100_000, "are no JSON"),
        ("messages", b'{"role": "user"}', "no list of roles"),
        ("messages", b'[{"role": 1, "content": "x"}]', "no list of roles"),
        ("system", b"\xff\xfe", "no UTF-8"),
        ("system", b"x" * (3 << 20), "bytes where"),
    ],
)
def test_absurd_layers(store: Store, tmp_path: Path, kind: str, text: bytes, why: str) -> None:
    """A layer that is not what its type says is refused with the reason."""
    digest = ollama(store, tmp_path, **{kind: text})
    with pytest.raises(ManifestError, match=why):
        read_content(store, digest)


def test_a_config_that_is_no_json(store: Store, tmp_path: Path) -> None:
    """A plain artifact's config may be anything; a Docker model's may not."""
    weights = layer("application/x", write_random(tmp_path / "m.gguf").read_bytes(), title="m.gguf")
    config = layer("application/whatever", b"not JSON")
    for kind, refused in (("application/whatever", False), (m.DOCKER_CONFIG_V01, True)):
        store.add_bytes(config[1])
        body = {"mediaType": kind, "digest": config[0].digest, "size": config[0].size}
        digest = put(store, [weights])
        manifest = {**store.manifest(digest), "config": body}
        digest, _ = store.add_bytes(json.dumps(manifest).encode())
        if refused:
            with pytest.raises(ManifestError, match="is no JSON"):
                read_content(store, digest)
        else:
            assert read_content(store, digest).artifact.flavour == "plain"


def test_header_of_a_split_model(store: Store, tmp_path: Path) -> None:
    """The pieces of a split model are joined without being placed, to the same header that their files give."""
    pieces = split(write_chain(tmp_path / "m.gguf", ["a"]), tmp_path / "pieces", 3)
    made = package(store, pieces[0], NAME)
    header = read_stored_header(store, read_content(store, made.digest).artifact)
    whole = read_model(pieces[0])
    assert header is not None
    assert (header.parameters, header.weights_bytes, header.file_bytes) == (
        whole.parameters, whole.weights_bytes, whole.file_bytes,
    )  # fmt: skip


def test_card_of_a_gguf(store: Store, tmp_path: Path) -> None:
    """The card has the header's facts, and the footprint at several contexts as the estimator gives it."""
    path = write_random(tmp_path / "m.gguf", context=8192)
    made = package(store, path, NAME, context_size=3000)
    described = card(store, made.digest, machine(64 << 30, 32 << 30))
    header = read_header(path)
    assert (described.names, described.title, described.architecture) == ((NAME,), "random", "llama")
    assert (described.parameters, described.quantization) == (header.parameters, "F16")
    assert (described.context_length, described.context_size) == (8192, 3000)
    assert [each.context for each in described.footprints] == [2048, 3000, 4096, 8192]
    assert [each.bytes for each in described.footprints] == [
        estimate(header, context=context, slots=1).total_bytes for context in (2048, 3000, 4096, 8192)
    ]
    assert {each.fit for each in described.footprints} == {"fits"}
    assert described.texts["template"] == header.chat_template
    assert described.metadata["tokenizer.ggml.tokens"] == "260 of string"


@pytest.mark.parametrize(
    ("hardware", "fit", "gpu"),
    [
        (None, "unknown", None),
        (machine(64 << 30, 32 << 30), "fits", None),
        (machine(64 << 30, 1), "fits when memory is freed", None),
        (machine(1000, 1000), "does not fit", None),
        (machine(1000, 1000, Gpu("nvidia", "x", None, None, 8 << 30, 8 << 30)), "fits", True),
        (machine(1000, 1000, Gpu("nvidia", "x", None, None, 8 << 30, 0)), "fits when memory is freed", True),
        (machine(64 << 30, 32 << 30, Gpu("nvidia", "x", None, None, 1000, 1000)), "fits", False),
        (machine(1000, 1000, Gpu("nvidia", "x", None, None, 8 << 30, 8 << 30, "no driver")), "does not fit", None),
    ],
)
def test_will_it_fit(store: Store, tmp_path: Path, hardware: Hardware | None, fit: str, gpu: bool | None) -> None:
    """Whether a model fits is judged by this machine's memory, free and in all, and its GPUs'."""
    made = package(store, write_random(tmp_path / "m.gguf"), NAME)
    at = card(store, made.digest, hardware).footprints[0]
    assert (at.fit, at.fits_gpu) == (fit, gpu)


def test_card_of_safetensors(store: Store, tmp_path: Path) -> None:
    """A safetensors model's card comes from its headers and its config."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(safetensors({"w": ("BF16", [8], b"\0" * 16)}))
    (tmp_path / "m" / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 64}')
    described = card(store, package(store, tmp_path / "m", NAME).digest)
    assert (described.format, described.architecture, described.parameters) == ("safetensors", "llama", 8)
    assert (described.quantization, described.context_length, described.footprints) == ("bf16", 64, ())


def test_card_of_archives_takes_nothing_out(store: Store, tmp_path: Path) -> None:
    """Showing a packed model does not unpack it."""
    weights = tar({"m.gguf": write_random(tmp_path / "m.gguf").read_bytes()})
    digest = put(
        store, [layer(CNCF + "weight.v1.tar", weights)],
        {"config": {"format": "gguf", "paramSize": "8b", "quantization": "Q8_0"}}, m.CNCF_CONFIG,
    )  # fmt: skip
    described = card(store, digest)
    assert described.quantization == "Q8_0"
    assert any("archives" in note for note in described.notes)
    assert list(store.placed_dir.iterdir()) == []


def test_card_of_damaged_weights(store: Store, tmp_path: Path) -> None:
    """Weights that cannot be read are a note on the card, which still has the rest."""
    data = corrupt(write_random(tmp_path / "m.gguf"), "absurd tensors").read_bytes()
    described = card(store, put(store, [layer("application/x", data, title="m.gguf")]))
    assert any("cannot be read" in note and "tensors" in note for note in described.notes)
    assert described.bytes == len(data)


def test_capabilities(tmp_path: Path) -> None:
    """Capabilities are found in headers and templates, and those that a packager claims are added."""
    chat = read_header(write_random(tmp_path / "chat.gguf"))
    assert capabilities(chat) == ("completion",)
    assert capabilities(read_header(write_bert(tmp_path / "e.gguf"))) == ("embedding",)
    assert capabilities(read_header(write_bert(tmp_path / "r.gguf", rank=True))) == ("rerank",)
    assert capabilities(chat, template="{% if tools %}<think>{% endif %}") == ("completion", "tools", "thinking")
    assert capabilities(chat, template="{{ .Suffix }}{{ .ToolCalls }}") == ("completion", "tools", "insert")
    assert capabilities(None, claimed=["image", "reasoning", "nonsense"]) == ("completion", "vision", "thinking")
    assert capabilities(chat, vision=True, audio=True) == ("completion", "vision", "audio")
