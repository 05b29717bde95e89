"""A first look at a JSON request body: which model it names, and where in the bytes, without keeping the rest. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.decoder import JSONDecodeError
from json.decoder import scanstring as _scanstring  # type: ignore[attr-defined]
from json.scanner import make_scanner
from typing import Any, NamedTuple, NoReturn

from corral.errors import CallerError, NotJson

QUICK_BYTES = 64 << 10
"""Bodies up to this size are read in one go, and what they mean is in memory for a moment."""

_SPACE = re.compile(r"[ \t\n\r]*")
_KEY = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')
_NAME = re.compile(rb'"(?:[^"\\]|\\.)*"|null', re.DOTALL)
scanstring: Callable[[str, int, bool], tuple[str, int]] = _scanstring
_BOM = b"\xef\xbb\xbf"


class Peeked(NamedTuple):
    """What the gateway needs to know of a body. Offsets count bytes."""

    model: str | None  # None: not named, or null
    stream: bool
    span: tuple[int, int] | None  # of the value of "model", quotes included; None: there is no such key
    inside: int  # just after the opening brace
    empty: bool  # the object has no members


class _Rules:
    """How values other than the two looked for are read: checked as strictly as the rest, then thrown away."""

    strict = True
    memo: dict[str, str]
    object_hook = None
    parse_string = staticmethod(scanstring)
    # Numbers stay text: `int` would refuse long ones and take quadratic time before it did.
    parse_float = staticmethod(len)
    parse_int = staticmethod(len)

    def __init__(self) -> None:
        self.memo = {}

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, Any]]) -> None:
        return None

    @staticmethod
    def parse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON value")


class _PairRules(_Rules):
    """The same, but objects are kept, as tuples of their members."""

    object_pairs_hook = tuple  # type: ignore[assignment]


_scan = make_scanner(_Rules())  # type: ignore[arg-type]
_scan_pairs = make_scanner(_PairRules())  # type: ignore[arg-type]


def peek(body: bytes) -> Peeked:
    """Checks that `body` is one JSON object and finds its `model` and `stream`.

    Raises NotJson (with the byte position), or CallerError for a key given twice or a model that is no string.
    """
    if len(body) <= QUICK_BYTES and (quick := _quick(body)) is not None:
        return quick
    if body.startswith(_BOM):
        raise NotJson("the body starts with a byte order mark", hint="send UTF-8 without one", position=0)
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise NotJson(
            f"the body is not UTF-8 (byte {exc.start})", hint="send JSON in UTF-8", position=exc.start
        ) from exc
    try:
        return _members(text, body)
    except JSONDecodeError as exc:
        raise _not_json(exc.msg, _bytes_before(text, body, exc.pos)) from exc
    except StopIteration as exc:
        raise _not_json("a value is missing or is none", _bytes_before(text, body, exc.value)) from exc
    except RecursionError as exc:
        raise NotJson("the body is nested too deeply", hint="no request needs that many levels") from exc
    except ValueError as exc:
        raise NotJson(f"the body is not JSON: {exc}", hint="use null, or a number") from exc


def glance(body: bytes) -> tuple[str | None, bool, dict[str, Any]] | None:
    """The model that a small body names, whether it wants a stream, and its members (what their values are made of is
    of no use); None when it is anything but plain, and `peek` has to tell what it is."""
    try:
        text = body.decode()
        pairs, end = _scan_pairs(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    if type(pairs) is not tuple or (end < len(text) and _SPACE.fullmatch(text, end) is None):
        return None
    members: dict[str, Any] = dict(pairs)
    model = members.get("model")
    if len(members) != len(pairs) or not (model is None or type(model) is str):
        return None
    return model, members.get("stream") is True, members


def _quick(body: bytes) -> Peeked | None:
    """A small body in a single pass; None when it is anything but plain, and the long way has to tell what it is."""
    if b"\\u" in body:
        return None  # a key may be spelled with escapes
    try:
        text = body.decode()
        start = 0 if text.startswith("{") else _SPACE.match(text).end()  # type: ignore[union-attr]
        pairs, end = _scan_pairs(text, start)
    except (ValueError, StopIteration, RecursionError):
        return None
    if type(pairs) is not tuple or (end != len(text) and _SPACE.match(text, end).end() != len(text)):  # type: ignore[union-attr]
        return None
    members: dict[str, Any] = dict(pairs)
    model = members.get("model")
    if len(members) != len(pairs) or not (model is None or type(model) is str):
        return None
    span = None
    if "model" in members:
        # No string can look like this key but one that ends another key, so if it is there once it is the one.
        key = _KEY.search(body)
        value = _NAME.match(body, key.end()) if key is not None else None
        if value is None or _KEY.search(body, value.end()) is not None:
            return None
        span = value.span()
    return Peeked(model, members.get("stream") is True, span, body.find(b"{") + 1, not pairs)


def splice(body: bytes, peeked: Peeked, name: str) -> bytes:
    """`body` with `name` as its model: the value replaced, or the key put first; every other byte is left alone."""
    if peeked.model == name:
        return body
    value = json.dumps(name).encode()
    if peeked.span is not None:
        start, end = peeked.span
        return b"".join((body[:start], value, body[end:]))
    comma = b"" if peeked.empty else b","
    return b"".join((body[: peeked.inside], b'"model":', value, comma, body[peeked.inside :]))


def _members(text: str, body: bytes) -> Peeked:
    space = _SPACE.match
    at = space(text).end()  # type: ignore[union-attr]
    if text[at : at + 1] != "{":
        _refuse_other(text, at)
    inside = at + 1
    at = space(text, inside).end()  # type: ignore[union-attr]
    seen: set[str] = set()
    model: str | None = None
    stream = False
    span: tuple[int, int] | None = None
    if text[at : at + 1] == "}":
        _refuse_more(text, at + 1)
        return Peeked(None, False, None, _bytes_before(text, body, inside), True)
    while True:
        if text[at : at + 1] != '"':
            raise JSONDecodeError("a key in double quotes should be here", text, at)
        key, at = scanstring(text, at + 1, True)
        if key in seen:
            raise CallerError(
                f"the body has the key {key!r} twice",
                hint="readers disagree on which one counts: send it once",
                key=key,
            )
        seen.add(key)
        at = space(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] != ":":
            raise JSONDecodeError("a colon should be here", text, at)
        start = space(text, at + 1).end()  # type: ignore[union-attr]
        if key == "model":
            model, at = _model(text, start)
            span = (_bytes_before(text, body, start), _bytes_before(text, body, at))
        else:
            value, at = _scan(text, start)
            if key == "stream":
                stream = value is True
        at = space(text, at).end()  # type: ignore[union-attr]
        mark = text[at : at + 1]
        if mark == "}":
            _refuse_more(text, at + 1)
            return Peeked(model, stream, span, _bytes_before(text, body, inside), False)
        if mark != ",":
            raise JSONDecodeError("a comma or the closing brace should be here", text, at)
        at = space(text, at + 1).end()  # type: ignore[union-attr]


def _model(text: str, start: int) -> tuple[str | None, int]:
    if text[start : start + 1] == '"':
        return scanstring(text, start + 1, True)
    value, end = _scan(text, start)
    if value is None and text[start : start + 1] == "n":
        return None, end
    raise CallerError('"model" must be a string', hint="GET /v1/models lists the names", param="model")


def _refuse_other(text: str, at: int) -> NoReturn:
    if at == len(text):
        raise JSONDecodeError("it is empty", text, at)
    _, end = _scan(text, at)
    _refuse_more(text, end)
    raise CallerError("the body must be a JSON object", hint='send {"model": …, …}')


def _refuse_more(text: str, at: int) -> None:
    end = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if end != len(text):
        raise JSONDecodeError("there is more after the end of the object", text, end)


def _bytes_before(text: str, body: bytes, index: int) -> int:
    return index if len(text) == len(body) else len(text[:index].encode())


def _not_json(problem: str, position: int) -> NotJson:
    return NotJson(
        f"the body is not JSON: {problem} (byte {position})", hint="send one JSON object in UTF-8", position=position
    )
