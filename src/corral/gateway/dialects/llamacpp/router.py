"""The router's list of models and its properties. Source: llama.cpp's tools/server/server-models.cpp, build 11434."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

OWNER: Final = "llamacpp"

_VALUES: Final = {
    "starting": "loading",
    "loading": "loading",
    "ready": "loaded",
    "draining": "loaded",
    "sleeping": "sleeping",
}


class About(NamedTuple):
    """What is known of a model's file."""

    capabilities: tuple[str, ...] = ()
    size: int = 0
    parameters: int | None = None
    context: int | None = None
    embedding: int | None = None
    quantization: str = ""


def value_of(state: str) -> str:
    """The router's word for a unit's state."""
    return _VALUES.get(state, "unloaded")


def has_failed(state: str) -> bool:
    return state in ("backoff", "failed")


def entry(
    base: Mapping[str, Any], state: str, about: About | None, *, configured: bool, context: int = 0
) -> dict[str, Any]:
    """`base` is the model as OpenAI's list has it; `context` is what it is served with.

    How an engine is started may name files of this machine, and is an administrator's business: `args` is empty.
    """
    value = value_of(state)
    status: dict[str, Any] = {"value": value, "args": []}
    if has_failed(state):
        status |= {"exit_code": 1, "failed": True}
    known = about.capabilities if about is not None else ()
    inputs = ["text", *(word for able, word in (("vision", "image"), ("audio", "audio")) if able in known)]
    made: dict[str, Any] = {
        "id": base["id"],
        "aliases": list(base.get("aliases", ())),
        "tags": [],
        "object": "model",
        "owned_by": OWNER,
        "created": base.get("created", 0),
        "status": status,
        "architecture": {"input_modalities": inputs, "output_modalities": ["text"]},
        "source": "preset" if configured else "cache",
        "can_remove": not configured,
    }
    if value == "loaded":
        made["meta"] = _meta(about, context)
    return made


def _meta(about: About | None, context: int) -> dict[str, Any]:
    found = {"n_ctx": context or None}
    if about is not None:
        found |= {
            "n_ctx_train": about.context,
            "n_embd": about.embedding,
            "n_params": about.parameters,
            "size": about.size or None,
        }
    made: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    return {**made, "ftype": about.quantization} if about is not None and about.quantization else made


def downloading(name: str) -> dict[str, Any]:
    """A model that is being fetched, or whose download was paused."""
    made = entry({"id": name}, "stopped", None, configured=False)
    return {**made, "status": {"value": "downloading", "args": []}}


def listed(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"data": list(entries), "object": "list"}


def props(version: str, most: int | None) -> dict[str, Any]:
    """By `role` the web page knows that it talks to a router. `most` models at once; without a bound, 0."""
    return {
        "role": "router",
        "max_instances": most or 0,
        "models_autoload": True,
        "model_alias": "corral",
        "model_path": "none",
        "default_generation_settings": {"params": None, "n_ctx": 0},
        "ui_settings": {},
        "build_info": f"corral-{version}",
        "cors_proxy_enabled": False,
    }


def running(units: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """llama-swap's list of what runs: pairs of a model and its unit's state."""
    words = {"starting": "starting", "loading": "starting", "ready": "ready", "sleeping": "ready",
             "draining": "stopping", "stopping": "stopping"}  # fmt: skip
    return {"running": [{"model": model, "state": words[state]} for model, state in units if state in words]}


def reference(name: str) -> str:
    """What to fetch when a client of the router says `name`: a repository of Hugging Face, unless it says more."""
    first, slash, _ = name.partition("/")
    if "://" in name or not slash or "." in first or ":" in first or first == "localhost":
        return name
    return f"hf.co/{name}"
