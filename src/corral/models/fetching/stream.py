"""One answer of a source, read from where it starts to where it is wanted."""

from __future__ import annotations

from corral.errors import DigestMismatch, Unavailable
from corral.models.fetching.control import Control
from corral.registry.source import Body, RemoteBlob


class Stream:
    """A body and how far it was read. `abort` may come from another thread, everything else from one."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.at = body.offset
        self.whole = body.status != 206  # the server does not do ranges, or none was needed
        self.total = body.total
        self.etag: str | None = getattr(body, "etag", None)

    @classmethod
    def open(cls, blob: RemoteBlob, offset: int, length: int | None) -> Stream:
        """Raises what the source raises, and Unavailable when the answer starts behind `offset`."""
        stream = cls(blob.open(offset, length))
        if stream.at > offset:
            stream.close()
            raise Unavailable(
                f"the server was asked for byte {offset} and started at {stream.at}",
                hint="it handles ranges wrongly; another mirror may not",
            )
        return stream

    def read(self, buffer: memoryview, control: Control) -> int:
        """At least one byte. Raises Unavailable when the answer ends, Stopped."""
        count = self._body.readinto(buffer[: control.grain(len(buffer))])
        if count == 0:
            raise Unavailable(
                f"the server broke off after {self.at} bytes", hint="it may be overloaded: try again later"
            )
        self.at += count
        control.took(count)
        return count

    def read_or_end(self, buffer: memoryview, control: Control) -> int:
        """As `read`, but 0 at the end: for content of unknown length."""
        count = self._body.readinto(buffer[: control.grain(len(buffer))])
        self.at += count
        control.took(count)
        return count

    def skip_to(self, position: int, buffer: memoryview, control: Control) -> None:
        """Reads what is not wanted."""
        while self.at < position:
            self.read(buffer[: position - self.at], control)

    def close(self) -> None:
        self._body.close()

    def abort(self) -> None:
        """Makes the thread that reads fail soon, from another thread."""
        getattr(self._body, "abort", self._body.close)()


def check_same(stream: Stream, blob: RemoteBlob, size: int, etag: str | None) -> None:
    """Raises DigestMismatch when the answer belongs to other content; `changed` when that may be right by now."""
    title = blob.title or blob.digest or "the file"
    if stream.total is not None and stream.total != size:
        raise DigestMismatch(
            f"{title} has {stream.total} bytes on the server, and {size} were promised",
            hint="the registry is damaged, or something between here and there answers in its place",
            changed=blob.digest is None,
        )
    if etag is not None and stream.etag is not None and stream.etag != etag:
        raise DigestMismatch(
            f"{title} changed on the server while it was fetched",
            hint="pull again: the download starts from the beginning",
            changed=True,
        )
