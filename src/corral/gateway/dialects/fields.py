"""Reading the members of a request's JSON: strict about kinds, silent about members that nobody here knows. Pure."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn, TypeVar

from corral.errors import CallerError, NotJson

T = TypeVar("T")
_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) > sys.float_info.max:
        raise ValueError(f"{text[:40]} is no number that can be worked with")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


def strict(body: bytes) -> Any:
    """JSON as the standard has it. Python's reader takes what no engine does, and would write it again as it was.

    Raises ValueError, RecursionError.
    """
    return _DECODER.decode(body.decode())


def object_of(body: bytes, example: str) -> dict[str, Any]:
    """A body as an object. Raises NotJson, CallerError; `example` shows what to send."""
    try:
        found = strict(body)
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300], hint=f"send such as {example}") from exc
    if not isinstance(found, dict):
        raise CallerError("the body must be a JSON object", hint=f"send such as {example}")
    return found


def get(members: dict[str, Any], name: str, kind: type[T], within: str = "") -> T | None:
    """A member that may be missing or null. Raises CallerError when it is of another kind."""
    value = members.get(name)
    if value is None:
        return None
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:  # NaN is not, either
            raise wrong(f"{within}{name}", "is no number that can be worked with")
        return kind(value)  # type: ignore[call-arg]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise wrong(f"{within}{name}", f"must be {_WORDS.get(kind, kind.__name__)}")
    return value


def need(members: dict[str, Any], name: str, kind: type[T], within: str = "") -> T:
    """A member that must be there. Raises CallerError."""
    found = get(members, name, kind, within)
    if found is None:
        raise wrong(f"{within}{name}", "is missing")
    return found


def wrong(name: str, words: str, hint: str = "") -> CallerError:
    """What is wrong with the member `name`."""
    return CallerError(f"{name}: {words}", hint=hint or "see the API's reference", param=name)
