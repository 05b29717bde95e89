"""The table of routes: what is answered where, by whom, and how the API document describes it."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from corral.config.settings import ModelSettings
from corral.errors import CallerError, CorralError, MethodNotAllowed, NotFound
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.dialects.openai import OPENAI
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Scope
from corral.lazy_dataclass import dataclass

Handler = Callable[[Exchange, "Match", bytes], Awaitable[None]]
Check = Callable[[Exchange, "Match", bytes], Awaitable[None]]

CONTROL_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter."""

    name: str
    kind: type[int] | type[str] | type[bool]
    text: str
    default: Any = None
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Doc:
    """How the API document describes a route; `result` is a wire type of `corral.api`, or a list of one."""

    summary: str
    result: Any
    tag: str = "control"
    text: str = ""
    media: tuple[str, ...] = ("application/json",)
    statuses: tuple[int, ...] = (200,)
    takes: type | None = None  # the wire type of the request's body
    params: tuple[Param, ...] = ()
    errors: tuple[type[CorralError], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. A path that ends in `/{name}` takes the rest of what was asked for, slashes included."""

    method: str  # "*" = any
    path: str
    handler: Handler
    doc: Doc | None = None
    large: bool = False  # takes bodies up to the configured bound, not only small ones
    piecewise: bool = False  # its handler reads the body itself, as it comes
    direct: bool = False  # its body goes to an engine of the model that it names, under the same path
    plain_until: Callable[[ModelSettings], float] | None = None  # when what a model is sent is looked at more closely
    local: bool = False  # answers on unix sockets only
    before: Check | None = None  # asked before its handler; raises what refuses a request. Not on the fast path
    counted: bool = False  # what is sent to it asks a model, and is one of its requests in the metrics
    scope: Scope | None = "admin"  # what a key must be good for; None = nothing
    dialect: Dialect = OPENAI
    mount: str = ""  # what of `path` its handler does not see

    @property
    def prefix(self) -> str | None:
        """What stands before the variable, with its slash; None when there is no variable."""
        return self.path[: self.path.index("{")] if "{" in self.path else None


class Match(NamedTuple):
    """The route found for a request, and the value of its variable (`rest`, `""` when it has none)."""

    route: Route
    rest: str = ""


class Table:
    """All routes, found by exact path first and by the longest prefix second; of two alike, the first counts.

    `late` makes further ones that are seldom asked for: `complete` adds them.
    """

    def __init__(self, routes: Iterable[Route], late: Callable[[], Iterable[Route]] | None = None) -> None:
        self._late = late
        self._lock = threading.Lock()
        self._take(tuple(routes))

    @property
    def routes(self) -> tuple[Route, ...]:
        """All, late ones included."""
        self.complete()
        return self._routes

    @property
    def is_complete(self) -> bool:
        return self._late is None

    def complete(self) -> None:
        """Adds the late routes, once. Blocks while what they need is loaded; may be called in any thread."""
        with self._lock:
            if self._late is not None:
                self._take((*self._routes, *self._late()))
                self._late = None

    def _take(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes
        self._exact: dict[str, dict[str, Route]] = {}
        prefixed: dict[str, dict[str, Route]] = {}
        for route in routes:
            home = self._exact if route.prefix is None else prefixed
            methods = home.setdefault(route.prefix or route.path, {})
            if "*" not in methods:  # which has every method, those of later routes too
                methods.setdefault(route.method, route)
        self._homes = {_home(route.path): route.dialect for route in reversed(routes)}
        self._prefixed = sorted(prefixed.items(), key=lambda item: -len(item[0]))
        self._found = {
            (method, path): Match(route) for path, methods in self._exact.items() for method, route in methods.items()
        }

    def exact(self, method: str, path: str) -> Route | None:
        """The route of just this path; None where there is none, or none yet."""
        found = self._found.get((method, path))
        return found.route if found is not None else None

    def dialect_at(self, path: str) -> Dialect:
        """In which errors are told of a path at which there is nothing: that of its neighbours."""
        return self._homes.get(_home(path), OPENAI)

    def match(self, method: str, path: str) -> Match:
        """Raises NotFound with the nearest path, or MethodNotAllowed with those that are allowed."""
        if (match := self._found.get((method, path))) is not None:
            return match
        methods = self._exact.get(path)
        rest = ""
        if methods is None:
            for prefix, found in self._prefixed:
                if path.startswith(prefix) and len(path) > len(prefix):
                    methods, rest = found, path[len(prefix) :]
                    break
            else:
                raise self._unknown(path)
        route = methods.get(method) or methods.get("*") or (methods.get("GET") if method == "HEAD" else None)
        if route is None:
            allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
            raise MethodNotAllowed(
                f"{method} is not possible on {path}", hint=f"use {' or '.join(allowed)}", allow=", ".join(allowed)
            )
        return Match(route, rest)

    def _unknown(self, path: str) -> NotFound:
        shown = path if len(path) <= 200 else path[:200] + "…"
        near = difflib.get_close_matches(path[:200], [route.path for route in self._routes], n=1, cutoff=0.6)
        if near:
            return NotFound(f"there is nothing at {shown}", hint=f"did you mean {near[0]}?", nearest=near[0])
        return NotFound(f"there is nothing at {shown}", hint="GET / says what is here")


def _home(path: str) -> str:
    return path[: path.find("/", 1)] if "/" in path[1:] else path


def query(exchange: Exchange, params: tuple[Param, ...]) -> dict[str, Any]:
    """The query's values, each of its kind, with defaults. Raises CallerError for one unknown or not right."""
    known = {param.name: param for param in params}
    values: dict[str, Any] = {param.name: param.default for param in params}
    for name, text in parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True):
        param = known.get(name)
        if param is None:
            raise CallerError(f"unknown query parameter {name!r}", hint=nearest_hint(name, known), param=name)
        values[name] = _value(param, text)
    return values


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """What to write instead of `name`."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(names)}" if names else "none is known here"


def _value(param: Param, text: str) -> Any:
    if param.kind is bool:
        if text.lower() in ("1", "true", "yes", ""):
            return True
        if text.lower() in ("0", "false", "no"):
            return False
        raise CallerError(f"{param.name} must be 1 or 0, not {text[:80]!r}", hint=param.text, param=param.name)
    if param.kind is int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise CallerError(f"{param.name} must be a number, not {text[:80]!r}", hint=param.text, param=param.name)
        number = int(text)
        if (param.minimum is not None and number < param.minimum) or (
            param.maximum is not None and number > param.maximum
        ):
            raise CallerError(
                f"{param.name} must be from {param.minimum or 0} to {param.maximum}, not {number}",
                hint=param.text,
                param=param.name,
            )
        return number
    return text
