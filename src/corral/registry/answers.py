"""What a server's status says, as Corral's errors: the same words for every source."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from corral.errors import NotAllowedThere, NotInRegistry, RateLimited, RegistryError, Unavailable

MAX_RETRY_AFTER_S = 3600.0


def refusal(status: int, what: str, *, said: str = "", hint: str = "", retry_after: str = "") -> RegistryError:
    """The error for an answer that is no success. `what` names the thing asked for, `said` is the server's own word."""
    said = f": {clean(said)}" if said else ""
    wait_s = retry_after_s(retry_after)
    details = {} if wait_s is None else {"retry_after_s": wait_s}
    if status in (401, 403):
        hint = hint or "log in there, or check that these credentials may read it"
        return NotAllowedThere(f"{what} is not open to us (HTTP {status}){said}", hint=hint)
    if status in (404, 410):
        return NotInRegistry(f"{what} is not there (HTTP {status}){said}", hint=hint or "check how it is written")
    if status == 429:
        return RateLimited(
            f"{what}: too many requests{said}", hint=hint or "wait, or log in to be let do more", **details
        )
    if status in (408, 425) or status >= 500:
        return Unavailable(
            f"{what} is out of order there (HTTP {status}){said}", hint=hint or "try again later", **details
        )
    return RegistryError(
        f"{what} was answered with HTTP {status}{said}", hint=hint or "this is not how it should answer"
    )


def retry_after_s(value: str) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; bounded, None when it says nothing."""
    if not value:
        return None
    try:
        wait_s = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def clean(text: str) -> str:
    """A server's words for a line of ours: one line, printable, short."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:400]).split())[:200]
