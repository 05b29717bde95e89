"""One download as its owner sees it: what is wanted, how far it is, and its record on disk."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from pathlib import Path

from corral import clock
from corral.errors import CorralError
from corral.lazy_dataclass import dataclass
from corral.models.fetching.control import Control
from corral.models.fetching.job_view import OVER, BlobView, JobError, JobView, State
from corral.models.fetching.speed import Speed
from corral.refs import Ref
from corral.registry.source import RemoteBlob
from corral.store import durable

MOST_NOTES = 20
MOST_RECORD_BYTES = 1 << 20
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(slots=True, eq=False)
class BlobProgress:
    """One blob's progress. `done_bytes` is written by its thread and read by others."""

    digest: str | None
    title: str
    size: int | None
    done_bytes: int = 0
    speed: Speed = field(default_factory=Speed)


class Job:
    """Mutable; `changed` guards it. Its record on disk follows each change of state."""

    def __init__(self, directory: Path, ref: Ref, name: str, listener: Callable[[JobView], None]) -> None:
        self.id = secrets.token_hex(6)
        self.ref = ref
        self.name = name
        self.state: State = "queued"
        self.started = clock.wall()
        self.finished: float | None = None
        self.digest: str | None = None
        self.error: JobError | None = None
        self.notes: list[str] = []
        self.blobs: list[BlobProgress] = []
        self.control = Control()
        self.thread: threading.Thread | None = None
        self.changed = threading.Condition()
        self.resolved = False  # the reference was good once
        self.partials: set[str] = set()  # keys of the store's partials that are this job's
        self._speed = Speed()
        self._listener = listener
        self._directory = directory
        self._recording = threading.Lock()
        self._ended: tuple[int, int | None] | None = None  # done and total of an earlier life

    @property
    def file(self) -> Path:
        return self._directory / f"{self.id}.json"

    @property
    def over(self) -> bool:
        return self.state in OVER

    def move(self, state: State, error: CorralError | None = None) -> None:
        """Changes the state, records it, tells the listener. Raises StoreError when the record cannot be written."""
        with self.changed:
            self.state = state
            self.error = None if error is None else JobError(error.code, error.message, error.hint, dict(error.details))
            self.finished = clock.wall() if self.over else None
            if state != "running":
                self._speed = Speed()
            self.changed.notify_all()
        self.tell()
        self.record()

    def advance(self, state: State, control: Control) -> None:
        """As `move`, for the thread that runs the job under `control`. Raises Stopped when it was told to stop."""
        with self.changed:
            control.check()
            self.state = state
        self.tell()
        if state != "resolving":  # what is on record goes on in a later life just as well
            self.record()

    def plan(
        self, blobs: Sequence[RemoteBlob], keys: Sequence[str], notes: Sequence[str], digest: str | None
    ) -> list[BlobProgress]:
        """Says what is to be fetched, and under which keys of the store."""
        with self.changed:
            self.partials = set(keys)
            self.blobs = [BlobProgress(blob.digest, blob.title, blob.size) for blob in blobs]
            self.digest = digest
            self._ended = None
        for note in notes:
            self.note(note)
        return self.blobs

    def note(self, text: str) -> None:
        """Adds a line for people. The oldest beyond a bound go."""
        with self.changed:
            if text in self.notes:
                self.notes.remove(text)
            self.notes.append(text)
            del self.notes[:-MOST_NOTES]

    def tick(self) -> None:
        """Takes a look at the speeds and tells the listener. To be called at most ten times a second."""
        now = clock.monotonic()
        with self.changed:
            for blob in self.blobs:
                blob.speed.look(now, blob.done_bytes)
            self._speed.look(now, sum(blob.done_bytes for blob in self.blobs))
        self.tell()

    def tell(self) -> None:
        self._listener(self.view())

    def view(self) -> JobView:
        with self.changed:
            done = sum(blob.done_bytes for blob in self.blobs)
            sizes = [blob.size for blob in self.blobs]
            total = sum(size for size in sizes if size is not None) if self.blobs and None not in sizes else None
            if self._ended is not None:
                done, total = self._ended
            running = self.state == "running"
            speed = self._speed.bytes_per_s if running else None
            eta_s = (total - done) / speed if total is not None and speed else None
            return JobView(
                id=self.id,
                ref=self.ref,
                name=self.name,
                state=self.state,
                blobs=tuple(
                    BlobView(b.digest, b.title, b.size, b.done_bytes, b.speed.bytes_per_s if running else None)
                    for b in self.blobs
                ),
                total=total,
                done=done,
                bytes_per_s=speed,
                eta_s=eta_s,
                error=self.error,
                notes=tuple(self.notes),
                started=self.started,
                finished=self.finished,
                digest=self.digest,
            )

    def record(self) -> None:
        """Writes what a later life needs. Raises StoreError."""
        with self._recording:
            view = self.view()
            data = {
                "version": 1,
                "id": self.id,
                "ref": asdict(self.ref),
                "name": self.name,
                "state": view.state,
                "started": view.started,
                "finished": view.finished,
                "digest": view.digest,
                "done": view.done,
                "total": view.total,
                "notes": list(view.notes),
                "error": None if view.error is None else asdict(view.error),
                "partials": sorted(self.partials),
            }
            with durable.disk_errors("record a download"):
                durable.replace(self.file, json.dumps(data, default=str).encode(), self.file.with_suffix(".new"), 0o600)

    def forget(self) -> None:
        """Removes the record."""
        with durable.disk_errors("remove a download's record"):
            self.file.unlink(missing_ok=True)


def read_job(file: Path, listener: Callable[[JobView], None]) -> Job | None:
    """The job of an earlier life, or None when the record is damaged or from a newer version."""
    try:
        with file.open("rb") as opened:
            data = json.loads(opened.read(MOST_RECORD_BYTES))
        if data["version"] != 1 or _ID.fullmatch(data["id"]) is None or file.stem != data["id"]:
            return None
        job = Job(file.parent, Ref(**data["ref"]), str(data["name"]), listener)
        job.id = data["id"]
        job.state = data["state"]
        job.started, job.finished = float(data["started"]), data["finished"]
        job.digest = data["digest"]
        job.resolved = True
        job.notes = [str(note) for note in data["notes"]]
        job.error = None if data["error"] is None else JobError(**data["error"])
        job.partials = {str(key) for key in data["partials"]}
        job._ended = (int(data["done"]), None if data["total"] is None else int(data["total"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return job
