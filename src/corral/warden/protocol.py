"""The wire form: one JSON object a line, both ways, with bounds.

Requests carry `op` and an `id` of the client's choice; the reply carries the same `id` and `ok`. A refused request
has `error: {code, text, about}`, where `code` is a word of ours or an errno's name. Pushed lines carry `event` and no
`id`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
"""Sent by `hello`. It changes when an older client could no longer list, stop and shut down."""

MAX_LINE_BYTES = 1 << 20
"""A longer request is refused and skipped up to its newline."""

MAX_OUTBOX_BYTES = 8 << 20
"""A client that lets more than this pile up is dropped."""


class Refused(Exception):
    """A request that cannot be done: a code for programs, a sentence for people, and what it is about, if a file."""

    def __init__(self, code: str, text: str, about: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.about = about  # "executable", "log", "cwd" or "record"


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The request on `line`. Raises Refused when it is not one JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise Refused("malformed", "a request is a JSON object")
    return message


def text(request: dict[str, Any], key: str, default: str | None = None) -> str:
    """A string without NUL, which no system call takes. Raises Refused."""
    value = request.get(key, default)
    if not isinstance(value, str) or "\0" in value:
        raise Refused("bad_request", f"{key} must be a string without NUL")
    return value


def seconds(request: dict[str, Any], key: str, default: float) -> float:
    """A duration from 0 to a day. Raises Refused."""
    value = request.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86400:
        raise Refused("bad_request", f"{key} must be a number of seconds from 0 to 86400")
    return float(value)


def strings(request: dict[str, Any], key: str) -> list[str]:
    """A list of strings with at least one. Raises Refused."""
    value = request.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise Refused("bad_request", f"{key} must be a list of strings without NUL")
    return value


def mapping(request: dict[str, Any], key: str) -> dict[str, str]:
    """Names and values of environment variables. Raises Refused."""
    value = request.get(key, {})
    if not isinstance(value, dict) or not all(
        isinstance(v, str) and "\0" not in k + v and k and "=" not in k for k, v in value.items()
    ):
        raise Refused("bad_request", f"{key} must be an object of strings")
    return value
