"""`Connection`: one client's HTTP/1.1 connection: requests in, one at a time and in order, answers out."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import cast

from corral import clock
from corral.errors import CallerError, TooManyConnections, TooSlow
from corral.gateway.answer import encode
from corral.gateway.connections import Connections, Usual
from corral.gateway.dialects import openai
from corral.gateway.http.head import Head
from corral.gateway.http.heads import around
from corral.gateway.http.outbox import FEW
from corral.gateway.http.sockets import peer_of
from corral.gateway.path.fast import MOST_BYTES
from corral.gateway.path.fast_exchange import FastExchange
from corral.gateway.wire import STATUS_LINES, WireExchange, Work

NEVER = float("inf")
_PASS_ON_S = 0.01
_TOO_MANY = "close those that are not used, or raise the server's bound on open files (ulimit -n)"


class Connection(asyncio.Protocol):
    """One client's connection.

    At any time it reads a head, or has one exchange: first its body comes in, then it is answered. Bytes of further
    requests are kept unparsed until then.
    """

    def __init__(self, connections: Connections, early: bytes = b"") -> None:
        """`early` came before, to the server that had the connection."""
        self._all = connections
        self._limits = connections.limits
        self._keep_alive_s = self._limits.keep_alive_s
        self.standing_fields = connections.standing_fields
        self.keep_alive = True
        self.peer = ""
        self._tls = False
        self.deadline = NEVER
        self._transport: asyncio.Transport | None = None
        self._fd = -1  # of the socket, where bytes may go to it directly
        self._direct = -1  # the same, as long as nothing waits in the transport
        self._head: Head | None = None
        self._exchange: WireExchange | None = None
        self._early = early
        self._reading = True
        self._writable: asyncio.Future[None] | None = None  # while the client is behind
        self._began = 0.0  # when the present body began to come
        self._closing = False
        self._usual = connections.usual
        self._posted = b""  # goes out with the outbox

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(transport)
        self._tls = transport.get_extra_info("ssl_object") is not None
        if sys.platform != "win32" and transport.get_extra_info("sslcontext") is None:
            self._fd = self._direct = transport.get_extra_info("socket").fileno()
        self.deadline = clock.monotonic() + self._limits.head_s
        self._all.add(self)
        if self._all.are_too_many:
            self._refuse(TooManyConnections("too many connections are open", hint=_TOO_MANY, retry_after_s=1))
            return
        if self._early:
            self._go_on()
        if self._all.heir is not None:
            self.pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._posted = b""
        self._ends()
        self._transport = None
        self._all.discard(self)
        self._head = None
        self._resume_writers()
        if self._exchange is not None:
            self._exchange.client_left()
            self._exchange = None

    def eof_received(self) -> bool:
        """A client that has closed and one that only will not send any more look the same: both count as gone, because
        an engine must not work for nobody."""
        if self._exchange is not None and not self._exchange.ended:
            self.break_off()
        else:
            self._close()
        return not self._tls  # which has no half

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        exchange = self._exchange
        if exchange is None:
            if self._writable is None:
                if self._head is None and (usual := self._usual) is not None and (body := usual.body(data)) is not None:
                    self._begin(usual, body)
                else:
                    self._read_head(data)
            else:
                self._keep(data)  # first it has to take the answers that it has
        elif exchange.broken:
            pass
        elif not exchange.whole:
            self._read_body(exchange, data)
        else:
            self._keep(data)

    def pause_writing(self) -> None:
        self._writable = self._all.loop.create_future()
        self.deadline = clock.monotonic() + self._limits.unread_s

    def resume_writing(self) -> None:
        self._resume_writers()
        if self._closing:
            return
        self.deadline = NEVER
        if self._exchange is None:
            self._go_on()
        else:
            self._exchange.resumed()

    def _resume_writers(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # Requests.

    def _begin(self, usual: Usual, body: bytes) -> None:
        """A request like one before, all of which is there."""
        answers, head, plan = self._all.answers, usual.head, usual.plan
        if plan.fast is not answers.fast:  # the listener speaks another dialect now
            if (other := answers.fast.plan(head) if answers.fast is not None else None) is None:
                self._usual = None
                self._answer(head, len(body), body)
                return
            plan = other
        exchange = self._exchange = FastExchange(self, head, plan)
        if not head.keep_alive:
            self.keep_alive = False
        answers.active.add(exchange)
        self.deadline = NEVER
        exchange.begin(body)

    def _read_head(self, data: bytes) -> None:
        head = self._head
        if head is None:
            if data[0] in b"\r\n":  # some clients end a body with a line too many
                data = data.lstrip(b"\r\n")
                if not data:
                    return
            if (known := self._all.heads.find(data)) is not None:
                head, length, end = known
                if length is not None:
                    self._remember(head, data[:end])
                self._answer(head, length, data[end:] if end < len(data) else b"")
                return
            head = Head()
        try:
            end = head.feed(data)
        except CallerError as error:
            self._refuse(error)
            return
        if not end:
            if self._head is None:
                self._head = head
                self.deadline = clock.monotonic() + self._limits.head_s
            return
        if self._head is None:
            self._all.heads.remember(data[:end], head)
        self._head = None
        self._answer(head, head.length, data[end:] if end < len(data) else b"")

    def _remember(self, head: Head, data: bytes) -> None:
        fast = self._all.answers.fast
        if fast is None or (plan := fast.plan(head)) is None or (parts := around(data)) is None:
            return
        before, after = parts
        self._usual = self._all.usual = Usual(before, after, head, plan)

    def _answer(self, head: Head, length: int | None, rest: bytes) -> None:
        self.keep_alive = self.keep_alive and head.keep_alive
        answers = self._all.answers
        plan = None
        if length is not None and length <= MOST_BYTES and answers.fast is not None:
            plan = answers.fast.plan(head)
        exchange: WireExchange
        if plan is None:
            exchange = WireExchange(self, head, length)
        else:
            exchange = fast = FastExchange(self, head, plan)
            fast.fill(length or 0)
        self._exchange = exchange
        answers.active.add(exchange)
        self.deadline = NEVER
        if not exchange.whole:
            self._began = clock.monotonic()
            self.deadline = self._began + self._limits.body_s
        if plan is None:
            self.run(exchange)
        elif exchange.whole:
            exchange.arrived()
        if rest:
            self.data_received(rest)

    def _read_body(self, exchange: WireExchange, data: bytes) -> None:
        try:
            used = exchange.feed(data)
        except CallerError as error:
            self.keep_alive = False
            if exchange.ended or exchange.started:
                self.break_off()
                return
            exchange.fail(error, broken=True)
            return
        if exchange.ended:
            if exchange.whole or exchange.taken > self._limits.linger_bytes:
                self._over()
            return
        if exchange.whole:
            self.deadline = NEVER
            if used < len(data):
                self._keep(data[used:])
            exchange.arrived()
        else:
            self.deadline = self._began + self._limits.body_s + exchange.taken / self._limits.body_bytes_per_s

    def _keep(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > self._limits.early_bytes and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Takes up what came early, or waits for the next request."""
        self.deadline = clock.monotonic() + self._limits.keep_alive_s
        if self._all.heir is not None:
            self.pass_on()
            return
        if not self._early:
            return
        data, self._early = self._early, b""
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        self._read_head(data)

    def _refuse(self, error: CallerError) -> None:
        """What came is no request, or cannot be taken in. It is told so, and that is all."""
        body = encode(openai.error(error))
        again = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % error.retry_after_s
        self.transmit(
            b"%b%b%bcontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (STATUS_LINES[error.status], self.standing_fields(), again, len(body), body)
        )
        self._close()

    # What an exchange calls.

    def run(self, exchange: WireExchange, work: Work | None = None) -> None:
        exchange.task = task = self._all.loop.create_task((work or self._all.answers.answer)(exchange))

        def ended(_: asyncio.Task[None]) -> None:
            exchange.dropped()
            self.left(exchange)
            if not exchange.ended and not exchange.gone:
                exchange.abort()
            self._all.answers.over(exchange)

        task.add_done_callback(ended)

    def left(self, exchange: WireExchange) -> None:
        self._all.answers.active.discard(exchange)
        if exchange.watched is not None and not exchange.watched.done():
            exchange.watched.set_result(None)

    def done(self, exchange: WireExchange, now: float) -> None:
        self._all.answers.active.discard(exchange)
        if exchange.watched is not None:
            self.left(exchange)
        if self._exchange is None or self._closing:
            return
        if self._early or not self.keep_alive or self._writable is not None or self._all.heir is not None:
            self._over()
            return
        self._exchange = None
        self.deadline = now + self._keep_alive_s

    def post(self, data: bytes) -> None:
        if self._posted or len(self._all.answers.active) <= FEW:
            self.transmit(data)
        else:
            self._posted = data
            self._all.outbox.add(self)

    def let_out(self) -> None:
        if self._posted:
            self.transmit(b"")

    def transmit(self, data: bytes) -> bool:
        if self._posted:
            data, self._posted = self._posted + data, b""
        if self._direct >= 0:
            # At once: the transport would wait for the end of this turn of the event loop.
            try:
                sent = os.write(self._direct, data)
            except OSError:
                sent = 0  # the transport finds out why
            if sent == len(data):
                return self._writable is None
            data = data[sent:]
        return self._queue(data)

    def _queue(self, data: bytes) -> bool:
        """Leaves it to the transport, until all that it has is out."""
        transport = self._transport
        if transport is None:
            return self._writable is None
        if self._direct < 0 <= self._fd and not self._closing and not transport.get_write_buffer_size():
            self._direct = self._fd
            return self.transmit(data)
        self._direct = -1
        transport.write(data)
        return self._writable is None

    async def drained(self) -> None:
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def hold(self, on: bool) -> None:
        if self._transport is None or self._closing or on is not self._reading:
            return
        self._reading = not on
        if on:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def answered(self) -> None:
        exchange = self._exchange
        if exchange is None or self._closing:
            return
        if not exchange.whole and not exchange.broken and not exchange.waits_for_leave:
            # A client that still sends would be cut off before it reads why: its rest is taken in first, within bounds.
            self.deadline = clock.monotonic() + self._limits.linger_s
            return
        self._over()

    def _over(self) -> None:
        self._exchange = None
        if not self.keep_alive:
            self._close()
            return
        if self._writable is None:
            self._go_on()

    def break_off(self) -> None:
        self._ends()
        if self._transport is not None:
            self._transport.abort()

    # What ends it.

    def _ends(self) -> None:
        self.let_out()
        self._closing = True
        self._fd = self._direct = -1  # another one may soon have that number

    def _close(self) -> None:
        """Closes once what was written is out, or the client has had time enough for that."""
        self._ends()
        self._early = b""
        if self._transport is not None:
            unsent = self._transport.get_write_buffer_size()
            self.deadline = clock.monotonic() + (self._limits.unread_s if unsent else self._limits.linger_s)
            self._transport.close()

    def shutdown(self) -> None:
        """Closes now, or after the answer that is being given."""
        self.keep_alive = False
        if self._exchange is None or self._exchange.ended:
            self._close()

    @property
    def is_half_way(self) -> bool:
        """A request has begun to come and is not there yet."""
        return self._head is not None or (self._exchange is not None and not self._exchange.whole)

    def pass_on(self) -> None:
        """Gives the connection to the heir, unless it has a request. Nothing that the client sends is lost: what we
        have not read waits in the kernel."""
        heir, transport = self._all.heir, self._transport
        if heir is None or transport is None or self._closing or self._exchange is not None or self._head is not None:
            return
        self.let_out()
        if transport.get_write_buffer_size() or self._writable is not None:
            self._all.loop.call_later(_PASS_ON_S, self.pass_on)  # the end of its last answer first
            return
        if self._tls:
            self._close()  # its keys are in this process only: the client connects anew
            return
        transport.pause_reading()
        self._ends()
        early, self._early = self._early, b""
        heir(socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())), early)
        transport.abort()

    def expire(self) -> None:
        """`deadline` has passed."""
        exchange = self._exchange
        if self._closing or self._writable is not None or (exchange is not None and exchange.ended):
            self.break_off()
        elif exchange is not None:
            self.deadline = NEVER
            exchange.fail(TooSlow("the request's body came too slowly", hint="send it faster, or in smaller parts"))
        elif self._head is not None:
            self._refuse(TooSlow("the request's head came too slowly", hint="send it at once"))
        else:
            self._close()
