"""The targets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fuzz import answers, bodies, http, requests


class Target(NamedTuple):
    """`share` of all executions (slow ones get fewer), and the longest input that is tried."""

    run: Callable[[bytes], None]
    share: int = 4
    longest: int = 1024


TARGETS: dict[str, Target] = {
    "head": Target(http.head, 5, 512),
    "chunks": Target(http.chunks, 5, 256),
    "connection": Target(http.connection, 2, 512),
    "upstream": Target(http.upstream, 3, 512),
    "names": Target(bodies.names, 5, 256),
    "events": Target(bodies.events, 3, 512),
    "usage": Target(bodies.usage, 6, 512),
    "fields": Target(bodies.fields, 3, 256),
    "thoughts": Target(answers.thoughts, 1, 160),
    "translations": Target(answers.translations, 3, 512),
    "plain": Target(answers.plain, 5, 512),
    "requests": Target(requests.requests, 6, 512),
}
