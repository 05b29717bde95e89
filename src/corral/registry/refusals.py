"""What a registry's refusal says: the error that an answer other than hoped for stands for."""

from __future__ import annotations

import contextlib
import json

from corral.errors import ManifestError, RegistryError, Unavailable
from corral.registry.answers import refusal
from corral.registry.egress import Response

_MAX_WORDS = 16 << 10


def failure(response: Response, what: str, host: str) -> RegistryError:
    """The error for `response`, which it closes. `what` was asked of `host`."""
    hint = f"does it exist? If it is private: corral login {host}" if response.status in (401, 403) else ""
    retry_after = response.headers.get("retry-after")
    return refusal(response.status, f"{what} at {host}", said=_words(response), hint=hint, retry_after=retry_after)


def _words(response: Response) -> str:
    """The server's own reason: the first message of an OCI error body."""
    try:
        with response:
            data = response.read(_MAX_WORDS)
    except (Unavailable, ManifestError):
        return ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, IndexError, KeyError):
        body = json.loads(data)
        first = body["errors"][0] if "errors" in body else body
        return " ".join(first[key] for key in ("code", "message", "error") if isinstance(first.get(key), str))
    return ""
