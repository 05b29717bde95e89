"""The bytes of one HTTP answer from a given offset on, checked against what was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from corral.errors import NotAllowedThere, Unavailable
from corral.registry.answers import failure
from corral.registry.egress import Egress, Response

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class RangedBody:
    """The `Body` of an answer. It ends after what was asked for, whatever the server sends beyond."""

    def __init__(self, response: Response, status: int, offset: int, total: int | None, length: int | None) -> None:
        self.status = status
        self.offset = offset
        self.total = total
        self.etag = _strong(response.headers.get("etag"))
        self._response = response
        self._left = length

    def readinto(self, buffer: memoryview) -> int:
        if self._left is not None:
            buffer = buffer[: self._left]
        if not buffer:
            return 0
        count = self._response.readinto(buffer)
        if self._left is not None:
            self._left -= count
        return count

    def abort(self) -> None:
        """Makes the thread that reads fail with Unavailable."""
        self._response.abort()

    def close(self) -> None:
        self._response.close()


def open_range(
    egress: Egress,
    url: str,
    offset: int = 0,
    length: int | None = None,
    *,
    what: str,
    host: str,
    headers: Mapping[str, str] | None = None,
    hint: str = "",
) -> RangedBody:
    """GETs `url` from `offset` on. A server that ignores the range gives a body whose `offset` is 0.

    Errors say that `host` did not give `what`; `hint` goes with those about who is asking. Raises RegistryError.
    """
    response = egress.request("GET", url, headers={**(headers or {}), **range_header(offset, length)})
    return ranged(response, offset, length, what=what, host=host, hint=hint)


def range_header(offset: int, length: int | None) -> dict[str, str]:
    """The header that asks for a part; none when all is wanted."""
    if not offset and length is None:
        return {}
    return {"Range": f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))}


def ranged(response: Response, offset: int, length: int | None, *, what: str, host: str, hint: str = "") -> RangedBody:
    """The body of an answer to `range_header`; closes it when it is another. Raises as `open_range` does."""
    try:
        return _body(response, offset, length, what, host, hint)
    except BaseException:
        response.close()
        raise


def _body(response: Response, offset: int, length: int | None, what: str, host: str, hint: str) -> RangedBody:
    status, headers = response.status, response.headers
    if status not in (200, 206):
        error = failure(response, what, host)
        if hint and isinstance(error, NotAllowedThere):
            error.hint = hint
        raise error
    if status == 200:
        return RangedBody(response, 200, 0, response.length, None)
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range").strip())
    if match is None:
        raise Unavailable(f"{what} came in part without saying which", hint="the server is faulty; try again later")
    first, last, whole = int(match[1]), int(match[2]), match[3]
    if first != offset or last < first or (length is not None and last >= offset + length):
        raise Unavailable(f"{what} came from byte {first} instead of {offset}", hint="the server is faulty; try again")
    return RangedBody(response, 206, first, None if whole == "*" else int(whole), last - first + 1)


def _strong(etag: str) -> str | None:
    """An ETag that stands for the very bytes; a weak one does not."""
    return etag if etag.startswith('"') and len(etag) <= 256 else None
