"""llama.cpp's errors: `{"error": {"code": 400, "message": "…", "type": "…"}}`. Source: its `format_error_response`."""

from __future__ import annotations

import json
from typing import Any, Final

from corral.errors import CorralError
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.http import sse

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def error(exc: CorralError) -> dict[str, Any]:
    """The status is the code; Corral's own code is the `reason`."""
    kind = _TYPES.get(exc.status, "invalid_request_error" if exc.status < 500 else "server_error")
    if exc.code == "feature_disabled":
        kind = exc.code
    inner: dict[str, Any] = {"code": exc.status, "message": exc.message, "type": kind}
    inner |= {"hint": exc.hint, "reason": exc.code}
    for key in ("queue_position", "retry_after_s", "nearest", "position", "log_tail"):
        if exc.details.get(key) is not None:
            inner[key] = exc.details[key]
    return {"error": inner}


LLAMACPP: Final = Dialect("llamacpp", error, lambda exc: sse.event(json.dumps(error(exc), default=str)))
