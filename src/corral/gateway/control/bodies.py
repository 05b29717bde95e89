"""Reading a control route's body as the wire type it must be, strictly: unknown fields and wrong kinds are refused."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from corral.api import load
from corral.errors import CallerError, NotJson
from corral.gateway.routes import nearest_hint

T = TypeVar("T")


def read_body(kind: type[T], body: bytes, hints: dict[str, str] | None = None) -> T:
    """`body` as `kind`. `hints` say, by field, what to write there; without one the hint shows the whole body.

    Raises NotJson, or CallerError that names the field.
    """
    shape, wanted_by_name = example(kind), _hints(kind)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300], hint=f"send {shape}") from exc
    if not isinstance(data, dict):
        raise CallerError("the body must be a JSON object", hint=f"send {shape}")
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise CallerError(f"unknown field {name[:80]!r}", hint=nearest_hint(name[:80], fields), param=name[:80])
    for name, each in fields.items():
        wanted = wanted_by_name[name]
        required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        fine = not required if name not in data else _is(wanted, data[name]) and not (required and data[name] == "")
        if not fine:
            hint = (hints or {}).get(name) or f"send {shape}"
            raise CallerError(f'"{name}" must be {_words(wanted)}', hint=hint, param=name)
    return load(kind, data)


def example(kind: type) -> str:
    """A body of this kind, as an example in words."""
    values = {
        each.name: _sample(_hints(kind)[each.name], each)
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING or each.default is not None
    }
    return json.dumps(values, ensure_ascii=False)


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _sample(wanted: Any, field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return [] if get_origin(wanted) is list else "…"


def _is(wanted: Any, value: Any) -> bool:
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted in (str, bool):
        return isinstance(value, wanted)
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is list:
        return isinstance(value, list) and all(_is(args[0], each) for each in value)
    if origin in (typing.Union, types.UnionType):
        return any(value is None if each is type(None) else _is(each, value) for each in args)
    raise TypeError(f"no rule for {wanted!r}")


def _words(wanted: Any) -> str:
    known = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    if wanted in known:
        return known[wanted]
    if get_origin(wanted) is list:
        return "a list of texts"
    return " or ".join(_words(each) for each in get_args(wanted))
