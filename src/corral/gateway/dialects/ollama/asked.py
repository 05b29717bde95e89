"""A request's fields, read strictly in kind: what a client sends that nobody knows is let be, as Ollama does."""

from __future__ import annotations

import re
from typing import Any, Final

from corral.errors import CallerError, NotJson
from corral.gateway.dialects.fields import strict

_LEVELS: Final = ("low", "medium", "high")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_KINDS: Final = {
    str: "a text", bool: "true or false", int: "a whole number", dict: "an object", list: "a list",
}  # fmt: skip
_MAGIC: Final = (
    ("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lGOD", "gif"), ("UklGR", "webp"), ("Qk", "bmp"),
)  # fmt: skip


def read(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises NotJson, CallerError."""
    if not body.strip():
        raise CallerError("missing request body", hint='send a JSON object, such as {"model": "…"}')
    try:
        found = strict(body)
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300], hint='send an object, such as {"model": "…"}') from exc
    if not isinstance(found, dict):
        raise CallerError("the body must be a JSON object", hint='send such as {"model": "…"}')
    return found


def text(asked: dict[str, Any], name: str, default: str = "") -> str:
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise wrong(name, str)
    return value


def flag(asked: dict[str, Any], name: str, default: bool) -> bool:
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(name, bool)
    return value


def items(asked: dict[str, Any], name: str) -> list[Any]:
    value = asked.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(name, list)
    return value


def table(asked: dict[str, Any], name: str) -> dict[str, Any]:
    value = asked.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(name, dict)
    return value


def wrong(name: str, kind: type) -> CallerError:
    return CallerError(f'"{name}" must be {_KINDS[kind]}', hint="see Ollama's API documentation", param=name)


def model(asked: dict[str, Any]) -> str:
    """The model's name; old clients say `name`."""
    return text(asked, "model") or text(asked, "name")


def think(asked: dict[str, Any]) -> bool | str | None:
    """True, False, a level, or None for what the model does by itself. Raises CallerError."""
    value = asked.get("think")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in (*_LEVELS, "max"):
        return value.lower()
    if value == "":
        return None
    raise CallerError(
        f"invalid think value: {str(value)[:40]!r}", hint='it must be "high", "medium", "low", true, or false'
    )


def thinking(value: bool | str | None) -> dict[str, Any]:
    """The fields of a chat request for a `think`; which efforts a model knows is not known here."""
    if value is True:
        return {"chat_template_kwargs": {"enable_thinking": True}}
    return {} if value is None else {"reasoning_effort": value or "none"}


def response_format(asked: dict[str, Any]) -> dict[str, Any]:
    """The engine's fields for a `format`. Raises CallerError."""
    value = asked.get("format")
    if value is None or value == "":
        return {}
    if value == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(value, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}}
    raise CallerError('invalid format: expected "json" or a JSON schema', hint="a schema is an object", param="format")


def logprobs(asked: dict[str, Any]) -> dict[str, Any]:
    """The engine's fields for `logprobs` and `top_logprobs`. Raises CallerError."""
    count = asked.get("top_logprobs")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 20):
        raise CallerError("top_logprobs must be from 0 to 20", hint="leave it out for none", param="top_logprobs")
    # Without alternatives llama.cpp gives no probabilities at all, so one is asked for and left out of the answer.
    return {"logprobs": True, "top_logprobs": count or 1} if flag(asked, "logprobs", False) or count else {}


def images(asked: dict[str, Any], where: str = "images") -> list[dict[str, Any]]:
    """Images in base64 as parts of an OpenAI message. Raises CallerError."""
    parts = []
    for each in items(asked, where):
        if not isinstance(each, str) or not _BASE64.fullmatch(each):
            raise CallerError("an image is no base64 text", hint="send the file's bytes in base64", param=where)
        kind = next((kind for magic, kind in _MAGIC if each.startswith(magic)), "png")
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{''.join(each.split())}"}})
    return parts
