"""Docker Model Runner's errors: a status and plain text."""

from __future__ import annotations

import json

from corral.errors import CorralError
from corral.gateway.dialects import openai
from corral.gateway.dialects.dialect import Dialect

TEXT = b"text/plain; charset=utf-8"


def text(exc: CorralError) -> str:
    """Its clients show the text and nothing else, so the hint is part of it."""
    return f"{exc.message} ({exc.hint})" if exc.hint else exc.message


def failed(exc: CorralError, mode: str) -> bytes:
    """A stream's last line when it failed."""
    return json.dumps({"type": "error", "message": text(exc), "mode": mode}).encode() + b"\n"


DOCKER = Dialect("docker", lambda exc: text(exc).encode() + b"\n", lambda exc: failed(exc, "pull"), kind=TEXT)

INFERENCE = Dialect("docker", openai.error, openai.error_event)
"""Where OpenAI's clients ask: theirs are no use to them as plain text."""
