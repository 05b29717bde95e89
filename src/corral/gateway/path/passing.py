"""`Passing`: what is done to a stream's events between their engine and their client, one engine's part of it."""

from __future__ import annotations

from corral.errors import EngineGone
from corral.gateway.dialects.tally import Tally
from corral.gateway.path.count import without_count
from corral.gateway.path.feedback import Feedback
from corral.gateway.path.resume import Resume
from corral.scheduler.lease import Lease


class Passing:
    """Whole events only. `hides`: the engine's count is not for the client. `tally` hears of each event."""

    __slots__ = ("_feedback", "_hides", "_lease", "_resume", "_tally")

    def __init__(
        self,
        lease: Lease,
        resume: Resume | None = None,
        feedback: Feedback | None = None,
        *,
        hides: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally
        self._lease, self._resume, self._feedback, self._hides = lease, resume, feedback, hides

    @property
    def resumes(self) -> bool:
        """Another engine could go on with them."""
        return self._resume is not None

    def first(self, whole: bytes) -> bytes:
        """As long as no answer has begun: what is left when the engine's word on its progress is told apart."""
        whole = self._feedback.told(whole) if self._feedback is not None else whole
        return self.through(whole) if whole else b""

    def through(self, whole: bytes) -> bytes:
        """As the client, or who translates for it, gets them; empty when nothing of them does."""
        if self._tally is not None:
            self._tally.feed(whole)
        if self._resume is not None:
            whole = self._resume.passed(whole)
        return without_count(whole) if self._hides else whole

    def out(self, said: bytes, kind: bytes = b"text/event-stream") -> bytes:
        """What goes out, with a mark where another engine goes on."""
        return self._resume.marked(said, kind, self._lease) if self._resume is not None else said

    def not_events(self, status: int) -> EngineGone | None:
        """What an answer that is no stream comes to, where it should have gone on with one."""
        return self._resume.refused(status) if self._resume is not None and self._resume.going_on else None
