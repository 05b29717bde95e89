"""The whole main screen as lines, for any size of terminal: who gets how many of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corral.api import EventInfo
from corral.api_downloads import DownloadInfo
from corral.api_live import Live
from corral.tui import figures, marks
from corral.tui.devices import device_lines
from corral.tui.spans import Line, beside, clean, cut, fill, joined, line, styled, wide
from corral.tui.units import chosen_lines, unit_lines
from corral.tui.view import View
from corral.units import show_bytes

LEAST_EVENTS = 3
MOST_DOWNLOADS = 4
SHORT = 16
"""In fewer lines than these there is no room for what is said about the chosen unit, nor for events."""

KEYS = (
    ("s", "start"), ("x", "stop"), ("r", "restart"), ("l", "logs"), ("y", "story"), ("e", "events"),
    ("o", "sort"), ("?", "help"), ("q", "quit"),
)  # fmt: skip


def screen(view: View, width: int, height: int) -> list[Line]:
    """Exactly `height` lines of at most `width` columns."""
    lines = _head(view, width)
    last = _last(view, width)
    left = height - len(lines) - 1
    live = view.live
    if live is None:
        lines += [(), line("Asking the server …" if view.lost is None else "")][: max(0, left)]
    else:
        lines += _body(view, live, width, left)
    lines = [cut(each, width) for each in lines[: max(0, height - 1)]]
    lines += [()] * (height - 1 - len(lines))
    return [*lines, last][:height]


def _body(view: View, live: Live, width: int, left: int) -> list[Line]:
    units = view.units()
    devices = device_lines(live.devices, width, max(1, min(2 * len(live.devices), left // 4 + 1)))
    left -= len(devices)
    about = chosen_lines(view.chosen(), width, view.there_wall_s) if left >= SHORT - 4 else []
    left -= len(about)
    downloads = _downloads(live.downloads, width, min(MOST_DOWNLOADS, max(0, left // 5)))
    left -= len(downloads)
    least = LEAST_EVENTS + 1 if left >= 9 else 0
    table = min(len(units) + 1, left - least) if units else 1
    rows = unit_lines(units, width, max(1, table), cursor=view.cursor, order=view.order, stale=view.lost is not None)
    if not units:
        rows.append(cut(line(("  " + _no_units(view, live), "dim")), width))
    left -= len(rows)
    return [*devices, *rows, *about, *downloads, *event_lines(view.events, width, left, view.there_wall_s)]


def _no_units(view: View, live: Live) -> str:
    if live.units:
        return "nothing runs; a shows what is stopped too"
    return "no models are configured; fetch one with: corral pull REF"


def _head(view: View, width: int) -> list[Line]:
    live = view.live
    if live is None:
        return [cut(line(("corral top", "bold"), f"  {view.address}"), width), *_banner(view, width)]
    up = figures.span(view.there_wall_s - live.started_wall_s)
    left = line((f"corral {clean(live.version)}", "bold"), f"  up {up}")
    if view.address:
        left = (*left, (f"  {view.address}", ""))
    right = [
        line((f"{live.in_flight} busy", "bold" if live.in_flight else "")),
        line((f"{live.waiting} waiting", "yellow" if live.waiting else "")),
        line(f"TTFT {figures.both(live.first_token_p50_ms, live.first_token_p95_ms)}"),
        line(f"{figures.rate(live.requests_per_s)} requests/s"),
    ]
    while len(right) > 1 and wide(joined(right)) + wide(left) >= width:
        right.pop()
    lines = [beside(left, joined(right), width)]
    if view.lost is not None:
        return [*lines, *_banner(view, width)]
    spark = min(60, max(10, width - 32))
    highest = max(live.history, default=0.0)
    title = f"{figures.rate(live.tokens_per_s):>6} tokens/s "
    drawn = marks.sparkline(live.history, spark)
    peak = f" peak {figures.rate(highest)}" if highest > 0 else ""
    lines.append(cut(line((title, "bold"), (drawn, "cyan"), (peak, "dim")), width))
    return lines


def _banner(view: View, width: int) -> list[Line]:
    if view.lost is None:
        return []
    since = figures.span(view.now_wall_s - view.lost.since_wall_s)
    style = "reverse bold red"
    again = line((f"trying again, for {since} ", style))
    text, hint = line((f" {clean(view.lost.text)}", style)), cut(line((f" {clean(view.lost.hint)}", "red")), width)
    if wide(text) + 1 + wide(again) <= width:
        return [styled(beside(text, again, width), style), hint]
    return [fill(text, width, style), hint, fill(line((" ", style), *again), width, style)]


def _downloads(jobs: Sequence[DownloadInfo], width: int, room: int) -> list[Line]:
    if not jobs or room <= 0:
        return []
    heading = fill(line(("  DOWNLOADS", "reverse bold")), width, "reverse bold")
    lines = [heading]
    shown = jobs[:room] if len(jobs) <= room else jobs[: max(1, room - 1)]
    lines += [download_line(job, width) for job in shown]
    if len(shown) < len(jobs):
        lines.append(line((f"  and {len(jobs) - len(shown)} more: corral downloads", "dim")))
    return lines


def download_line(job: DownloadInfo, width: int) -> Line:
    """A download: bar, amount, speed, time left."""
    name = line("  ", (clean(job.name), ""), " ")
    if job.state == "failed":
        why = clean(job.error.message) if job.error is not None else ""
        return cut((*name, (f"failed: {why}", "red")), width)
    if job.state != "running" or not job.total:
        return cut((*name, (job.state, "green" if job.state == "done" else "yellow")), width)
    speed = "" if job.bytes_per_s is None else f"{show_bytes(int(job.bytes_per_s))}/s"
    left = "" if job.eta_s is None else f"{figures.span(job.eta_s)} left"
    share = job.done / job.total
    right = line(f"{figures.percent(share):>4} {figures.gib_pair(job.done, job.total):>16} {speed:>12} {left:>11}")
    room = width - wide(right) - 1
    bar = marks.bar(share, max(6, min(30, room - 22)), "cyan")
    whole = beside(name, bar, room) if room >= 20 else name
    return beside(whole, right, width)


def event_lines(events: Sequence[EventInfo], width: int, room: int, now_wall_s: float) -> list[Line]:
    """A heading and the newest events, the newest last."""
    if room < 2:
        return []
    heading = fill(line(("  EVENTS", "reverse bold")), width, "reverse bold")
    shown = events[-(room - 1) :]
    return [heading, *(event_line(event, width, now_wall_s) for event in shown)]


def event_line(event: EventInfo, width: int, now_wall_s: float) -> Line:
    old = now_wall_s - event.wall_s > 43_200
    when = figures.moment(event.wall_s) if old else figures.clock(event.wall_s)
    text = clean(event.text) or event.kind
    about = clean(event.model or "corral")
    return cut(line("  ", (when, "dim"), f"  {about}  ", (text, event_style(event))), width)


def event_style(event: EventInfo) -> str:
    after = event.data.get("after")
    if after in ("failed", "backoff") or event.kind in ("unit.hung", "unit.ails"):
        return "red"
    if event.kind in ("unit.warning", "request.refused", "unit.waits"):
        return "yellow"
    return "green" if after == "ready" else ""


def _last(view: View, width: int) -> Line:
    """The last line: a question, a notice, or what the keys do."""
    if view.question is not None:
        answers = line(("y", "bold"), " yes  ", ("n", "bold"), " no")
        return beside(line((f" {view.question.text} ", "reverse bold")), answers, width)
    if (notice := view.notice) is not None:
        mark, style = (f"{marks.WARNING} ", "red") if notice.bad else ("", "bold")
        return cut(line((f" {mark}{clean(notice.text)}", style)), width)
    parts = []
    for key, what in KEYS:
        more = f":{view.order}{' ' + marks.UP if view.backwards else ''}" if what == "sort" and width >= 96 else ""
        parts.append(line((key, "bold"), f" {what}{more}"))
    return cut(line(" ", *joined(parts)), width)
