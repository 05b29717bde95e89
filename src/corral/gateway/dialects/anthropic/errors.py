"""Anthropic's errors: `{"type": "error", "error": {…}, "request_id": …}`. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from corral.errors import CorralError
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.http import sse

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    501: "invalid_request_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def status(exc: CorralError) -> int:
    """The same as ever, but for a server that has too much to do."""
    return 529 if exc.status == 503 else exc.status


def error(exc: CorralError) -> dict[str, Any]:
    """`exc` as Anthropic's clients expect it; the request's id is added by whoever sends it."""
    text = f"{exc.message} ({exc.hint})" if exc.hint else exc.message
    inner = {"type": _TYPES.get(status(exc), "api_error"), "message": text, "code": exc.code}
    return {"type": "error", "error": inner}


def event(exc: CorralError) -> bytes:
    """The last event of a stream that broke."""
    return sse.event(json.dumps(error(exc), default=str), name="error")


ANTHROPIC = Dialect("anthropic", error, event, status, numbered=True)
