"""What the keys about the server's own log and traces may be. Pure, without pydantic; rules as in `values`."""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import urlsplit

from corral.config.fetching import known
from corral.config.scalar import in_words, shorten
from corral.config.settings import Log, Traces
from corral.config.values import Unfit, one_of, text, truth

_LOG: Final = ("format", "requests")
_TRACES: Final = ("endpoint", "ratio")

LOG_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "format": {"enum": ["human", "json"], "description": "Lines for people, or one JSON object each."},
        "requests": {"type": "boolean", "description": "A line for each request to a model, without its contents."},
    },
}
TRACES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "endpoint": {"type": "string", "description": "Where OTLP/HTTP is taken, such as http://127.0.0.1:4318."},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1, "description": "The share of requests to trace."},
    },
}


def log(value: Any) -> Log:
    given = known(value, _LOG, "")
    shape: Literal["human", "json"] = "human"
    try:
        shape = one_of(("human", "json"))(given["format"]) if "format" in given else "human"  # type: ignore[assignment]
    except Unfit as error:
        raise Unfit(f"is wrong: its format {error}") from None
    try:
        return Log(shape, truth(given.get("requests", False)))
    except Unfit as error:
        raise Unfit(f"is wrong: its requests {error}") from None


def traces(value: Any) -> Traces | None:
    if value is None:
        return None
    given = known(value, _TRACES, "")
    return Traces(
        endpoint=_endpoint(given["endpoint"]) if given.get("endpoint") is not None else None,
        ratio=_ratio(given["ratio"]) if given.get("ratio") is not None else None,
    )


def _endpoint(value: Any) -> str:
    url = text(value)
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad:
        raise Unfit(f"has the endpoint {shorten(url)!r}, which is no address such as http://127.0.0.1:4318")
    if parts.username or parts.password:
        raise Unfit("must not have a password in its endpoint; put it into the variable OTEL_EXPORTER_OTLP_HEADERS")
    return url


def _ratio(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise Unfit(f"must have a ratio between 0 and 1, not {in_words(value)}")
    return float(value)
