"""`App`: what one listener answers: finds the route, reads the body, and turns errors into answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from corral.config.settings import Listen
from corral.errors import Bug, CorralError, LocalOnly, MethodNotAllowed, NotFound
from corral.gateway import tables
from corral.gateway.answer import send_error
from corral.gateway.api.chat_route import Chat
from corral.gateway.api.detect_routes import Detect
from corral.gateway.api.dialect_routes import dialect_groups
from corral.gateway.api.inference import Inference
from corral.gateway.control.metering import MeteringControl, MeteringHost
from corral.gateway.control.server import Control
from corral.gateway.exchange import ClientLeft, Exchange
from corral.gateway.gate import Gate
from corral.gateway.host import Host
from corral.gateway.http.headers import sane_id
from corral.gateway.models_host import ModelsHost
from corral.gateway.path.fast import Fast, Means
from corral.gateway.path.proxy import Proxy
from corral.gateway.recall import Conversations
from corral.gateway.request_ids import new_request_id
from corral.gateway.routes import CONTROL_BODY_BYTES, Match, Route, Table
from corral.gateway.traits import Traits
from corral.metrics.record import Recorder
from corral.scheduler.lease import Leases
from corral.supervisor.pulse import Pulses

if TYPE_CHECKING:
    from corral.gateway.control.access import AccessHost

NOWHERE = Listen("")
"""An app's address until its listener says: one at which keys are needed."""
HEARTBEAT_S = 15.0
"""A follower of logs or events hears something at least so often."""

log = logging.getLogger("corral.gateway")


class App:
    """The routes as one listener offers them. `active` are the exchanges that are being answered now."""

    def __init__(
        self,
        host: Host,
        tables: Callable[[str | None, bool], Table],
        proxy: Proxy,
        listener_default: str | None = None,
        local: bool = False,
        where: Listen = NOWHERE,
        gate: Gate | None = None,
        means: Means | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """`means` are those of the fast path; without them, every request is answered in a task. `recorder` gets a
        record of each request that asks a model."""
        self._host = host
        self._tables = tables
        self._table = tables(where.dialect, where.page is not None)
        self._gate = gate
        self._means = means
        self._recorder = recorder
        self._proxy = proxy
        self.rest = proxy.rest
        self._local = local
        self.listener_default = listener_default
        self.where = where
        self.active: set[Exchange] = set()
        self.fast = Fast(means, self._table, self) if means is not None else None

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._table.routes

    def become(self, where: Listen) -> None:
        """Answers as `where` from now on: root paths on which dialects differ are its dialect's, `/` its page's."""
        before, self.where = self.where, where
        if (where.dialect, where.page is None) != (before.dialect, before.page is None):
            self._table = self._tables(where.dialect, where.page is not None)
            self.fast = Fast(self._means, self._table, self) if self._means is not None else None

    async def answer(self, exchange: Exchange) -> None:
        """Answers `exchange`, with an error if need be. Raises only CancelledError, when its task was cancelled by
        somebody who did not say why."""
        await self._answered(exchange, self._found)

    async def go_on(self, exchange: Exchange) -> None:
        """As `answer`, for one that the fast path has begun."""
        await self._answered(exchange, self._proxy.go_on)

    async def refuse(self, exchange: Exchange, error: CorralError) -> None:
        """Answers with `error`."""
        exchange.course.outcome = error.code
        try:
            await send_error(exchange, error)
        except asyncio.CancelledError:
            if not exchange.gone and exchange.interruption is None:
                raise
            if not exchange.gone:
                exchange.abort()

    def over(self, exchange: Exchange) -> None:
        """Leaves word of `exchange`, for which nothing is done any more, where it asked a model."""
        course = exchange.course
        if (recorder := self._recorder) is None or exchange.method != "POST" or course.over:
            return
        course.over = True
        # Without one, it ended before anything was done for it.
        route = course.route or self._table.exact(exchange.method, exchange.path)
        if route is not None and route.counted:
            recorder.add(course.record(exchange, route))

    async def _found(self, exchange: Exchange) -> None:
        exchange.listener_default = self.listener_default
        exchange.local, exchange.where = self._local, self.where
        if not exchange.entered:
            exchange.extra = [(b"x-request-id", sane_id(exchange.header(b"x-request-id")) or new_request_id())]
        if exchange.method == "OPTIONS" and self._gate and (allowed := self._gate.preflight(exchange)) is not None:
            await exchange.respond(204, allowed)
            return
        try:
            match: Match | None = self._table.match(exchange.method, exchange.path)
        except (NotFound, MethodNotAllowed):  # by whoever is not loaded yet, or in the dialect of that path
            match = None
        if match is None:  # outside, so that the next error does not hold this one
            match = await self._late_match(exchange)
        route = match.route
        exchange.dialect, exchange.course.route = route.dialect, route
        if route.local and not self._local:
            raise _local_only(exchange.path)
        if self._gate is not None and not exchange.entered:
            exchange.caller = self._gate.enter(exchange, route.scope)
        if route.mount:
            exchange.path = exchange.path[len(route.mount) :] or "/"
            mount = route.mount.encode()
            if not exchange.raw_path.startswith(mount):  # it was written with percent signs, which say the same
                exchange.raw_path = quote(route.mount + exchange.path).encode()
            exchange.raw_path = exchange.raw_path[len(mount) :] or b"/"
        if route.piecewise:
            exchange.piecewise = True
            await route.handler(exchange, match, b"")
            return
        limit = self._host.settings.max_body_bytes
        body = await exchange.body(limit if route.large else min(limit, CONTROL_BODY_BYTES))
        if route.before is not None:
            await route.before(exchange, match, body)
        await route.handler(exchange, match, body)

    async def _answered(self, exchange: Exchange, work: Callable[[Exchange], Awaitable[None]]) -> None:
        try:
            await work(exchange)
            return
        except CorralError as exc:
            error = exc.with_traceback(None)  # its frames hold the body, and this one, which would hold it
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not exchange.gone and exchange.interruption is None:
                raise
            if exchange.task is not None:
                exchange.task.uncancel()
            if exchange.gone or exchange.interruption is None:
                return
            error = exchange.interruption
        except Exception as exc:  # the task ends here, and its client must hear of it
            log.exception("%s %s failed", exchange.method, exchange.path)
            error = Bug(f"an internal error: {type(exc).__name__}", hint="please report it, with Corral's log")
        exchange.course.outcome = error.code
        try:
            await send_error(exchange, error)
        except asyncio.CancelledError:
            if not exchange.gone:
                raise

    async def _late_match(self, exchange: Exchange) -> Match:
        if not self._table.is_complete:
            await asyncio.to_thread(self._table.complete)
        exchange.dialect = self._table.dialect_at(exchange.path)
        return self._table.match(exchange.method, exchange.path)


class MakeApp(Protocol):
    """Makes one listener's app."""

    def __call__(self, listener_default: str | None = None, local: bool = False, where: Listen = NOWHERE) -> App: ...


def _local_only(path: str) -> LocalOnly:
    hint = "use the command on the server's machine, without --host"
    return LocalOnly(f"{path} is answered on the server's unix socket only", hint=hint)


def build(
    host: Host,
    leases: Leases,
    heartbeat_s: float = HEARTBEAT_S,
    *,
    models: ModelsHost | None = None,
    pulses: Pulses | None = None,
    conversations: Conversations | None = None,
    gate: Gate | None = None,
    access: AccessHost | None = None,
    recorder: Recorder | None = None,
    metering: MeteringHost | None = None,
    fast: bool = True,
) -> MakeApp:
    """The gateway over `host`, `leases` and the model store: a function that makes a listener's app, given the model
    of its own, whether it is a unix socket, and its address. In `pulses` it tells how requests get on; `gate` says who
    may do what (None: everybody everything), and `access` has its keys. `recorder` gets a record of each request,
    and `metering` tells what they come to."""
    control = Control(host, heartbeat_s)
    pulses = pulses or Pulses()
    proxy = Proxy(host, leases, pulses, conversations, gate)
    means = Means(host, leases, pulses, proxy.pool, conversations, gate, proxy.silent, recorder) if fast else None

    def late() -> list[Route]:
        # Loaded by those who ask for keys, or for the store.
        from corral.gateway.control.access import AccessControl
        from corral.gateway.control.store import StoreControl

        found = [] if access is None else AccessControl(access).routes()
        return found if models is None else [*found, *StoreControl(models, heartbeat_s).routes()]

    chat = Chat(host, proxy, Traits(models))
    own = [*Inference(host, proxy, chat).routes(), *Detect(host, proxy).routes(), *control.routes()]
    if metering is not None:
        own += MeteringControl(metering).routes()
    groups = dialect_groups(host, proxy, models, chat, access, heartbeat_s)

    @cache
    def table(dialect: str | None, paged: bool) -> Table:
        page: list[Route] = []
        if paged:
            from corral.gateway.api.page_routes import page_routes

            page = page_routes()
        return tables.table(own, late, groups, dialect, page)

    control.describe(lambda: tuple(route for route in table(None, False).routes if route.doc is not None))

    def app(listener_default: str | None = None, local: bool = False, where: Listen = NOWHERE) -> App:
        return App(host, table, proxy, listener_default, local, where, gate, means, recorder)

    return app
