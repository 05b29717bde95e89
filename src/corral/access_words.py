"""Keys and usage as wire types, and back: for the server, and for commands where none runs."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from typing import cast

from corral import clock
from corral.access.figures import UsageKey, Used
from corral.access.keys import SCOPES, Key, Limits, Scope
from corral.api_access import KeyAsk, KeyInfo, UsageRow
from corral.errors import CallerError

BY = ("key", "model", "day")
"""What usage can be told apart by."""


def key_info(
    key: Key, *, today: int | None = None, month: int | None = None, running: int = 0, now_wall_s: float | None = None
) -> KeyInfo:
    now = clock.wall() if now_wall_s is None else now_wall_s
    state = "revoked" if key.revoked_wall_s is not None else "expired" if key.problem(now) else "active"
    overlap = key.before is not None and now < key.before_until_wall_s
    return KeyInfo(
        key.id, key.name, state, sorted(key.scopes), list(key.models),
        key.created_wall_s, key.expires_wall_s, key.revoked_wall_s, **dataclasses.asdict(key.limits),
        tokens_today=today, tokens_this_month=month, running=running,
        earlier_until_wall_s=key.before_until_wall_s if overlap else None,
    )  # fmt: skip


def scopes_of(ask: KeyAsk) -> tuple[Scope, ...]:
    """Raises CallerError."""
    for each in ask.scopes:
        if each not in SCOPES:
            raise CallerError(
                f"there is no scope {each[:40]!r}", hint=f"scopes are {', '.join(SCOPES)}", param="scopes"
            )
    return tuple(cast("list[Scope]", ask.scopes))


def limits_of(ask: KeyAsk) -> Limits:
    """Raises CallerError."""
    limits = Limits(**{each.name: getattr(ask, each.name) for each in dataclasses.fields(Limits)})
    for each in dataclasses.fields(Limits):
        value = getattr(limits, each.name)
        if value is not None and not 1 <= value <= 10**15:
            raise CallerError(f"{each.name} must be from 1 to 10^15", hint="leave it out for no limit", param=each.name)
    return limits


def checked(ask: KeyAsk) -> KeyAsk:
    """`ask`, unless its words are no good. Raises CallerError."""
    if not ask.name.strip() or len(ask.name) > 200 or not ask.name.isprintable():
        raise CallerError("the key's name must be 1 to 200 letters", hint="name who or what will use it", param="name")
    if any(not each or len(each) > 200 for each in ask.models) or len(ask.models) > 100:
        raise CallerError("a glob must have 1 to 200 letters", hint="such as llama-* or ai/*", param="models")
    if ask.expires_in_s is not None and not 0 < ask.expires_in_s < 10**10:
        raise CallerError("expires_in_s must be more than nothing", hint="give seconds", param="expires_in_s")
    return ask


def since_day(since_s: float | None) -> str:
    """The day, in UTC, on which it was `since_s` ago; the empty text when that is None."""
    if since_s is None:
        return ""
    at = datetime.datetime.fromtimestamp(max(0.0, clock.wall() - since_s), datetime.UTC)
    return at.strftime("%Y-%m-%d")


def usage_rows(used: Mapping[UsageKey, Used], by: tuple[str, ...], name_of: Callable[[str], str]) -> list[UsageRow]:
    """Sums by what they are to be told apart by, most tokens first; days in order."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for where, what in used.items():
        at = (
            where.day if "day" in by else "",
            where.key if "key" in by else "",
            where.model if "model" in by else "",
        )
        total = sums.setdefault(at, [0, 0, 0])
        for index, count in enumerate(what):
            total[index] += count
    rows = [
        UsageRow(requests, prompt, completion, day, key, name_of(key) if key else "", model)
        for (day, key, model), (requests, prompt, completion) in sums.items()
    ]
    return sorted(rows, key=lambda row: (row.day, -row.prompt_tokens - row.completion_tokens, row.key, row.model))
