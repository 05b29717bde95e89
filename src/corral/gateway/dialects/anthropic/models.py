"""Anthropic's list of models. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from corral.gateway.dialects.fields import wrong

_MOST = 1000


def entry(model: dict[str, Any]) -> dict[str, Any]:
    """An entry of OpenAI's list in Anthropic's shape."""
    at = datetime.fromtimestamp(model.get("created", 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": model["id"], "display_name": model["id"], "created_at": at}


def page(models: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """A page of them, as `limit`, `after_id` and `before_id` want it. Raises CallerError."""
    entries = [entry(model) for model in models]
    limit = query.get("limit", "20")
    if not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit) <= _MOST:
        raise wrong("limit", f"must be a number from 1 to {_MOST}")
    names = [each["id"] for each in entries]
    start, end = 0, len(entries)
    if (after := query.get("after_id")) in names:
        start = names.index(after) + 1
    if (before := query.get("before_id")) in names:
        end = names.index(before)
        start = max(start, end - int(limit))
    shown = entries[start:end][: int(limit)]
    more = start + len(shown) < len(entries) if before not in names else start > 0
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"data": shown, "has_more": more, "first_id": first, "last_id": last}
