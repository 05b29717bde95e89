"""Whether a request whose engine was lost is tried again."""

from __future__ import annotations

from corral.errors import EngineGone, GpuLost, OutOfMemory
from corral.gateway import upstream
from corral.scheduler.lease import Lease, Leases
from corral.supervisor import ailing, reasons

RETRIES = 1
"""Further tries of a request that may have cost its engine's life, while no byte of an answer was sent: one that kills
its engine must not do so for ever."""

IN_ALL = 4
"""Tries of a request that engines had, whoever is to blame for their ends. Those that no engine got are tried until
they have waited too long."""


class Tries:
    """What became of one request's tries."""

    __slots__ = ("_ailed", "_leases", "_lost")

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lost: list[Lease] = []
        self._ailed = 0

    async def more(self, lease: Lease, error: EngineGone, *, again: bool) -> bool:
        """Whether there is another one after `lease` was lost with `error`. The supervisor is told of the unit.

        `again`: it may be sent a second time.
        """
        if isinstance(error, OutOfMemory | GpuLost):
            self._ailed += 1
            if self._ailed > RETRIES:  # the second engine that says so over this request: it may be the request
                return False
            self._leases.unit_ails(lease, error.details["said"])
            return again
        self._leases.unit_gone(lease, error.message)
        if error.details.get("untouched", False):
            return True
        if not again:
            return False
        self._lost.append(lease)
        tries = len(self._lost) + self._ailed
        if tries <= RETRIES:
            return True
        if tries >= IN_ALL:
            return False
        blamed = self._ailed
        for lost in self._lost:
            blamed += not await self._leases.blameless(lost)
        return blamed <= RETRIES


def check_answer(lease: Lease, response: upstream.Response, body: bytes) -> None:
    """Raises OutOfMemory or GpuLost when this answer, which is not sent yet, tells of its engine's end."""
    if response.status >= 400 and (said := ailing.in_answer(response.status, body)):
        raise ailment(lease, said)


def check_event(lease: Lease, events: bytes) -> None:
    """The same for the first events of a stream."""
    if b'"error"' in events[:64] and (said := ailing.in_event(events)):
        raise ailment(lease, said)


def ailment(lease: Lease, said: str) -> OutOfMemory | GpuLost:
    reason = reasons.of_itself(said, lease.model)
    kind = GpuLost if reason.kind == "device" else OutOfMemory
    text = f"{lease.model} could not answer, and was started anew for it: {said[:300]}"
    return kind(text, hint=reason.hint, model=lease.model, unit=lease.unit, said=said)
