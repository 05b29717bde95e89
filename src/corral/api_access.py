"""Wire types of keys, usage and recorded requests.

As in `api`: plain dataclasses, moments in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import field

from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key, without its secret. A limit that is null is none."""

    id: str
    name: str
    state: str  # active, expired or revoked
    scopes: list[str]
    models: list[str]  # globs; empty = all
    created_wall_s: float
    expires_wall_s: float | None
    revoked_wall_s: float | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    streams: int | None
    tokens_per_day: int | None
    tokens_per_month: int | None
    tokens_today: int | None = None  # taken and set aside, where there is a budget
    tokens_this_month: int | None = None
    running: int = 0  # requests that are being answered
    earlier_until_wall_s: float | None = None  # the secret before the last rotation counts until then


@dataclass(frozen=True, slots=True)
class KeyAsk:
    """Body of `keys/create`."""

    name: str
    scopes: list[str] = field(default_factory=lambda: ["infer"])
    models: list[str] = field(default_factory=list)
    expires_in_s: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class KeyMade:
    """A key and its secret. Nobody can tell the secret again."""

    key: KeyInfo
    secret: str


@dataclass(frozen=True, slots=True)
class KeyPick:
    """Body of `keys/revoke`: an id, or a name that one key has."""

    key: str


@dataclass(frozen=True, slots=True)
class RotateAsk:
    """Body of `keys/rotate`; the secret before counts for `overlap_s` more."""

    key: str
    overlap_s: float = 0.0


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was asked and taken; what is not told apart is empty."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    day: str = ""  # in UTC
    key: str = ""  # its id; empty: no key, or not told apart
    name: str = ""  # the key's
    model: str = ""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it came, secrets masked."""

    number: int
    at_wall_s: float
    method: str
    target: str
    peer: str
    caller: str
    model: str
    status: int  # 0 while there is none
    took_ms: float | None  # null while it runs
    headers: list[list[str]]
    body_bytes: int
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Whether requests are recorded, and the last ones, oldest first."""

    on: bool
    bodies: bool
    requests: list[RecordedRequest]


@dataclass(frozen=True, slots=True)
class RecordAsk:
    """Body of `requests/record`."""

    on: bool
    bodies: bool = False
