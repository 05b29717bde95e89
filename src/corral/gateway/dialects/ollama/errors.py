"""Ollama's errors: `{"error": "…"}`, in a stream as one more line."""

from __future__ import annotations

import json
from typing import Any

from corral.errors import CallerError, CorralError
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.dialects.explained import INPUT, hint_of

LINES = b"application/x-ndjson"
"""The content type of a stream."""

JSON = b"application/json; charset=utf-8"
"""That of everything else."""


def error(exc: CorralError) -> dict[str, Any]:
    """Ollama's clients show the text and nothing else, so the hint is part of it."""
    return {"error": f"{exc.message} ({exc.hint})" if exc.hint else exc.message, "code": exc.code}


def line(value: dict[str, Any]) -> bytes:
    """One line of a stream."""
    return dumped(value) + b"\n"


def dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace")


OLLAMA = Dialect("ollama", error, lambda exc: line(error(exc)), comments=False, kind=JSON, plain=JSON)


def engine_error(status: int, body: bytes) -> tuple[int, bytes]:
    """An engine's refusal as Ollama would put it."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    text = said_in(found) or f"the engine answered {status}"
    text = f"{text} ({hint})" if (hint := hint_of(text)) else text
    if status >= 500 and INPUT.search(text):
        status = 400
    # llama.cpp says 501 where a model is not made for what was asked; to Ollama that is the caller's mistake.
    return (400 if status == 501 else status), dumped({"error": text})


def said_in(found: Any) -> str:
    """The text of an engine's error object, empty where it is none."""
    inner = found.get("error") if isinstance(found, dict) else None
    if isinstance(inner, dict):
        inner = inner.get("message")
    return inner if isinstance(inner, str) else ""


def unsupported(model: str, what: str) -> CallerError:
    """Ollama's own words for it."""
    return CallerError(f'"{model}" does not support {what}', hint="POST /api/show lists what it can do")
