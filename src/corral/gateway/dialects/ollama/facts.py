"""What is known of a model, and Ollama's lists and cards of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Final

from corral.gateway.dialects.ollama.names import shown
from corral.gateway.dialects.ollama.times import moment, until
from corral.lazy_dataclass import dataclass

_LONG: Final = 5
_WORDS: Final = {"completion", "tools", "insert", "vision", "embedding", "thinking", "image", "audio"}


@dataclass(frozen=True, slots=True)
class Facts:
    """One model. Texts are "" where nothing says them."""

    digest: str  # 64 hexadecimal digits
    size: int
    modified_s: float
    format: str = "gguf"
    family: str = ""
    parameters: int | None = None
    quantization: str = ""
    context_length: int | None = None
    embedding_length: int | None = None
    capabilities: tuple[str, ...] = ()
    template: str = ""
    system: str = ""
    license: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = ()  # name, type, shape


def identity(*parts: object) -> str:
    """A digest for a file that has none: the same as long as it is the same file."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def count(parameters: int | None) -> str:
    """A number of parameters as Ollama writes it: 3.2B, 137M. Source: its format.HumanNumber."""
    if not parameters:
        return ""
    for size, letter, digits in ((1e12, "T", 1), (1e9, "B", 1), (1e6, "M", 2), (1e3, "K", 0)):
        if parameters >= size:
            number = parameters / size
            return f"{number:.{0 if number == int(number) else digits}f}{letter}"
    return str(parameters)


def details(facts: Facts) -> dict[str, Any]:
    made: dict[str, Any] = {
        "parent_model": "",
        "format": facts.format,
        "family": facts.family,
        "families": [facts.family] if facts.family else [],
        "parameter_size": count(facts.parameters),
        "quantization_level": facts.quantization,
    }
    if facts.context_length:
        made["context_length"] = facts.context_length
    if facts.embedding_length:
        made["embedding_length"] = facts.embedding_length
    return made


def able(facts: Facts) -> list[str]:
    return [word for word in facts.capabilities if word in _WORDS]


def tags(models: Iterable[tuple[str, Facts]]) -> dict[str, Any]:
    """The answer of `/api/tags`, the newest first."""
    entries = [
        {
            "name": shown(name),
            "model": shown(name),
            "modified_at": moment(facts.modified_s),
            "size": facts.size,
            "digest": facts.digest,
            "details": details(facts),
            "capabilities": able(facts),
        }
        for name, facts in sorted(models, key=lambda each: (-each[1].modified_s, each[0]))
    ]
    return {"models": entries}


@dataclass(frozen=True, slots=True)
class Running:
    """A model that is loaded. `left_s`: until it is unloaded, None for never."""

    name: str
    facts: Facts | None
    size: int
    vram: int
    context: int
    left_s: float | None


def running(models: Iterable[Running], wall_s: float) -> dict[str, Any]:
    """The answer of `/api/ps`, those that stay longest first."""
    ordered = sorted(models, key=lambda each: (-(each.left_s if each.left_s is not None else float("inf")), each.name))
    return {
        "models": [
            {
                "name": shown(each.name),
                "model": shown(each.name),
                "size": each.size,
                "digest": each.facts.digest if each.facts is not None else "",
                "details": details(each.facts or Facts("", 0, 0.0)),
                "expires_at": until(wall_s, each.left_s),
                "size_vram": each.vram,
                "context_length": each.context,
            }
            for each in ordered
        ]
    }


def card(name: str, facts: Facts, *, verbose: bool) -> dict[str, Any]:
    """The answer of `/api/show`."""
    made: dict[str, Any] = {
        "license": facts.license,
        "modelfile": modelfile(name, facts),
        "parameters": parameters(facts.params),
        "template": facts.template,
        "details": details(facts),
        "model_info": _info(facts, verbose=verbose),
        "capabilities": able(facts),
        "modified_at": moment(facts.modified_s),
    }
    if facts.system:
        made["system"] = facts.system
    if facts.messages:
        made["messages"] = [dict(each) for each in facts.messages]
    if verbose:
        made["tensors"] = [{"name": name, "type": kind, "shape": list(shape)} for name, kind, shape in facts.tensors]
    return made


def _info(facts: Facts, *, verbose: bool) -> dict[str, Any]:
    """The weights' own metadata; what was only measured of it is left empty."""
    made: dict[str, Any] = {}
    for key, value in facts.metadata.items():
        if isinstance(value, (list, tuple)):
            made[key] = list(value) if verbose or len(value) <= _LONG else []
        else:
            made[key] = value
    if facts.family:
        made.setdefault("general.architecture", facts.family)
    if facts.parameters:
        made["general.parameter_count"] = facts.parameters
    if facts.family and facts.context_length:
        made.setdefault(f"{facts.family}.context_length", facts.context_length)
    return made


def parameters(params: Mapping[str, Any]) -> str:
    """Parameters as lines, a list as several."""
    lines = []
    for name, value in sorted(params.items()):
        for each in value if isinstance(value, list) else [value]:
            said = json.dumps(each, ensure_ascii=False) if isinstance(each, (str, bool)) else str(each)
            lines.append(f"{name:<30} {said}")
    return "\n".join(lines)


def modelfile(name: str, facts: Facts) -> str:
    """A Modelfile that makes the same model of the one called `name`."""
    lines = ["# Modelfile generated by Corral", f"FROM {shown(name)}"]
    if facts.template:
        lines.append(f"TEMPLATE {_quoted(facts.template)}")
    if facts.system:
        lines.append(f"SYSTEM {_quoted(facts.system)}")
    lines += [f"PARAMETER {' '.join(each.split(maxsplit=1))}" for each in parameters(facts.params).splitlines()]
    lines += [f"MESSAGE {each.get('role')} {_quoted(str(each.get('content')))}" for each in facts.messages]
    if facts.license:
        lines.append(f"LICENSE {_quoted(facts.license)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"""{text}"""'
