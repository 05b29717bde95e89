"""What is counted and written down. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Used(NamedTuple):
    """What was asked and taken."""

    requests: int
    prompt: int
    completion: int


class UsageKey(NamedTuple):
    """Whose usage, and when: `day` in UTC, `key` an id, empty where none was asked for."""

    day: str
    key: str
    model: str


class Slab(NamedTuple):
    """What the book should say that a key has spent in a period."""

    key: str
    period: str
    tokens: int
