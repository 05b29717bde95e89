"""What a server's refusal means: the error that an answer other than hoped for stands for."""

from __future__ import annotations

import contextlib
import json
from email.utils import parsedate_to_datetime

from corral import clock
from corral.errors import ManifestError, NotAllowedThere, NotInRegistry, RateLimited, RegistryError, Unavailable
from corral.registry.connection import Headers
from corral.registry.egress import Response

MAX_RETRY_AFTER_S = 3600
_MAX_WORDS = 16 << 10


def failure(response: Response, what: str, host: str) -> RegistryError:
    """The error for `response`, which it closes. `what` was asked of `host`; `details` have `http_status`.

    Only RateLimited and Unavailable are worth another try.
    """
    status = response.status
    wait_s = retry_after_s(response.headers)
    said = _words(response)
    tail = f" (HTTP {status}: {said})" if said else f" (HTTP {status})"
    if status in (404, 410):
        return NotInRegistry(f"{host} has no {what}{tail}", hint="check how it is written", http_status=status)
    if status in (401, 403):
        return NotAllowedThere(
            f"{host} does not let us have {what}{tail}",
            hint=f"does it exist? If it is private: corral login {host}",
            http_status=status,
        )
    if status == 429:
        when = f"try again in {wait_s} s" if wait_s else "try again later"
        return RateLimited(
            f"{host} limits how often it is asked, here for {what}{tail}",
            hint=f"{when}, or log in: many registries allow more then",
            http_status=status,
            retry_after_s=wait_s,
        )
    if status in (408, 416, 425) or status >= 500:
        return Unavailable(
            f"{host} cannot give {what} now{tail}",
            hint="the fault is the server's; try again later",
            http_status=status,
            retry_after_s=wait_s,
            reason="status",
        )
    return RegistryError(
        f"{host} refuses when asked for {what}{tail}", hint="this is not how it should answer", http_status=status
    )


def retry_after_s(headers: Headers) -> int | None:
    """Whole seconds that the server asks us to wait, at most an hour; None when it does not say."""
    text = headers.get("retry-after").strip()
    if text.isdecimal():
        return min(int(text[:9]), MAX_RETRY_AFTER_S)
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
        return min(max(0, round(parsedate_to_datetime(text).timestamp() - clock.wall())), MAX_RETRY_AFTER_S)
    return None


def _words(response: Response) -> str:
    """The server's own reason, from an error body in JSON: printable, one line, short."""
    try:
        with response:
            data = response.read(_MAX_WORDS)
    except (Unavailable, ManifestError):
        return ""
    text = ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, IndexError, KeyError):
        body = json.loads(data)
        first = body["errors"][0] if "errors" in body else body
        text = " ".join(first[key] for key in ("code", "message", "error") if isinstance(first.get(key), str))
    return " ".join("".join(each if each.isprintable() else " " for each in text[:400]).split())[:200]
