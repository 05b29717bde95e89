"""Folders that vLLM serves, in Ollama's and Docker's lists and cards."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.config.settings import ModelSettings
from corral.errors import ModelFileError
from corral.gateway.api.docker_models import DockerModels
from corral.gateway.api.folder_facts import read_facts, stamp
from gateway.stable import Stable
from gateway.wire import ask

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 2048, "vocab_size": 512, "dtype": "bfloat16",
}  # fmt: skip
TEMPLATE = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def folder(at: Path, **changes: object) -> Path:
    at.mkdir()
    (at / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (at / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [8, 4], "data_offsets": [0, 64]}}).encode()
    (at / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    return at


def test_what_a_folder_says(tmp_path: Path) -> None:
    """Family, sizes, template and what it can do; one that writes no text gives vectors; a broken one is an error."""
    path = folder(tmp_path / "m")
    found = read_facts(path, stamp(path))
    assert (found.format, found.family, found.parameters, found.context_length) == ("safetensors", "llama", 32, 2048)
    assert found.capabilities == ("completion", "tools") and found.template == TEMPLATE
    assert found.metadata["llama.block_count"] == 2 and found.embedding_length == 128 and found.quantization == "BF16"
    assert found.size == (path / "model.safetensors").stat().st_size and len(found.digest) == 64
    vectors = read_facts(folder(tmp_path / "v", architectures=["BertModel"]), "d")
    assert "embedding" in vectors.capabilities and "completion" not in vectors.capabilities
    (path / "model.safetensors").write_bytes(b"short")
    assert stamp(path) != found.digest
    with pytest.raises(ModelFileError):
        read_facts(path, "d")


async def test_it_is_listed_and_has_a_card(stable: Stable, tmp_path: Path) -> None:
    """By Ollama's API, and by Docker's."""
    path = folder(tmp_path / "m")
    model = ModelSettings("tiny", path, engine="vllm")
    stable.change(models=MappingProxyType({"tiny": model}))
    await stable.open()
    listed = (await ask(stable.address, "GET", "/api/tags")).json["models"]
    (mine,) = [each for each in listed if each["name"].startswith("tiny")]
    assert mine["details"]["format"] == "safetensors" and mine["digest"] == stamp(path)
    card = (await ask(stable.address, "POST", "/api/show", {"model": "tiny"})).json
    assert card["template"] == TEMPLATE and card["model_info"]["llama.context_length"] == 2048
    assert card["capabilities"] == ["completion", "tools"]
    (entry,) = await DockerModels(stable, None).entries()
    assert entry.names == ("tiny",) and entry.digest == mine["digest"] and entry.format == "safetensors"
