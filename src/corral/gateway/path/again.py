"""Whether a request whose engine was lost is tried again."""

from __future__ import annotations

from corral.errors import EngineGone, GpuLost, OutOfMemory
from corral.scheduler.lease import Lease, Leases
from corral.supervisor import ailing, reasons

RETRIES = 1
"""Further tries of a request that may have cost its engine's life, while no byte of an answer was sent: one that kills
its engine must not do so for ever."""

IN_ALL = 4
"""Tries of a request that engines had, whoever is to blame for their ends. Those that no engine got are tried until
they have waited too long."""

_EVENT_BYTES = 1024


class Tries:
    """What became of one request's tries."""

    __slots__ = ("_again", "_ailed", "_blamed", "_leases", "_lost", "_stumbled", "_unjudged")

    def __init__(self, leases: Leases, again: bool) -> None:
        """`again`: the request may be sent a second time."""
        self._leases, self._again = leases, again
        self._lost = 0
        self._unjudged: list[Lease] = []  # of the lost ones, those whose ends are still to be asked for
        self._blamed = 0
        self._ailed = 0
        self._stumbled = False

    async def more(self, lease: Lease, error: EngineGone) -> bool:
        """Whether there is another one after `lease` was lost with `error`. The supervisor is told of the unit."""
        if error.details.get("stumbled", False):
            return True  # said once only
        if isinstance(error, OutOfMemory | GpuLost):
            self._ailed += 1
            if self._ailed > RETRIES:  # the second engine that says so over this request: it may be the request
                return False
            self._leases.unit_ails(lease, error.details["said"])
            return self._again
        self._leases.unit_gone(lease, error.message)
        if error.details.get("untouched", False):
            return True
        if not self._again:
            return False
        self._lost += 1
        self._unjudged.append(lease)
        tries = self._lost + self._ailed
        if tries <= RETRIES:
            return True
        if tries >= IN_ALL:
            return False
        while self._unjudged:
            self._blamed += not await self._leases.blameless(self._unjudged.pop())
        return self._blamed + self._ailed <= RETRIES

    def given_up(self, lease: Lease, error: EngineGone) -> None:
        """Where no further try was even asked for: the supervisor is told of the unit all the same."""
        if isinstance(error, OutOfMemory | GpuLost) and not self._ailed:
            self._leases.unit_ails(lease, error.details["said"])

    def check_answer(self, lease: Lease, status: int, body: bytes) -> None:
        """Raises EngineGone when this answer, of which nothing is sent yet, tells of its engine and not of the request:
        OutOfMemory, GpuLost, or for once another one where a second try may go through."""
        if status >= 400 and (message := ailing.in_answer(body)):
            self._check(lease, status, message)

    def check_event(self, lease: Lease, events: bytes) -> None:
        """The same for the first events of a stream."""
        if b'"error"' in events[:64] and (message := ailing.in_event(events)):
            self._check(lease, 500, message)

    def ended(self, lease: Lease, end: bytes) -> None:
        """Tells the supervisor when a stream, of which this was the end, has ended for such a reason."""
        if b'"error"' in end[-_EVENT_BYTES:] and (said := ailing.ailment(ailing.in_event(end))):
            self._leases.unit_ails(lease, said)

    def _check(self, lease: Lease, status: int, message: str) -> None:
        if said := ailing.ailment(message):
            raise ailment(lease, said)
        if status >= 500 and self._again and not self._stumbled and ailing.stumbled(message):
            self._stumbled = True
            raise EngineGone(message, stumbled=True)


def why_lost(error: EngineGone) -> str:
    """Why an engine did not answer to the end, in one of a few words, as metrics count it (`catalogue.REASONS`)."""
    if isinstance(error, OutOfMemory):
        return "memory"
    if isinstance(error, GpuLost):
        return "device"
    if error.details.get("stumbled", False):
        return "stumbled"
    return "refused" if error.details.get("untouched", False) else "gone"


def healthy(events: bytes) -> tuple[bytes, str]:
    """Whole events up to one, the last, in which the engine says that it is to be replaced, and what it says; all of
    them where none does."""
    if b'"error"' not in events[-_EVENT_BYTES:] or not (said := ailing.ailment(ailing.in_event(events))):
        return events, ""
    return events[: events.rstrip().rfind(b"\n\n") + 2] if b"\n\n" in events.rstrip() else b"", said


def ailment(lease: Lease, said: str) -> OutOfMemory | GpuLost:
    reason = reasons.of_itself(said, lease.model)
    kind = GpuLost if reason.kind == "device" else OutOfMemory
    text = f"{lease.model} could not answer, and was started anew for it: {said[:300]}"
    return kind(text, hint=reason.hint, model=lease.model, unit=lease.unit, said=said)
