"""Downloads on a terminal: one bar per file, written anew in place; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time

from corral.api_downloads import BlobInfo, DownloadInfo, Progress
from corral.cli.app import App
from corral.cli.terminal import cells, printable, shorten, style, width
from corral.units import show_bytes, show_duration

PLAIN_S = 5.0
"""How often a plain line tells of a running download."""
MOST_BARS = 12
_BAR = 24
_TITLE = 28
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Bars:
    """Shows one download as it goes. `end` leaves the last picture standing."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._live = sys.stderr.isatty() and not app.json
        self._color = app.err_color
        self._lines = 0
        self._said: list[str] = []
        self._state = ""
        self._plain_at = 0.0

    def show(self, job: DownloadInfo) -> None:
        if self._app.json:
            return
        for note in job.notes:
            if note not in self._said:
                self._said.append(note)
                self._above(note)
        if self._live:
            self._draw(picture(job, width(sys.stderr) or 80, color=self._color))
        else:
            self._plain(job)

    def _above(self, text: str) -> None:
        self._erase()
        self._app.note(text)

    def _plain(self, job: DownloadInfo) -> None:
        now = time.monotonic()
        if job.state == self._state and (job.state != "running" or now - self._plain_at < PLAIN_S):
            return
        self._state, self._plain_at = job.state, now
        if job.state != "done":
            sys.stderr.write(f"{job.name}: {printable(summary(job))}\n")
            sys.stderr.flush()

    def _draw(self, lines: list[str]) -> None:
        up = f"\x1b[{self._lines}A" if self._lines else ""
        text = "".join(f"\r{line}\x1b[K\n" for line in lines)
        sys.stderr.write(f"{up}{text}\x1b[J")
        sys.stderr.flush()
        self._lines = len(lines)

    def _erase(self) -> None:
        if self._lines:
            sys.stderr.write(f"\x1b[{self._lines}A\r\x1b[J")
            self._lines = 0

    def end(self, *, keep: bool = True) -> None:
        """Gives the terminal back."""
        if not keep:
            self._erase()
        sys.stderr.flush()


def picture(job: DownloadInfo, columns: int, *, color: bool = False) -> list[str]:
    """The lines for `job`, none wider than `columns`: a head, then a bar for each file."""
    lines = [shorten(f"{job.name}: {summary(job)}", columns - 1)]
    largest = max((blob.size or 0 for blob in job.blobs), default=0)
    worth = [blob for blob in job.blobs if blob.size is None or blob.size * 1000 >= largest]
    large = {id(blob) for blob in sorted(worth, key=lambda blob: -(blob.size or 0))[:MOST_BARS]}
    lines += [_bar(blob, columns - 1, color) for blob in job.blobs if id(blob) in large]
    left = len(job.blobs) - len(large)
    if left and len(large) == MOST_BARS:
        lines.append(shorten(f"  … and {left} smaller ones", columns - 1))
    return lines


def summary(job: DownloadInfo) -> str:
    """Where it stands, in words."""
    if job.state not in ("running", "paused") or not job.blobs:
        why = f": {job.error.message}" if job.error is not None else ""
        return f"{job.state}{why}"
    return f"{job.state}, {progress(job)}"


def progress(job: DownloadInfo) -> str:
    """How far it is, how fast, and how long it will take."""
    parts = [amount(job.done, job.total)]
    if job.bytes_per_s is not None and job.state == "running":
        parts.append(f"{show_bytes(int(job.bytes_per_s))}/s")
    if job.eta_s is not None and job.state == "running":
        parts.append(f"{show_duration(job.eta_s)} left")
    return ", ".join(parts)


def amount(done: int, total: int | None) -> str:
    if total is None:
        return show_bytes(done)
    percent = 100 if total == 0 else int(100 * done / total)
    return f"{show_bytes(done)} of {show_bytes(total)} ({percent} %)"


def _bar(blob: BlobInfo, columns: int, color: bool) -> str:
    title = " ".join(printable(blob.title or (blob.digest or "")[7:19]).split())
    title = shorten(title, _TITLE)
    whole = blob.size is not None and blob.done >= blob.size
    fraction = 0.0 if not blob.size else min(1.0, blob.done / blob.size)
    eighths = int(fraction * _BAR * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (_EIGHTHS[rest] if full < _BAR else "")
    bar += " " * (_BAR - len(bar))
    figures = show_bytes(blob.done) if whole else amount(blob.done, blob.size)
    if blob.bytes_per_s is not None and not whole:
        figures += f"  {show_bytes(int(blob.bytes_per_s))}/s"
        if blob.size is not None and blob.bytes_per_s >= 1:
            figures += f"  {show_duration((blob.size - blob.done) / blob.bytes_per_s)}"
    lead = "  " + title + " " * (_TITLE - cells(title))
    line = f"{lead} {bar} {figures}"
    if cells(line) > columns:
        return shorten(f"  {title} {figures}", columns)
    return f"{lead} {style(bar, 'green' if whole else 'cyan', on=color)} {figures}"


class Line:
    """One line of progress for a work, on a terminal only."""

    def __init__(self, app: App) -> None:
        self._live = sys.stderr.isatty() and not app.json
        self._drawn = False

    def show(self, progress: Progress) -> None:
        if not self._live or not progress.text:
            return
        figures = f" {amount(progress.done, progress.total)}" if progress.total else ""
        line = shorten(printable(progress.text) + figures, (width(sys.stderr) or 80) - 1)
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def end(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
