"""How a model is to be started beside what models.yaml says, because a client asked for it: kept, so that a restart
of the server changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from corral.config.settings import ModelSettings, Settings
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is asked for one model; None leaves what models.yaml or Corral's default says."""

    context: int | None = None
    args: tuple[str, ...] | None = None
    idle_timeout_s: float | None = None  # infinite: never stopped for being idle

    def __bool__(self) -> bool:
        return self != Tuning()

    def of(self, model: ModelSettings) -> ModelSettings:
        """`model` with it."""
        idle = self.idle_timeout_s
        return replace(
            model,
            context=model.context if self.context is None else self.context,
            args=model.args if self.args is None else (*model.args, *self.args),
            idle_timeout_s=model.idle_timeout_s if idle is None else None if math.isinf(idle) else idle,
        )


class Tunings:
    """All of them, by the model's name, and the file that keeps them. Reading and writing block."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: Mapping[str, Tuning] = MappingProxyType(_read(file))

    def __getitem__(self, name: str) -> Tuning:
        return self._kept.get(name, Tuning())

    def all(self) -> Mapping[str, Tuning]:
        return self._kept

    def put(self, name: str, tuning: Tuning) -> None:
        """Keeps `tuning`; an empty one is forgotten. Raises ConfigError when it cannot be written down."""
        from corral.config.atomic import replace_file

        kept = {**self._kept, name: tuning}
        kept = {each: found for each, found in sorted(kept.items()) if found}
        replace_file(self._file, json.dumps({each: _dumped(found) for each, found in kept.items()}, indent=1) + "\n")
        self._kept = MappingProxyType(kept)

    def of(self, model: ModelSettings) -> ModelSettings:
        return self[model.name].of(model)

    def over(self, settings: Settings) -> Settings:
        """`settings` with every model as it is asked for."""
        if not any(name in settings.models for name in self._kept):
            return settings
        return replace(
            settings, models=MappingProxyType({name: self.of(model) for name, model in settings.models.items()})
        )


def _dumped(tuning: Tuning) -> dict[str, Any]:
    idle = tuning.idle_timeout_s
    made = {
        "context": tuning.context,
        "args": None if tuning.args is None else list(tuning.args),
        "idle_timeout_s": "never" if idle is not None and math.isinf(idle) else idle,
    }
    return {key: value for key, value in made.items() if value is not None}


def _read(file: Path) -> dict[str, Tuning]:
    """What the file holds; what cannot be read is as if it were not there, for a server must start without it."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): _loaded(each) for name, each in found.items()} if isinstance(found, dict) else {}


def _loaded(found: Any) -> Tuning:
    if not isinstance(found, dict):
        return Tuning()
    context, args, idle = found.get("context"), found.get("args"), found.get("idle_timeout_s")
    if idle == "never":
        idle = math.inf
    return Tuning(
        context if isinstance(context, int) and not isinstance(context, bool) and context > 0 else None,
        tuple(map(str, args)) if isinstance(args, list) else None,
        float(idle) if isinstance(idle, (int, float)) and not isinstance(idle, bool) and idle >= 0 else None,
    )
