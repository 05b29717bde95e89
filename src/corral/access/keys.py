"""Keys: what each is good for, how its secret is written, and when a secret is the right one. Pure.

A secret is `ck_<id>_<43 letters and digits>`: 256 random bits, so a plain hash of it is as safe as a slow one, and the
public id finds the key without comparing secrets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, get_args

from corral.lazy_dataclass import dataclass

Scope = Literal["infer", "pull", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

ID_CHARS = 10
SECRET_CHARS = 43
PREFIX = b"ck_"
_TOKEN = re.compile(rb"ck_([a-z0-9]{%d})_[A-Za-z0-9]{%d}" % (ID_CHARS, SECRET_CHARS))
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may take; None = as much as there is."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None  # requests that are being answered at once
    tokens_per_day: int | None = None  # days and months are UTC's
    tokens_per_month: int | None = None

    @property
    def counts_tokens(self) -> bool:
        return (self.tokens_per_minute, self.tokens_per_day, self.tokens_per_month) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret."""

    id: str
    name: str
    digest: bytes  # of the whole secret, see `digest`
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ()  # globs over names of models; () = all
    limits: Limits = Limits()
    created_wall_s: float = 0.0
    expires_wall_s: float | None = None
    revoked_wall_s: float | None = None
    before: bytes | None = None  # the digest of the secret before the last rotation
    before_until_wall_s: float = 0.0  # how long that one still counts

    def may(self, scope: Scope) -> bool:
        """Whether it is good for `scope`; one for admin is good for everything."""
        return scope in self.scopes or "admin" in self.scopes

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether it may have a model that goes by any of `names`."""
        return not self.models or any(fnmatchcase(name, glob) for glob in self.models for name in names)

    def problem(self, now_wall_s: float) -> str | None:
        """Why it counts no more, in words."""
        if self.revoked_wall_s is not None:
            return "was revoked"
        if self.expires_wall_s is not None and now_wall_s >= self.expires_wall_s:
            return "has expired"
        return None

    @property
    def label(self) -> str:
        """Its name, for everybody to see; its id where somebody wrote a secret into that."""
        return self.id if not self.name or _TOKEN.search(self.name.encode()) else self.name

    def opens_with(self, token: bytes, now_wall_s: float) -> bool:
        """Whether `token` is its secret, or the one before while that still counts. Takes the same time for each."""
        given = digest(token)
        now = hmac.compare_digest(self.digest, given)
        earlier = hmac.compare_digest(self.before or b"", given) and now_wall_s < self.before_until_wall_s
        return now or earlier


def digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def token_of(key_id: str, random_bits: int) -> str:
    """A key's secret as its user writes it. `random_bits` are 256 of them."""
    letters = []
    for _ in range(SECRET_CHARS):
        random_bits, index = divmod(random_bits, 62)
        letters.append(_LETTERS[index])
    return f"ck_{key_id}_{''.join(letters)}"


def id_of(token: bytes) -> str | None:
    """The key's id in `token`; None when that does not look like one of our secrets."""
    match = _TOKEN.fullmatch(token)
    return match[1].decode() if match is not None else None
