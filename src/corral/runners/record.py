"""A `LaunchPlan` as JSON and back: what the warden keeps of a unit for the daemon that comes next.

Driven by the dataclasses' own annotations. Fields that this version does not know are ignored and missing ones take
their defaults, so that a unit outlives an upgrade of Corral in either direction.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from corral.engines.plan import LaunchPlan

FORMAT = 1
"""Changes when an older reader would misunderstand, not merely miss something."""


def dump_plan(plan: LaunchPlan) -> dict[str, Any]:
    """`plan` as JSON-ready data."""
    return {"format": FORMAT, "launch_plan": _dump(plan)}


def load_plan(data: object) -> LaunchPlan:
    """The plan that `dump_plan` wrote. Raises ValueError when it is not one, or of another format."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("not a launch plan of a format that this version reads")
    plan = _load(LaunchPlan, data.get("launch_plan"), "plan")
    assert isinstance(plan, LaunchPlan)
    return plan


def _dump(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _dump(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_dump(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _load(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _load_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}, not one of {arguments}")
        return value
    if origin is tuple:
        return tuple(_load(arguments[0], item, where) for item in _expect(list, value, where))
    if origin is Mapping:
        items = _expect(dict, value, where).items()
        return MappingProxyType({key: _load(arguments[1], item, f"{where}.{key}") for key, item in items})
    if hint is Path:
        return Path(_expect(str, value, where))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _load_dataclass(hint, _expect(dict, value, where), where)
    if hint is float and type(value) is int:
        return float(value)
    return _expect(hint, value, where)


def _load_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in arguments:
        try:
            return _load(hint, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} has no such value as {value!r}")


def _load_dataclass(kind: type, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.name in value]
    try:
        return kind(**{name: _load(hints[name], value[name], f"{where}.{name}") for name in names})
    except TypeError as error:
        raise ValueError(f"{where} is incomplete: {error}") from error


def _expect(kind: Any, value: Any, where: str) -> Any:
    # `type is`, because True is an int to isinstance.
    if type(value) is not kind:
        raise ValueError(f"{where} is {type(value).__name__}, not {getattr(kind, '__name__', kind)}")
    return value
