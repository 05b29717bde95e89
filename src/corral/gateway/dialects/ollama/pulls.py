"""A download and a push as Ollama's lines of progress."""

from __future__ import annotations

from typing import Any

from corral.api_store import DownloadInfo, Progress
from corral.errors import CorralError, NotInRegistry, RegistryError


class PullLines:
    """One pull's lines: each step once, and of each blob a line whenever it has come further."""

    def __init__(self) -> None:
        self._begun = False
        self._seen: dict[str, int] = {}

    def more(self, download: DownloadInfo) -> list[dict[str, Any]]:
        """What there is to say now. The last word, `success` or a failure, is the caller's."""
        lines: list[dict[str, Any]] = []
        if not self._begun:
            self._begun = True
            lines.append({"status": "pulling manifest"})
        for blob in download.blobs:
            key = blob.digest or blob.title
            if blob.size is None or self._seen.get(key) == blob.done:
                continue
            self._seen[key] = blob.done
            short = (blob.digest or blob.title).removeprefix("sha256:")[:12]
            line: dict[str, Any] = {"status": f"pulling {short}", "total": blob.size}
            if blob.digest:
                line["digest"] = blob.digest
            if blob.done:
                line["completed"] = blob.done
            lines.append(line)
        if download.state == "done":
            lines += [{"status": each} for each in ("verifying sha256 digest", "writing manifest")]
        return lines


def failure(download: DownloadInfo) -> CorralError:
    """Why a download did not come to its end, to be raised."""
    if download.error is None:
        return RegistryError(f"pull model manifest: the download is {download.state}", hint="see: corral downloads")
    words = f"pull model manifest: {download.error.message}"
    kind = NotInRegistry if download.error.status == 404 else RegistryError
    return kind(words, hint=download.error.hint)


def push_line(progress: Progress, digest: str) -> dict[str, Any]:
    """What a push has come to; `digest` is the model's."""
    short = digest.removeprefix("sha256:")[:12]
    line: dict[str, Any] = {"status": f"pushing {short}" if short else "pushing", "digest": digest}
    if progress.total is not None:
        line["total"] = progress.total
        line["completed"] = progress.done
    return line
