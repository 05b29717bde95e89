"""One pull from beginning to end: resolve the reference, fetch what the store lacks, name it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from corral.descriptors import Descriptor, digest_of
from corral.errors import Bug, CorralError, DigestMismatch, InUse, ManifestError, NotInRegistry, RegistryError
from corral.lazy_dataclass import dataclass
from corral.models.fetching.attempts import Attempts
from corral.models.fetching.control import Control, Stopped
from corral.models.fetching.fetch import Fetching, fetch_blob
from corral.models.fetching.job import BlobProgress, Job
from corral.refs import Ref
from corral.registry.source import RemoteBlob, RemoteModel, Source
from corral.store.store import Store

TICK_S = 0.1
BLOBS_AT_ONCE = 3
BUSY_S = 0.2
"""How often a blob that somebody else is fetching is looked at."""
FIRST_TRIES = 3
RESOLVES = 3
"""How often a reference is resolved when what it led to changed on the way."""

SOURCE = "corral.source"
"""The annotation of a name in the store that says which reference it came from."""

Verify = Callable[[Ref, str], None]
"""`verify(ref, manifest_digest)` raises SignatureError when a policy does not let the model in."""


@dataclass(frozen=True, slots=True)
class Puller:
    """What pulls have in common."""

    store: Store
    verify: Verify | None
    how: Fetching

    def pull(self, job: Job, source: Source, control: Control) -> str:
        """Blocks until the model of `job` is in the store under its name; its digest.

        Raises Stopped, RegistryError, StoreError. Whatever it raises, what was fetched is kept.
        """
        for number in range(RESOLVES):
            job.advance("resolving", control)
            remote = self._resolve(job, source, control)
            try:
                return self._fetch_all(job, remote, control)
            except RegistryError as error:
                if number + 1 == RESOLVES or not _perhaps_changed(error):
                    raise
                job.note(f"{error.message}; asking again what {job.ref} is")
        raise AssertionError("unreachable")

    def _resolve(self, job: Job, source: Source, control: Control) -> RemoteModel:
        retry = self.how.retry
        if not job.resolved:  # somebody has just typed it, and waits to see whether it is right
            retry = replace(retry, tries=min(FIRST_TRIES, retry.tries))
        attempts = Attempts(retry, control, job.note)
        while True:
            number = attempts.begin()
            try:
                remote = source.resolve(job.ref)
                job.resolved = True
                return remote
            except RegistryError as error:
                attempts.failed(error, number)

    def _fetch_all(self, job: Job, remote: RemoteModel, control: Control) -> str:
        manifest = remote.manifest
        digest = None if manifest is None else digest_of(manifest)
        if digest is not None and self.verify is not None:
            self.verify(remote.ref, digest)  # before anything large is fetched
        keys = [blob.digest or f"{remote.ref}#{index}" for index, blob in enumerate(remote.blobs)]
        progress = job.plan(remote.blobs, keys, remote.notes, digest)
        known = {blob.digest for blob in remote.blobs if blob.digest is not None} | ({digest} if digest else set())
        with self.store.hold(*sorted(known), absent_ok=True):
            job.advance("running", control)
            found = _Blobs(self, job, remote, keys, progress, control).fetch()
            if manifest is None:
                if remote.finish is None:
                    raise Bug(f"{remote.ref} has neither a manifest nor a way to make one", hint="please report it")
                manifest = remote.finish(found)
                digest = digest_of(manifest)
                if self.verify is not None:
                    self.verify(remote.ref, digest)
            with self.store.hold(*(each.digest for each in found)):
                digest, size = self.store.add_bytes(manifest)
                notes = {**remote.annotations, SOURCE: str(replace(job.ref, digest=None))}
                self.store.set_name(job.name, Descriptor(remote.manifest_type, digest, size), notes, why="pull")
        with job.changed:
            job.digest = digest
        return digest


class _Blobs:
    """All blobs of one model: some at once, each in a thread, while the job's own thread shows how far they are."""

    def __init__(
        self,
        puller: Puller,
        job: Job,
        remote: RemoteModel,
        keys: list[str],
        progress: list[BlobProgress],
        control: Control,
    ) -> None:
        self._store = puller.store
        self._job = job
        self._remote = remote
        self._job_control = control
        self._control = control.part()
        self._left = deque(range(len(remote.blobs)))
        self._keys = keys  # of the store's partials
        self._progress = progress
        self._found: dict[int, Descriptor] = {}
        self._error: CorralError | Stopped | None = None
        self._changed = threading.Condition()
        at_once = max(1, min(BLOBS_AT_ONCE, len(remote.blobs)))
        self._threads = [
            threading.Thread(target=self._work, name=f"corral-pull-{job.id}", daemon=True) for _ in range(at_once)
        ]
        large = sum(1 for blob in remote.blobs if blob.size is None or blob.size > puller.how.chunk_bytes)
        self._how = replace(puller.how, connections=max(1, puller.how.connections // max(1, min(large, at_once))))

    def fetch(self) -> tuple[Descriptor, ...]:
        """Their descriptors, in their order. Raises the first error of any."""
        self._need_space()
        for thread in self._threads:
            thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._over, TICK_S)
                    over = self._over()
                self._job.tick()
                if over:
                    break
                self._job_control.check()
        finally:
            self._control.stop("closing")
            for thread in self._threads:
                thread.join()
        self._job_control.check()
        if self._error is not None:
            raise self._error
        return tuple(self._found[index] for index in range(len(self._remote.blobs)))

    def _over(self) -> bool:
        return self._error is not None or len(self._found) == len(self._remote.blobs)

    def _need_space(self) -> None:
        here = {partial.key: partial.bytes for partial in self._store.partials()}
        need = 0
        for index, blob in enumerate(self._remote.blobs):
            if blob.size and (blob.digest is None or self._store.find(blob.digest) is None):
                need += max(0, blob.size - here.get(self._keys[index], 0))
        self._store.require_room(need)

    def _work(self) -> None:
        try:
            while self._error is None:
                with self._changed:
                    if not self._left:
                        return
                    index = self._left.popleft()
                found = self._fetch(index, self._remote.blobs[index])
                with self._changed:
                    self._found[index] = found
                    self._changed.notify_all()
        except (CorralError, Stopped) as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a thread's end; the job's thread raises it
            self._fail(Bug(f"a download broke: {error!r}", hint="please report it"))

    def _fail(self, error: CorralError | Stopped) -> None:
        with self._changed:
            if self._error is None and not self._control.stopped:
                self._error = error
            self._control.stop("closing")
            self._changed.notify_all()

    def _fetch(self, index: int, blob: RemoteBlob) -> Descriptor:
        """The blob, from the store when it is there. Waits while somebody else fetches it."""
        progress, key, waited = self._progress[index], self._keys[index], False
        while True:
            if blob.digest is not None and (here := self._store.find(blob.digest)) is not None:
                if blob.size not in (None, here.size):
                    raise ManifestError(
                        f"{blob.digest} has {here.size} bytes, and its manifest says {blob.size}",
                        hint="the manifest is damaged or made up",
                    )
                return self._have(progress, Descriptor(blob.media_type, blob.digest, here.size))
            try:
                partial = self._store.partial(key, blob.size)
            except InUse:
                if not waited:
                    self._job.note(f"{blob.title or key} is being fetched by another download; waiting for it")
                waited = True
                self._control.wait(BUSY_S)
                continue
            with partial:
                if blob.digest is not None and self._store.find(blob.digest) is not None:
                    partial.discard()  # it came while we waited for the lock
                    continue
                digest = fetch_blob(
                    partial,
                    blob,
                    control=self._control,
                    on_progress=lambda have: setattr(progress, "done_bytes", have),
                    on_note=self._job.note,
                    how=self._how,
                )
                stored = partial.finish(digest)
            return self._have(progress, Descriptor(blob.media_type, digest, stored.size))

    def _have(self, progress: BlobProgress, descriptor: Descriptor) -> Descriptor:
        with self._job.changed:
            progress.digest, progress.size = descriptor.digest, descriptor.size
            progress.done_bytes = descriptor.size
        return descriptor


def _perhaps_changed(error: RegistryError) -> bool:
    """Whether the model may have been replaced upstream while it was fetched."""
    if isinstance(error, DigestMismatch):
        return bool(error.details.get("changed"))
    return isinstance(error, NotInRegistry) or type(error) is RegistryError
