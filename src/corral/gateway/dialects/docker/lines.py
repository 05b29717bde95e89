"""Progress as Docker's clients read it: one JSON object in a line."""

from __future__ import annotations

import json
from typing import Any, Literal

from corral.api_store import DownloadInfo, Progress
from corral.gateway.dialects.docker.shapes import moved

Mode = Literal["pull", "push"]
Line = dict[str, Any]

PLAIN = b"application/json"
ESCAPED = b"text/plain; charset=utf-8"
_STEP_BYTES = 1 << 20
_ESCAPES = (("&", "&amp;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"))


def wants_plain(accept: bytes | None) -> bool:
    """Whether a client gets its lines as JSON; Docker's own command line does not ask for it, and un-escapes."""
    return (accept or b"").strip().lower() == PLAIN


def written(lines: list[Line], *, plain: bool) -> bytes:
    """The bytes of `lines`."""
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines)
    if not plain:
        for sign, entity in _ESCAPES:
            text = text.replace(sign, entity)
    return text.encode(errors="replace")


def success(message: str, mode: Mode) -> Line:
    return {"type": "success", "message": message, "total": 0, "layer": {"size": 0, "current": 0}, "mode": mode}


def warning(message: str, mode: Mode) -> Line:
    return {"type": "warning", "message": message, "total": 0, "layer": {"size": 0, "current": 0}, "mode": mode}


class PullLines:
    """One pull's lines: of each layer one whenever it has come a mebibyte further, and one when it is whole."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def more(self, download: DownloadInfo) -> list[Line]:
        """What there is to say now; the last word is the caller's."""
        lines: list[Line] = []
        total = download.total if download.total is not None else sum(blob.size or 0 for blob in download.blobs)
        for blob in download.blobs:
            key = blob.digest or blob.title
            before = self._told.get(key)
            whole = blob.size is not None and blob.done >= blob.size
            if blob.size is None or before == blob.done:
                continue
            if before is not None and not whole and blob.done - before < _STEP_BYTES:
                continue
            self._told[key] = blob.done
            layer = {"id": key, "size": blob.size, "current": blob.done}
            message = f"Downloaded: {moved(blob.done)}"
            lines.append({"type": "progress", "message": message, "total": total, "layer": layer, "mode": "pull"})
        return lines


def work_line(progress: Progress, digest: str, mode: Mode, verb: str) -> Line:
    """How far a push or a load is: all of it counts as one layer."""
    total = progress.total or 0
    layer = {"id": digest, "size": total, "current": progress.done}
    message = f"{verb}: {moved(progress.done)}" if progress.total is not None else progress.text
    return {"type": "progress", "message": message, "total": total, "layer": layer, "mode": mode}
