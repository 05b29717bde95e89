"""One run of a download: as many connections as help, until all of the file is there and hashed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from corral.clock import monotonic
from corral.errors import Bug, CorralError, RateLimited, RegistryError
from corral.models.fetching.attempts import Attempts
from corral.models.fetching.control import Control, Stopped
from corral.models.fetching.following import Follower, Hasher, Syncer
from corral.models.fetching.partfile import PartFile
from corral.models.fetching.spans import Span
from corral.models.fetching.stream import Stream, check_same
from corral.models.fetching.worker import Worker
from corral.registry.source import RemoteBlob

TICK_S = 0.1
TRY_S = 0.5
"""How long a number of connections is tried before another is added."""
GAIN = 1.15
FAST_BYTES_PER_S = 200e6
"""Beyond this it is this machine that limits a download, and another connection is another thread to feed."""
FIRST_TRY_S = 0.2
"""For the first one alone. Where it is fast, a second would only get in its way: what comes in order costs least."""


class Run:
    """The connections of one download and what they share. Used once, by the thread that made it."""

    def __init__(
        self,
        part: PartFile,
        blob: RemoteBlob,
        control: Control,
        attempts: Attempts,
        on_progress: Callable[[int], None],
        *,
        connections: int,
    ) -> None:
        self.part = part
        self.hasher = Hasher(part)
        self.control = control
        self.attempts = attempts
        self._blob = blob
        self._on_progress = on_progress
        self._most = max(1, connections)
        self._wanted = 1
        self._alive = 0
        self._ranges = True
        self._etag = blob.etag if blob.digest is None else None
        self._error: CorralError | Stopped | None = None
        self._streams: set[Stream] = set()
        self._over = False

    # What the watching thread does.

    def fetch(self) -> str:
        """Fetches with threads; this one only watches. The digest. Raises as `fetch_blob` does."""
        hasher, syncer = self.hasher, Syncer(self.part)
        threads: list[threading.Thread] = []
        try:
            hasher.start()
            syncer.start()
            self._watch((hasher, syncer), threads)
            for follower in (hasher, syncer):
                while follower.is_alive():
                    follower.join(TICK_S)
                    self.control.check()
            self._raise(hasher, syncer)
        finally:
            self._end((hasher, syncer), threads)
        self._on_progress(self.part.have_bytes)
        return hasher.digest

    def _watch(self, followers: tuple[Follower, ...], threads: list[threading.Thread]) -> None:
        part = self.part
        began, before, best, try_s = monotonic(), part.have_bytes, 0.0, FIRST_TRY_S
        while True:
            with part.changed:
                while self._error is None and self._alive < self._wanted and part.more_to_take():
                    threads.append(threading.Thread(target=self._thread, name="corral-fetch", daemon=True))
                    self._alive += 1
                    threads[-1].start()
                part.changed.wait_for(lambda: part.done or self._error is not None, TICK_S)
                done = part.done
            self._raise(*followers)
            self._on_progress(part.have_bytes)
            if done:
                return
            now = monotonic()
            if now - began >= try_s:
                speed = (part.have_bytes - before) / (now - began)
                with part.changed:
                    if self._ranges and best * GAIN < speed < FAST_BYTES_PER_S:
                        self._wanted = min(self._most, self._wanted + 1)
                best = max(best, speed)
                began, before, try_s = now, part.have_bytes, TRY_S

    def _raise(self, *followers: Follower) -> None:
        self.control.check()
        for error in (self._error, *(follower.error for follower in followers)):
            if error is not None:
                raise error

    def _end(self, followers: tuple[Follower, ...], threads: list[threading.Thread]) -> None:
        """Stops whatever still runs: nothing may write once the partial's lock is given up."""
        with self.part.changed:
            self._over = True
            streams = list(self._streams)
        for stream in streams:
            stream.abort()
        for follower in followers:
            follower.tell_to_stop()
        for thread in (*threads, *followers):
            if thread.ident is not None:
                thread.join()

    # What each worker's thread does.

    def _thread(self) -> None:
        try:
            Worker(self).work()
        except (CorralError, Stopped) as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001 - a thread's end; the watching thread raises it
            self._give_up(Bug(f"a download broke: {error!r}", hint="please report it"))
        finally:
            with self.part.changed:
                self._alive -= 1
                self.part.changed.notify_all()

    def _give_up(self, error: CorralError | Stopped) -> None:
        with self.part.changed:
            if self._error is None and not self._over:
                self._error = error
            self.part.changed.notify_all()

    def take(self) -> Span | None:
        with self.part.changed:
            if self._over or self._error is not None or self._alive > self._wanted:
                return None
            return self.part.take(self._wanted)

    def keeps(self, stream: Stream, span: Span) -> bool:
        return not self._ranges and stream.whole and stream.at <= span.position

    def open(self, span: Span) -> Stream | None:
        ranged = self._ranges
        stream = Stream.open(self._blob, span.position, span.left if ranged else None)
        with self.part.changed:
            self._streams.add(stream)
        try:
            if self._over:
                raise Stopped("closing")  # `_end` did not see this one
            check_same(stream, self._blob, self.part.size, self._etag)
        except BaseException:
            self.close(stream)
            raise
        if self._etag is None and self._blob.digest is None:
            self._etag = stream.etag
        if ranged and (stream.at < span.position or (stream.whole and span.left < self.part.size)):
            with self.part.changed:
                self._ranges, self._wanted = False, 1
            if stream.at < span.position:
                self.close(stream)
                return None
        return stream

    def close(self, stream: Stream) -> None:
        with self.part.changed:
            self._streams.discard(stream)
        stream.close()

    def failed(self, error: RegistryError, number: int) -> None:
        if self._over:
            return
        if isinstance(error, RateLimited):
            with self.part.changed:
                self._wanted = max(1, self._wanted - 1)
        self.attempts.failed(error, number)
