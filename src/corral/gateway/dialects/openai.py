"""OpenAI's shapes: the list of models, and errors as bodies and as stream events. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from corral.api import UnitInfo
from corral.config.settings import ModelSettings
from corral.errors import CorralError
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.http import sse

OWNER = "corral"
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""LiteLLM takes whatever is called `invalid_request_error` for a bad request, and those are none."""
_BUDGETS: Final = ("tokens-per-day", "tokens-per-month")


def error(exc: CorralError) -> dict[str, Any]:
    """`exc` as OpenAI's clients expect it, with our hint beside."""
    inner: dict[str, Any] = {
        "message": exc.message,
        "type": _type(exc),
        "param": "model" if exc.code in ("missing_model", "model_not_found") else exc.details.get("param"),
        "code": exc.code,
        "hint": exc.hint,
    }
    for key in ("queue_position", "retry_after_s", "nearest", "position", "log_tail"):
        if exc.details.get(key) is not None:
            inner[key] = exc.details[key]
    return {"error": inner}


def _type(exc: CorralError) -> str:
    if exc.details.get("limit") in _BUDGETS:
        return "insufficient_quota"  # there is nothing left, where of a rate there will be soon
    if exc.status in _TYPES:
        return _TYPES[exc.status]
    return "invalid_request_error" if exc.fault == "caller" and exc.status < 500 else "server_error"


def error_event(exc: CorralError) -> bytes:
    """The last event of a stream that broke; no `[DONE]` follows, so nobody takes it for a whole answer."""
    return sse.event(json.dumps(error(exc), default=str))


OPENAI = Dialect("openai", error, error_event)


def model_entries(models: Iterable[tuple[ModelSettings, int]]) -> list[dict[str, Any]]:
    """Every name a client may send, each as an entry of its own, as OpenAI lists its dated and undated names.

    `models` pairs settings with the time the file was made, in seconds since 1970.
    """
    entries = []
    for model, created in models:
        entry = {"id": model.name, "object": "model", "created": created, "owned_by": OWNER}
        entries.append({**entry, "aliases": list(model.aliases)})
        entries.extend({**entry, "id": alias, "alias_of": model.name} for alias in model.aliases)
    return entries


def with_meta(entries: list[dict[str, Any]], units: Iterable[UnitInfo]) -> list[dict[str, Any]]:
    """`entries` with how those that are loaded are served: the context each request has, and in what that is less than
    it could be."""
    known = {
        unit.model: {"n_ctx": unit.context, "notes": unit.warnings, "degraded": unit.degraded}
        for unit in units
        if unit.state == "ready"
    }
    return [
        {**entry, "meta": known[name]} if (name := entry.get("alias_of", entry["id"])) in known else entry
        for entry in entries
    ]


def stored_entries(names: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """The same for models of the store that are served when somebody names them."""
    return [{"id": name, "object": "model", "created": int(at), "owned_by": OWNER, "aliases": []} for name, at in names]
