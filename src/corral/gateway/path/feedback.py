"""`Feedback`: what a stream's client hears while it waits for its model."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from corral import clock
from corral.gateway.dialects.chat import datas, parsed
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.http import sse
from corral.gateway.http.headers import first
from corral.supervisor.pulse import Pulse

PROGRESS_S: Final = 1.0
"""So often events are sent to those who ask for them; a request that is answered within half of it gets none."""

_LEAST_S = 0.1
_ASKED = b'"return_progress"'


class Feedback:
    """One request's. `pulse` says whether an engine has begun to answer it."""

    def __init__(self, exchange: Exchange, host: Host, model: str, every_s: float | None, progress: bool) -> None:
        self._exchange, self._host, self._model = exchange, host, model
        self._every_s, self._progress = every_s, progress
        self._began = clock.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self.pulse: Pulse | None = None

    def wait(self) -> None:
        """It waits for an engine, from now on or once more."""
        self.pulse = None
        if self._timer is None:
            self._later(PROGRESS_S / 2 if self._progress else self._every_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def asking(self, body: bytes) -> bytes:
        """A request's body so that the engine tells how far it is, where that is wanted."""
        if not self._progress or _ASKED in body:
            return body
        at = body.index(b"{") + 1
        return b'%b"return_progress":true,%b' % (body[:at], body[at:])

    def told(self, events: bytes) -> bytes:
        """Takes the engine's word on how far it is out of `events`, and tells it in ours. What is left of them."""
        if not self._progress or b'"prompt_progress"' not in events:
            return events
        left = []
        for data in datas(events):
            chunk = parsed(data)
            progress = chunk.get("prompt_progress") if chunk is not None else None
            if isinstance(progress, dict) and (percent := _percent(progress)) is not None:
                self._exchange.comment(self._event("answering", percent=percent))
            else:
                left.append(b"data: %b\n\n" % data)
        return b"".join(left)

    def _later(self, after_s: float | None) -> None:
        if after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(_LEAST_S, after_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        exchange, pulse = self._exchange, self.pulse
        if exchange.gone or exchange.ended or (pulse is not None and pulse.chunks):
            return
        units = [unit for unit in self._host.units() if unit.model == self._model]
        state = "answering" if pulse is not None else units[0].state if units else "stopped"
        if self._progress:
            facts: dict[str, float | str] = {}
            if state == "loading" and units[0].reason:
                facts["doing"] = units[0].reason
            if units and units[0].expected_wait_s is not None:
                facts["expected_s"] = round(units[0].expected_wait_s, 1)
            if units and units[0].queued:
                facts["queued"] = units[0].queued
            exchange.comment(self._event(state, **facts))
            self._later(PROGRESS_S)
        else:
            exchange.comment(b": waiting (%b)\n\n" % state.encode())
            self._later(self._every_s)

    def _event(self, state: str, **facts: float | str) -> bytes:
        waited_s = round(clock.monotonic() - self._began, 1)
        said = {"model": self._model, "state": state, "waited_s": waited_s, **facts}
        return sse.event(json.dumps(said), name="corral.progress")


def feedback(exchange: Exchange, host: Host, model: str) -> Feedback | None:
    """That of a request for a stream; None where there cannot be any."""
    if not exchange.dialect.comments or exchange.method == "HEAD":
        return None
    progress = first(exchange.headers, b"x-corral-progress") in (b"1", b"true")
    every_s = host.settings.comments_after_s
    return None if every_s is None and not progress else Feedback(exchange, host, model, every_s, progress)


def _percent(progress: dict[str, object]) -> int | None:
    """Of the prompt, as llama.cpp tells it: `processed` counts what it had read before, too."""
    total, done = progress.get("total"), progress.get("processed")
    if not isinstance(total, int) or not isinstance(done, int) or total < 1:
        return None
    return min(100, 100 * done // total)
