"""The fast path: requests that need no waiting, answered without a task.

Which those are: POST on a route that engines answer under the same path, with a small body of known length, for a model
with a ready unit, a free slot and an engine that takes the connection at once. Everything else, and whatever turns out
to be unusual on the way, goes on in a task, with the request as it came: see `fast_exchange`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from corral.config.settings import Listen, ModelSettings, Settings
from corral.errors import CorralError
from corral.gateway.exchange import Exchange
from corral.gateway.gate import Caller, Gate, Ticket
from corral.gateway.host import Host
from corral.gateway.http import headers as fields
from corral.gateway.http.head import Head
from corral.gateway.http.outbox import Outbox
from corral.gateway.path.continued import TARGETS
from corral.gateway.path.count import Silent
from corral.gateway.path.fast_heads import Answer, Answers, as_lines, lines_of
from corral.gateway.path.link import Pool
from corral.gateway.recall import Conversations
from corral.gateway.routes import Route, Table
from corral.metrics.record import Recorder
from corral.scheduler.lease import Lease, Leases
from corral.supervisor.pulse import Pulses

MOST_NAMES = 1000
_SLOW = (b"x-corral-keep-alive", b"x-corral-progress")

MOST_PERMITS = 64
"""For one head."""

MOST_BYTES = 64 << 10
"""Of a body: to look into a larger one takes longer than a task costs."""


class Means:
    """What the fast path works with, the same for all listeners."""

    def __init__(
        self,
        host: Host,
        leases: Leases,
        pulses: Pulses,
        pool: Pool,
        conversations: Conversations | None = None,
        gate: Gate | None = None,
        silent: Silent | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """`silent` are the models whose streams have to be asked what they took; `recorder` gets a record of each
        request."""
        self.silent = silent or Silent()
        self.host, self.leases, self.pulses, self.pool = host, leases, pulses, pool
        self.conversations, self.gate, self.recorder = conversations, gate, recorder
        self.answers = Answers()
        self.outbox = Outbox()
        self._before: tuple[Answer, bytes, Lease, bytes] | None = None

    def before(self, answer: Answer, standing: bytes, lease: Lease) -> bytes:
        """The beginning of a client's head: mostly the same as the last time."""
        last = self._before
        if last is not None and last[0] is answer and last[1] is standing and last[2] is lease:
            return last[3]
        made = b"%b%b%b%b" % (answer.status_line, standing, answer.lines, lines_of(lease))
        self._before = answer, standing, lease, made
        return made


class Listening(Protocol):
    """What it needs of its listener's app."""

    listener_default: str | None
    where: Listen
    active: set[Exchange]

    def go_on(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Answers a request that an engine may have had: what `exchange.begun` says."""
        ...

    def refuse(self, exchange: Exchange, error: CorralError) -> Coroutine[Any, Any, None]:
        """Tells the client of `error`."""
        ...


class Permit:
    """What is the same for all requests with one head, from one address, to one model, as long as `holds` says so."""

    __slots__ = (
        "_constant",
        "_default",
        "_settings",
        "_until",
        "caller",
        "key",
        "looks",
        "model",
        "most_bytes",
        "ticket",
    )

    def __init__(self, plan: Plan, model: str, until: float, caller: Caller | None, constant: object) -> None:
        """`until`: when the model is looked at again; `constant`: of the gate, None where it is asked each time."""
        fast = plan.fast
        self._settings, self._default = fast.means.host.settings, fast.app.listener_default
        self._until, self._constant = until, constant
        self.caller, self.key = caller, caller.owner if caller is not None else ""
        self.model, self.most_bytes = model, fast.most_bytes
        self.looks = plan.route.plain_until is not None  # whether a body has to be plain
        self.ticket: Ticket | None = None  # the one for all of them, where the gate is constant

    def holds(self, plan: Plan, now: float) -> bool:
        fast = plan.fast
        means = fast.means
        return (
            self._until > now
            and means.host.settings is self._settings
            and fast.app.listener_default == self._default
            and (self.caller is None or means.gate is None or means.gate.constant(self.caller) is self._constant)
        )


class Plan:
    """What is the same for all requests with one head."""

    __slots__ = (
        "counted", "dialect", "fast", "means", "named", "path", "permits", "request_id", "request_lines", "resumes",
        "route", "target", "trace",
    )  # fmt: skip

    def __init__(self, fast: Fast, route: Route, head: Head) -> None:
        self.fast, self.means, self.route, self.path = fast, fast.means, route, head.path
        self.dialect, self.named, self.counted = route.dialect.name, route.path, route.counted
        self.permits: dict[tuple[str, str | None], Permit] = {}  # by address, and what the request calls its model
        self.target = head.raw_path + b"?" + head.query if head.query else head.raw_path
        self.resumes = self.target in TARGETS
        self.trace = fields.first(head.fields, b"traceparent") or b""
        self.request_id = fields.sane_id(fields.first(head.fields, b"x-request-id")) or b""
        up = fields.upward(head.fields, b"", identity=True)[:-1]  # without the request's id
        self.request_lines = b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b" % (self.target, as_lines(up))


class Fast:
    """The fast path of one listener."""

    def __init__(self, means: Means, table: Table, app: Listening) -> None:
        self.means, self.app = means, app
        self._table = table
        self.most_bytes = 0  # of a body; known once a name was looked up
        self._known: dict[str | None, ModelSettings] = {}  # by what requests call them
        self._known_by: tuple[Settings, str | None] | None = None

    def resolve(self, named: str | None) -> ModelSettings | None:
        """The configured model of that name; None when there is none."""
        settings, default = self.means.host.settings, self.app.listener_default
        if (by := self._known_by) is None or by[0] is not settings or by[1] is not default:
            self._known_by = settings, default
            self.most_bytes = min(MOST_BYTES, settings.max_body_bytes)
            self._known.clear()
        if (found := self._known.get(named)) is None:
            try:
                found = self.means.host.resolve(named, default)
            except CorralError:
                return None
            if len(self._known) < MOST_NAMES:
                self._known[named] = found
        return found

    def plan(self, head: Head) -> Plan | None:
        """How a request that begins with `head` is answered; None when it has to take the other way."""
        plan = head.plan
        if type(plan) is Plan and plan.fast is self:
            return plan
        if head.method != "POST" or head.version != "1.1" or head.expects or head.length is None:
            return None
        route = self._table.exact("POST", head.path)
        if route is None or not route.direct or any(name in _SLOW for name, _ in head.fields):
            return None
        if b"model=" in head.query:
            return None  # the body may not name it
        head.plan = plan = Plan(self, route, head)
        return plan
