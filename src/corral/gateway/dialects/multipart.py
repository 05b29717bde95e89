"""One short field of a multipart body, found without reading the rest. Pure."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_LONGEST = 400


def field(kind: bytes, body: bytes, name: bytes) -> str | None:
    """The value of the field `name`; None when it is not there, or the body is no such thing."""
    boundary = _BOUNDARY.search(kind)
    if boundary is None or not kind.lower().startswith(b"multipart/form-data"):
        return None
    mark = b"--" + (boundary[1] or boundary[2])
    at = body.find(mark)
    while at >= 0:
        start = at + len(mark)
        head_end = body.find(b"\r\n\r\n", start)
        at = body.find(mark, start)
        if head_end < 0 or at < 0:
            return None
        head = body[start:head_end].lower()
        if b'name="%b"' % name.lower() in head and b"filename" not in head and at - head_end < _LONGEST:
            return body[head_end + 4 : at].removesuffix(b"\r\n").decode("utf-8", "replace")
    return None
