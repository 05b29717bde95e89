"""What a registry's refusals mean: the error for a status, and how long to wait."""

from __future__ import annotations

import contextlib
import email.utils
import json

from corral import clock
from corral.errors import ManifestError, NotAllowedThere, NotInRegistry, RateLimited, RegistryError, Unavailable
from corral.registry.connection import Headers
from corral.registry.egress import Response

MAX_WAIT_S = 24 * 3600
_MAX_WORDS = 16 << 10


def failure(response: Response, what: str, host: str) -> RegistryError:
    """The error that `response`, an answer other than hoped for, stands for; closes it. `what` was asked of `host`."""
    status = response.status
    said = _words(response)
    wait_s = retry_after_s(response.headers)
    tail = f" ({said})" if said else ""
    if status == 404:
        return NotInRegistry(f"{host} has no {what}{tail}", hint="check the name and the tag", http_status=status)
    if status in (401, 403):
        return NotAllowedThere(
            f"{host} does not let us have {what}{tail}",
            hint=f"does it exist? If it is private: corral login {host}",
            http_status=status,
        )
    if status == 429:
        when = f"try again in {wait_s} s" if wait_s else "try again later"
        return RateLimited(
            f"{host} limits how often it is asked{tail}",
            hint=f"{when}, or log in: many registries allow more then",
            http_status=status,
            retry_after_s=wait_s,
        )
    return Unavailable(
        f"{host} answers {status} when asked for {what}{tail}",
        hint="the fault is the server's; try again later" if status >= 500 else "is it a registry?",
        http_status=status,
        retry_after_s=wait_s,
        reason="status",
    )


def retry_after_s(headers: Headers) -> int | None:
    """Whole seconds that the server asks us to wait, at most a day; None when it does not say."""
    text = headers.get("retry-after")
    if text.isdigit():
        return min(int(text[:9]), MAX_WAIT_S)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - clock.wall()
        return min(max(0, round(seconds)), MAX_WAIT_S)
    return None


def _words(response: Response) -> str:
    """The server's own reason: the first message of an OCI error body, printable and short."""
    try:
        with response:
            data = response.read(_MAX_WORDS)
    except (Unavailable, ManifestError):
        return ""
    text = ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError, IndexError, KeyError):
        body = json.loads(data)
        first = body["errors"][0] if "errors" in body else body
        text = " ".join(
            str(first[key]) for key in ("code", "message", "error", "details") if isinstance(first.get(key), str)
        )
    return "".join(each if each.isprintable() else " " for each in text)[:200].strip()
