"""`RequestLog`: what is noted of requests once they have ended, in the server's log and in their engine's.

Records come once a second from whoever adds them up. They are kept for a while as they are, so that nothing is paid for
them until somebody asks for one; where the log is to have them, a thread writes them down. Contents are in neither.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral import clock, log
from corral.config.paths import Paths
from corral.config.settings import Log, Settings
from corral.gateway.dialects.usage import usage_of
from corral.metrics.record import Record
from corral.serve_options import ServeOptions
from corral.supervisor import logs
from corral.supervisor.request_lines import Noted, lines_of, note, noted_in, timings_of
from corral.units import show_duration

KEPT: Final = 2000
"""Requests that can be asked for without any of it being written."""
PENDING: Final = 20_000
"""Requests that may wait to be written; more are left out, and counted."""
_MOST_BYTES: Final = 32 << 20
"""Of an engine's log, its end, as much is looked through for one request."""
_KIND: Final = "request"
_ODD: Final = re.compile(r"[^\x21-\x7e]")


def chosen(options: ServeOptions, settings: Settings) -> Log:
    """How the log is to be: what the flags say goes before the configuration."""
    found = settings.log
    return Log(options.log_format or found.format, found.requests or options.log_requests)


class RequestLog:
    """One event loop; its writing is done by a thread. `write` takes whole lines from any thread."""

    def __init__(
        self,
        paths: Paths,
        wanted: Callable[[], Log],
        write: Callable[[str], None],
        key_name: Callable[[str], str],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle` has everything taken that has ended."""
        self._paths, self._wanted, self._write, self._key_name = paths, wanted, write, key_name
        self._settle = settle
        self._kept: deque[Record] = deque(maxlen=KEPT)
        self._pending: list[Record] = []
        self._some = asyncio.Event()
        self._left_out = 0

    def take(self, records: list[Record]) -> None:
        """Keeps `records`, and has them written where that is wanted."""
        self._kept.extend(records)
        if not self._wanted().requests:
            return
        room = max(0, PENDING - len(self._pending))
        self._pending += records[:room]
        self._left_out += len(records) - len(records[:room])
        self._some.set()

    async def run(self) -> None:
        """Writes, for ever: a task of the daemon's."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits to be written."""
        batch, self._pending = self._pending, []
        missed, self._left_out = self._left_out, 0
        if batch:
            await asyncio.to_thread(self._write_down, batch, missed, self._wanted().format)

    def _write_down(self, batch: Sequence[Record], missed: int, shape: str) -> None:
        offset_s = clock.wall() - clock.monotonic()
        lines = [self._line(each, shape, offset_s) for each in batch]
        if missed:
            text = f"{missed} requests are not in this log: they came faster than it is read"
            lines.append(log.line(shape, "warning", clock.wall(), "log.failing", text, data={"missed": missed}))
        self._write("".join(lines))
        by_unit: dict[str, list[str]] = {}
        for each in batch:
            if each.unit and each.granted is not None:
                by_unit.setdefault(each.unit, []).append(note(noted(each, offset_s)))
        for unit, notes in by_unit.items():
            _append(_log_file(self._paths, unit), "".join(notes))

    def _line(self, record: Record, shape: str, offset_s: float) -> str:
        broke = record.status < 400 and record.outcome not in ("", "left")
        level = "warning" if broke or record.status >= 500 else "info"
        usage = usage_of(record.end)
        key = self._key_name(record.key) if record.key else None
        data = {
            "request_id": _name(record),
            "dialect": record.dialect,
            "route": record.route,
            "status": record.status,
            "outcome": record.outcome or "answered",
            "key": key,
            "stream": record.stream,
            "queue_s": _seconds(record.began, record.granted),
            "first_s": _seconds(record.began, record.first),
            "total_s": _seconds(record.began, record.ended),
            "prompt_tokens": None if usage is None else usage.prompt,
            "completion_tokens": None if usage is None else usage.completion,
            "cached_tokens": None if usage is None else usage.cached,
            "chunks": record.chunks,
            "retries": record.retries,
            "resumes": record.resumes,
        }
        text = f"request {_name(record)}: {record.model or 'no model'} {_how(record)}"
        if key is not None:
            text += f", key {key}"
        ended = record.ended + offset_s
        return log.line(
            shape, level, ended, _KIND, text, model=record.model or None, unit=record.unit or None, data=data
        )

    async def lines(self, model: str, request_id: str, engine: str) -> list[str]:
        """What is known of a request to `model`: how it went, and what its engine wrote of it. Empty: nothing is."""
        await self._settle()
        offset_s = clock.wall() - clock.monotonic()
        kept = [each for each in self._kept if each.model == model and each.unit]
        return await asyncio.to_thread(self._found, model, request_id, engine, kept, offset_s)

    def _found(self, model: str, request_id: str, engine: str, kept: Sequence[Record], offset_s: float) -> list[str]:
        asked = [each for each in kept if _name(each) == request_id]
        if asked:
            units = list(dict.fromkeys(each.unit for each in asked))
        else:
            files = reversed(logs.log_files(self._paths, model))
            units = [f"{model}.{each.stem}" for each in files]
        said: list[str] = []
        for unit in units:
            path = _log_file(self._paths, unit)
            text = logs.tail(path, 1 << 30, _MOST_BYTES) if path is not None else ""
            here = [noted(each, offset_s) for each in kept if each.unit == unit]
            known = {(each.request_id, each.timings): each for each in (*noted_in(text), *here)}
            everyone = list(known.values())
            for each in everyone:
                if each.request_id == request_id:
                    said.append(f"request {request_id} on {unit}, {each.text}; ended {clock.iso(each.ended_wall_s)}")
                    mine = lines_of(text, each, everyone, engine=engine)
                    said += mine or ["(which of the engine's lines are its cannot be told for certain)"]
            if said:
                break
        return said


def noted(record: Record, offset_s: float) -> Noted:
    """`record` for its engine's log; `offset_s` is what the wall clock is ahead of the other one."""
    return Noted(_name(record), round(record.ended + offset_s, 3), _how(record), timings_of(record.end))


def _how(record: Record) -> str:
    """How it went, in a line."""
    total = show_duration(record.ended - record.began)
    if record.outcome == "left":
        how = f"{record.route}: its client left after {total}"
    elif record.outcome:
        how = f"{record.route} {record.status}: {record.outcome} after {total}"
    else:
        how = f"{record.route} {record.status} in {total}"
    parts = []
    if record.granted is not None and record.granted - record.began >= 0.001:
        parts.append(f"waited {show_duration(record.granted - record.began)}")
    if record.stream and record.first is not None:
        parts.append(f"first token after {show_duration(record.first - record.began)}")
    if (usage := usage_of(record.end)) is not None:
        cached = f", {usage.cached} of them read before" if usage.cached else ""
        parts.append(f"{usage.prompt} + {usage.completion} tokens{cached}")
    for count, word in ((record.retries, "retries"), (record.resumes, "resumes")):
        if count:
            parts.append(f"{count} {word}")
    return f"{how} ({', '.join(parts)})" if parts else how


def _name(record: Record) -> str:
    return _ODD.sub("?", record.request_id.decode("latin-1")) or "-"


def _seconds(since: float, until: float | None) -> float | None:
    return None if until is None else round(until - since, 6)


def _log_file(paths: Paths, unit: str) -> Path | None:
    """The log of the unit with this name, `model.generation`."""
    model, _, generation = unit.rpartition(".")
    return logs.log_file(paths, model, int(generation)) if model and generation.isdecimal() else None


def _append(path: Path | None, text: str) -> None:
    """At the end of a log that is there. The engine appends too, so that neither writes over the other's lines."""
    if path is None:
        return
    with suppress(OSError):  # its model was removed meanwhile, or the disk is full: the server's own log has it
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
