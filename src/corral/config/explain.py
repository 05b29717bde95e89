"""pydantic's findings in words: which key, what about it, and the nearest valid one."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from corral.config.nearest import did_you_mean
from corral.config.problem import Key, Problem
from corral.config.scalar import in_words, read_scalar, shorten

K = TypeVar("K", bound=BaseModel)

_WORDS_FOR = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def take(kind: type[K], data: dict[str, Any], fill: dict[str, Any]) -> tuple[K, list[Problem]]:
    """`data` as the keys of `kind`, and every problem with it, keys seen from `data`.

    What is wrong is left out and takes its default, or its value of `fill` where a key is required, so that the
    remaining rules can be checked as well.
    """
    try:
        return kind.model_validate(data), []
    except ValidationError as error:
        problems = [_problem(kind, data, dict(found)) for found in error.errors(include_url=False)]
        wrong = {problem.key[0] for problem in problems}
    kept = {key: value for key, value in data.items() if key not in wrong}
    return kind.model_validate({**fill, **kept}), problems


def _problem(kind: type[BaseModel], data: dict[str, Any], found: dict[str, Any]) -> Problem:
    key = tuple(str(part) for part in found["loc"])
    name = shorten(key[-1])
    if found["type"] == "extra_forbidden":
        valid = _valid_keys(kind, key)
        return Problem(f"unknown key `{name}`", did_you_mean(key[-1], valid, f"valid: {', '.join(valid)}"), key=key)
    if found["type"] == "missing":
        return Problem(f"`{name}` is missing", "every model needs a name and a source", key=key)
    if found["type"] == "value_error":
        error = found["ctx"]["error"]
        hint = getattr(error, "hint", "") or _value_hint(kind, key, found["input"])
        return Problem(f"`{name}` {error}", hint, key=key)
    if found["type"] == "model_type":
        return Problem(
            f"`{name}` must be a mapping of keys to values, not {in_words(found['input'])}",
            _value_hint(kind, key, None),
            key=key,
        )
    return Problem(f"`{name}` is wrong: {found['msg']}", key=key)


def _value_hint(kind: type[BaseModel], key: Key, value: object) -> str:
    if isinstance(value, str):
        if (word := _WORDS_FOR.get(value.lower())) is not None and _kind_of(kind, key[-1]) == "boolean":
            return f"write {word}"
        if value and not isinstance(read_scalar(value), (str, type(None))):
            return f"without quotes it would be {value}"
    holder = _holder(kind, key)
    field = None if holder is None else _fields(holder).get(key[-1])
    about = (field.description or "") if field is not None else ""
    return about[:1].lower() + about[1:].rstrip(".")


def _kind_of(kind: type[BaseModel], name: str) -> object:
    properties = kind.model_json_schema(by_alias=True)["properties"]
    return properties.get(name, {}).get("type")


def _valid_keys(kind: type[BaseModel], key: Key) -> list[str]:
    holder = _holder(kind, key)
    return [] if holder is None else list(_fields(holder))


def _holder(kind: type[BaseModel], key: Key) -> type[BaseModel] | None:
    """The model class that `key`'s last part is a field of, or would be."""
    for part in key[:-1]:
        field = _fields(kind).get(part)
        inner = None if field is None else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        kind = inner
    return kind


def _fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in kind.model_fields.items()}
