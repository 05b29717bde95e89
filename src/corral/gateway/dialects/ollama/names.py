"""Ollama's names of models, and Corral's: with and without `:latest`, the registry said or not."""

from __future__ import annotations

from typing import Final

HOST: Final = "registry.ollama.ai/"
LIBRARY: Final = "library/"
TAG: Final = ":latest"


def has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]


def has_host(name: str) -> bool:
    """It says which registry it is of, as `hf.co/…` and `localhost:5000/…` do."""
    first, slash, _ = name.partition("/")
    return "://" in name or bool(slash and ("." in first or ":" in first or first == "localhost"))


def candidates(name: str) -> list[str]:
    """What `name` may be called here, the likeliest first."""
    found = [name]
    if name.endswith(TAG):
        found.append(name.removesuffix(TAG))
    elif not has_tag(name):
        found.append(name + TAG)
    if not has_host(name):
        found.append(full(name))
    return found


def full(name: str) -> str:
    """`name` of Ollama's registry, as the store calls it."""
    path = name if "/" in name else LIBRARY + name
    return HOST + (path if has_tag(path) else path + TAG)


def reference(name: str) -> str:
    """What to fetch when an Ollama client says `name`: without a registry, Ollama's is meant."""
    return name if has_host(name) else f"ollama://{name}"


def shown(name: str) -> str:
    """A name as Ollama's lists have it: short where it is of Ollama's registry, and always with a tag."""
    short = name.removeprefix(HOST)
    if short != name:
        short = short.removeprefix(LIBRARY)
    return short if has_tag(short) or "@" in short else short + TAG
