"""What changed between two configurations, and what it takes to take the change up. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from corral.config.settings import SERVER_KEYS, VLLM_KEYS, ModelSettings, Settings
from corral.lazy_dataclass import dataclass

RESTART_KEYS = ("download", "traces")
"""Global keys that only a restart of the server takes up: downloads and traces are set up once."""

RELAUNCH_KEYS = (
    "source", "engine", "executable", "runner", "image", "context", "gpu_layers", "gpu_backend", "devices", "split",
    "tensor_split", "parallel", "args", "env", "sandbox",
    "limits", *VLLM_KEYS, *SERVER_KEYS,
)  # fmt: skip
"""Model keys that a running engine was started with; the others take effect while it runs."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of models, and names of keys as they stand in the file."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))  # model → keys
    settings: tuple[str, ...] = ()  # global keys that take effect at once
    needs_restart: tuple[str, ...] = ()  # global keys that do not

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.settings or self.needs_restart)

    @property
    def relaunch(self) -> tuple[str, ...]:
        """Models whose engine, if one runs, no longer runs with what is configured."""
        return tuple(name for name, keys in self.changed.items() if set(keys) & set(RELAUNCH_KEYS))

    def text(self) -> str:
        """The same in one line."""
        parts = [f"{len(names)} {word} ({', '.join(names)})" for word, names in self._models() if names]
        if self.settings:
            parts.append(f"now in effect: {', '.join(self.settings)}")
        if self.needs_restart:
            parts.append(f"in effect after a restart: {', '.join(self.needs_restart)}")
        return "; ".join(parts) or "nothing changed"

    def _models(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (("added", self.added), ("removed", self.removed), ("changed", tuple(self.changed)))


def changes(old: Settings, new: Settings) -> Changes:
    """From `old` to `new`. Where a file was read from is no change."""
    globals_changed = differing(old, new, skip=("models", "file", "roots"))
    return Changes(
        added=tuple(name for name in new.models if name not in old.models),
        removed=tuple(name for name in old.models if name not in new.models),
        changed=MappingProxyType(
            {
                name: keys
                for name, model in new.models.items()
                if name in old.models and (keys := differing(old.models[name], model, skip=("ref",)))
            }
        ),
        settings=tuple(key for key in globals_changed if key not in RESTART_KEYS),
        needs_restart=tuple(key for key in globals_changed if key in RESTART_KEYS),
    )


def differing(
    old: Settings | ModelSettings, new: Settings | ModelSettings, skip: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The keys in which they differ, spelt as in the file."""
    return tuple(
        _spelt(each.name)
        for each in dataclasses.fields(old)
        if each.name not in skip and _value(old, each.name) != _value(new, each.name)
    )


def _value(settings: Settings | ModelSettings, name: str) -> Any:
    value = getattr(settings, name)
    if name == "listen":  # one address is the same whatever else is said about it, but that may change too
        return [(str(each), each.dialect, each.tls, each.insecure, each.page) for each in value]
    return value


def _spelt(attribute: str) -> str:
    return attribute.removesuffix("_s").removesuffix("_bytes")
