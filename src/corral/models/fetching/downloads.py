"""Every download there is: started, shared, paused, gone on with in a later life."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping

from corral import clock
from corral.errors import Bug, CorralError, InUse, NotFound, NotInRegistry, StoreError
from corral.lazy_dataclass import dataclass
from corral.models.fetching.control import Control, Limit, Stopped
from corral.models.fetching.fetch import CONNECTIONS, Fetching
from corral.models.fetching.job import Job, read_job
from corral.models.fetching.job_view import JobView
from corral.models.fetching.pull import Puller, Verify
from corral.refs import Ref
from corral.registry.source import Source
from corral.store.store import Store

JOBS_AT_ONCE = 3
MOST_OVER = 50
"""How many downloads that are over are remembered."""
CLOSE_S = 10.0

Listener = Callable[[JobView], None]
"""Called from downloads' threads at every change of state and at most ten times a second between; must not block."""


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """What a user may set."""

    connections: int = CONNECTIONS  # per blob, at most
    limit_bytes_per_s: float | None = None  # of all downloads together
    at_once: int = JOBS_AT_ONCE


class Downloads:
    """The owner of all downloads of one store. One per store directory. Safe to call from several threads.

    A download runs in threads of its own; `start` and the others return at once. Each is recorded in the store, so
    that `resume_all` goes on with those that an earlier process left.
    """

    def __init__(
        self,
        store: Store,
        sources: Mapping[str, Source],
        *,
        verify: Verify | None = None,
        listener: Listener = lambda view: None,
        settings: DownloadSettings | None = None,
        how: Fetching | None = None,
    ) -> None:
        self._settings = settings or DownloadSettings()
        limit = self._settings.limit_bytes_per_s
        self._limit = Limit(limit) if limit else None
        self._store = store
        self._sources = dict(sources)
        self._listener = listener
        self._puller = Puller(store, verify, how or Fetching(connections=self._settings.connections))
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self._closed = False

    def start(self, ref: Ref, *, name: str | None = None) -> JobView:
        """Downloads `ref` and calls it `name`. A download of the same that is not over is joined; a paused one goes on.

        Raises NotInRegistry when nothing knows where such a reference leads, StoreError.
        """
        if ref.kind not in self._sources:
            raise _no_source(ref)
        wanted = name or ref.name
        with self._lock:
            for job in list(self._jobs.values()):
                if (job.ref, job.name) == (ref, wanted):
                    if not job.over:
                        return self.resume(job.id) if job.state == "paused" else job.view()
                    self._forget(job)
            job = Job(self._store.jobs_dir, ref, wanted, self._listener)
            self._jobs[job.id] = job
            try:
                self._queue(job)
            except StoreError:
                del self._jobs[job.id]
                raise
            self._forget_oldest()
            return job.view()

    def resume_all(self) -> list[JobView]:
        """Goes on with what an earlier process left; those that were paused stay so. To be called once, first."""
        with self._lock:
            files = sorted(self._store.jobs_dir.glob("*.json")) if self._store.jobs_dir.is_dir() else []
            found = [job for file in files if (job := read_job(file, self._listener)) is not None]
            for job in sorted(found, key=lambda each: each.started):
                self._jobs[job.id] = job
                if not job.over and job.state != "paused":
                    self._queue(job)
            self._forget_oldest()
            return [job.view() for job in found if not job.over]

    def jobs(self) -> list[JobView]:
        """All that are remembered, oldest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return sorted((job.view() for job in jobs), key=lambda view: view.started)

    def get(self, job_id: str) -> JobView:
        """Raises NotFound."""
        return self._job(job_id).view()

    def wait(self, job_id: str, timeout_s: float | None = None) -> JobView:
        """Blocks until the download is over or paused, or for `timeout_s`. Raises NotFound."""
        job = self._job(job_id)
        with job.changed:
            job.changed.wait_for(lambda: job.over or job.state == "paused", timeout_s)
        return job.view()

    def pause(self, job_id: str) -> JobView:
        """Stops it and keeps what it has. Without effect on one that is over. Raises NotFound."""
        with self._lock:
            job = self._job(job_id)
            if not job.over and job.state != "paused":
                job.control.stop("paused")
                job.move("paused")
            return job.view()

    def resume(self, job_id: str) -> JobView:
        """Goes on with one that is paused, failed or cancelled. Raises NotFound."""
        with self._lock:
            job = self._job(job_id)
            if job.state in ("paused", "failed", "cancelled"):
                self._queue(job)
            return job.view()

    def cancel(self, job_id: str) -> JobView:
        """Stops it and removes what it has fetched, files that are whole aside. Raises NotFound."""
        with self._lock:
            job = self._job(job_id)
            if job.state in ("done", "cancelled"):
                return job.view()
            job.control.stop("cancelled")
            job.move("cancelled")
            if job.id not in self._running:
                self._discard(job)
            return job.view()

    def close(self) -> None:
        """Stops all threads; what ran goes on with the next life's `resume_all`. Blocks for some seconds at most."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.control.stop("closing")
        deadline = clock.monotonic() + CLOSE_S
        for job in jobs:
            if job.thread is not None and job.thread is not threading.current_thread():
                job.thread.join(max(0.0, deadline - clock.monotonic()))

    def _job(self, job_id: str) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"there is no download {job_id[:40]}", hint="`corral downloads` lists them")
        return job

    # The caller of these has the lock.

    def _queue(self, job: Job) -> None:
        job.control = Control(self._limit)
        job.move("queued")
        self._pump()

    def _pump(self) -> None:
        """Starts queued jobs as long as fewer run than may."""
        for job in self._jobs.values():
            if self._closed or len(self._running) >= self._settings.at_once:
                return
            if job.state == "queued" and job.id not in self._running:
                self._running.add(job.id)
                job.thread = threading.Thread(
                    target=self._run, args=(job, job.control), name=f"corral-job-{job.id}", daemon=True
                )
                job.thread.start()

    def _forget(self, job: Job) -> None:
        if job.id not in self._running:
            del self._jobs[job.id]
            job.forget()

    def _forget_oldest(self) -> None:
        over = sorted((job for job in self._jobs.values() if job.over), key=lambda job: job.finished or 0.0)
        for job in over[:-MOST_OVER]:
            self._forget(job)

    def _discard(self, job: Job) -> None:
        """Removes what a cancelled job has of files that are not whole, unless another download wants them."""
        wanted = {key for other in self._jobs.values() if other is not job and not other.over for key in other.partials}
        for key in {partial.key for partial in self._store.partials()} & (job.partials - wanted):
            with contextlib.suppress(InUse):  # somebody else's now
                self._store.partial(key).discard()

    # What a job's thread does.

    def _run(self, job: Job, control: Control) -> None:
        ended = self._pull(job, control)
        with self._lock:
            self._running.discard(job.id)
            with contextlib.suppress(StoreError):  # a full disk takes no record either; the next life tries again
                if job.control is control:  # not asked for anew meanwhile
                    self._end(job, ended)
                self._pump()

    def _pull(self, job: Job, control: Control) -> CorralError | Stopped | None:
        try:
            source = self._sources.get(job.ref.kind)
            if source is None:
                raise _no_source(job.ref)
            self._puller.pull(job, source, control)
        except (CorralError, Stopped) as error:
            return error
        except Exception as error:  # noqa: BLE001 - a thread's end becomes the job's state
            return Bug(f"the download of {job.ref} broke: {error!r}", hint="please report it")
        return None

    def _end(self, job: Job, ended: CorralError | Stopped | None) -> None:
        if ended is None:
            job.move("done")
        elif job.state == "cancelled":  # whatever ended it: it may have been paused just before, or have failed
            self._discard(job)
        elif isinstance(ended, CorralError):
            job.move("failed", ended)


def _no_source(ref: Ref) -> NotInRegistry:
    return NotInRegistry(f"{ref} cannot be downloaded", hint="give a registry's reference or a URL")
