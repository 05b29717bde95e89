"""The facts of a model in Hugging Face's layout, for Ollama's and Docker's lists: what vLLM serves. Blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from corral.gateway.dialects.ollama.facts import Facts, identity
from corral.gateway.traits import template_of
from corral.models.formats.capabilities import capabilities
from corral.models.formats.safetensors import read_directory

_SIZES: Final = (
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("vocab_size", "vocab_size"),
)
"""Keys of config.json, and what a GGUF file of the same model calls them."""
_WRITES: Final = ("CausalLM", "ConditionalGeneration", "LMHead", "Chat")


def stamp(folder: Path) -> str:
    """The same as long as the folder's files are."""
    seen = [(each.name, each.stat()) for each in sorted(folder.iterdir()) if each.is_file()]
    return identity(folder.resolve(), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in seen))


def read_facts(folder: Path, digest: str) -> Facts:
    """Raises ModelFileError, OSError."""
    found = read_directory(folder)
    family, config = found.architecture, found.config
    template = template_of(folder)
    metadata: dict[str, Any] = {
        f"{family}.{name}": config[key] for key, name in _SIZES if isinstance(config.get(key), int)
    }
    return Facts(
        digest,
        sum(each.stat().st_size for each in found.files),
        max(each.stat().st_mtime for each in found.files),
        format="safetensors",
        family=family,
        parameters=found.shape.parameters,
        quantization=found.quantization.upper(),
        context_length=found.context_length,
        embedding_length=metadata.get(f"{family}.embedding_length"),
        capabilities=capabilities(None, template=template, claimed=() if _writes(config) else ("embedding",)),
        template=template,
        metadata=metadata,
        tensors=(),
    )


def _writes(config: Mapping[str, Any]) -> bool:
    """Whether it writes text; the others are taken for what gives vectors."""
    return any(word in json.dumps(config.get("architectures") or ()) for word in _WRITES)
