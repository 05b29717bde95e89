"""Units as a table whose columns keep their place from second to second, and the chosen one in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.api_live import LiveUnit
from corral.cli.terminal import cells
from corral.lazy_dataclass import dataclass
from corral.tui import figures, marks
from corral.tui.spans import Line, Span, clean, column, cut, fill, line, wide
from corral.tui.view import called
from corral.units import show_bytes, show_duration

LEAST_NAME = 14
MOST_NAME = 40
_SPARK = 12


@dataclass(frozen=True, slots=True)
class Column:
    """`rank` 0 is always there; of the others the lowest are shown first, as the terminal has room."""

    title: str
    width: int
    rank: int
    show: Callable[[LiveUnit, float], Span]  # of a unit, beside the highest rate that any of them had
    order: str = ""  # by which it is sorted
    right: bool = True


def _state(unit: LiveUnit, top: float) -> Span:
    mark, style = marks.state(unit.state)
    if unit.degraded:
        return f"{marks.WARNING} {unit.state}", "yellow"
    return f"{mark} {unit.state}", style


def _device(unit: LiveUnit, top: float) -> Span:
    return (f"{marks.WARNING} {clean(unit.device)}", "yellow") if unit.degraded else (clean(unit.device), "")


def _plain(show: Callable[[LiveUnit], str]) -> Callable[[LiveUnit, float], Span]:
    return lambda unit, top: (show(unit), "")


def _last_minute(unit: LiveUnit, top: float) -> Span:
    return marks.sparkline(_squeezed(unit.history), _SPARK, top), "cyan"


def until(unit: LiveUnit) -> str:
    """When idleness stops it."""
    if unit.state in ("stopped", "failed", "backoff"):
        return "-"
    if unit.busy or unit.queued:
        return "busy"
    return figures.span(unit.idle_stop_in_s) if unit.idle_stop_in_s is not None else "never"


def context_fill(unit: LiveUnit) -> float | None:
    return None if unit.context_used is None or unit.context <= 0 else unit.context_used / unit.context


def _context(unit: LiveUnit, top: float) -> Span:
    share = context_fill(unit)
    return figures.percent(share), "yellow" if share is not None and share >= 0.9 else ""


def _queued(unit: LiveUnit, top: float) -> Span:
    return str(unit.queued), "yellow" if unit.queued else ""


def _restarts(unit: LiveUnit, top: float) -> Span:
    return str(unit.restarts), "yellow" if unit.restarts else ""


def _errors(unit: LiveUnit, top: float) -> Span:
    return str(unit.errors), "red" if unit.errors else ""


def _first_token(unit: LiveUnit) -> str:
    return figures.both(unit.first_token_p50_ms, unit.first_token_p95_ms)


COLUMNS = (
    Column("STATE", 10, 0, _state, "state", right=False),
    Column("MEMORY", 8, 1, _plain(lambda u: "-" if u.held_bytes is None else show_bytes(u.held_bytes)), "memory"),
    Column("TOK/S", 5, 2, _plain(lambda u: figures.rate(u.tokens_per_s)), "rate"),
    Column("LAST MINUTE", _SPARK, 9, _last_minute, right=False),
    Column("BUSY", 5, 3, _plain(lambda u: f"{u.busy}/{u.slots}")),
    Column("WAIT", 4, 4, _queued, "queue"),
    Column("TTFT 50/95", 10, 5, _plain(_first_token), "first token"),
    Column("CTX", 4, 6, _context),
    Column("RST", 3, 7, _restarts, "restarts"),
    Column("UNTIL", 6, 8, _plain(until)),
    Column("DEVICE", 10, 10, _device, right=False),
    Column("REQUESTS", 8, 11, _plain(lambda u: str(u.requests))),
    Column("ERRORS", 6, 12, _errors),
    Column("LOAD", 6, 13, _plain(lambda u: "-" if u.load_ms is None else _load(u.load_ms))),
    Column("ENGINE", 14, 14, _plain(lambda u: clean(u.engine)), right=False),
    Column("RUNNER", 8, 15, _plain(lambda u: clean(u.runner)), right=False),
)  # fmt: skip


def _squeezed(values: Sequence[float]) -> list[float]:
    """A minute in `_SPARK` bars: each the mean of its seconds."""
    per = max(1, -(-len(values) // _SPARK))
    first = len(values) % per
    groups = [values[:first]] if first else []
    groups += [values[at : at + per] for at in range(first, len(values), per)]
    return [sum(group) / len(group) for group in groups]


def _load(ms: float) -> str:
    return f"{ms:.0f}ms" if ms < 1000 else f"{ms / 1000:.1f}s" if ms < 100_000 else figures.span(ms / 1000)


def unit_lines(
    units: Sequence[LiveUnit], width: int, room: int, *, cursor: str | None, order: str, stale: bool = False
) -> list[Line]:
    """A heading and as many units as there is room for, those around the cursor."""
    gap = 2 if width >= 120 else 1
    longest = max((cells(clean(called(unit))) for unit in units), default=0)
    shown, name = _fitting(width, gap, longest)
    lines = [_heading(shown, name, gap, width, order)]
    rows = max(0, room - 1)
    top = max((rate for unit in units for rate in _squeezed(unit.history)), default=0.0)
    at = next((index for index, unit in enumerate(units) if called(unit) == cursor), 0)
    first = max(0, min(at - rows // 2, len(units) - rows))
    for unit in units[first : first + rows]:
        row = _row(unit, shown, name, gap, top, chosen=called(unit) == cursor, stale=stale)
        lines.append(fill(row, width, "reverse") if called(unit) == cursor else cut(row, width))
    return lines


def _fitting(width: int, gap: int, longest: int) -> tuple[list[Column], int]:
    """The columns that there is room for, beside a name as long as the longest, within reason."""
    wanted = max(LEAST_NAME, min(longest, MOST_NAME))
    left = width - 2 - LEAST_NAME
    kept: list[Column] = []
    for each in sorted(COLUMNS, key=lambda each: each.rank):
        # Columns that only a wide terminal shows leave long names whole first.
        spare = wanted - LEAST_NAME if each.rank > 8 else 0
        if left - spare < each.width + gap:
            break
        kept.append(each)
        left -= each.width + gap
    name = min(wanted, LEAST_NAME + left)
    return [each for each in COLUMNS if each in kept], name


def _heading(shown: Sequence[Column], name: int, gap: int, width: int, order: str) -> Line:
    def style(mine: bool) -> str:
        return "reverse bold underline" if mine else "reverse bold"

    spans: list[Span] = [("  ", style(False)), (column("MODEL", name), style(order == "name"))]
    for each in shown:
        spans.append((" " * gap, style(False)))
        spans.append(
            (column(each.title, each.width, right=each.right), style(bool(each.order) and each.order == order))
        )
    return fill(tuple(spans), width, "reverse bold")


def _row(
    unit: LiveUnit, shown: Sequence[Column], name: int, gap: int, top: float, *, chosen: bool, stale: bool
) -> Line:
    quiet = stale or (unit.state == "stopped" and not chosen)
    spans: list[Span] = [
        (f"{marks.POINTER} " if chosen else "  ", ""),
        (column(clean(called(unit)), name), "bold" if chosen else ""),
    ]
    for each in shown:
        text, style = each.show(unit, top)
        spans += [(" " * gap, ""), (column(text, each.width, right=each.right), style)]
    if chosen:
        return tuple((text, "reverse bold") for text, _ in spans)
    return tuple((text, "dim") for text, _ in spans) if quiet else tuple(spans)


def chosen_lines(unit: LiveUnit | None, width: int, now_wall_s: float) -> list[Line]:
    """Two lines about the chosen unit: what the table has no room for, and why it is as it is."""
    if unit is None:
        return [(), ()]
    since = figures.span(now_wall_s - unit.since_wall_s)
    said = [f"{clean(unit.unit)} {unit.state} for {since}"]
    if unit.engine:
        where = f" on {clean(unit.device)}" if unit.device else ""
        said.append(f"{clean(unit.engine)} in {clean(unit.runner)}{where}")
    if unit.load_ms is not None:
        said.append(f"loaded in {show_duration(unit.load_ms / 1000)}")
    if unit.context_used is not None:
        said.append(f"{unit.context_used} of {unit.context} tokens of context")
    elif unit.context:
        said.append(f"context {unit.context}")
    said.append(f"{unit.requests} requests, {unit.errors} errors")
    first = line("  ", (", ".join(said), ""))
    if unit.degraded:
        second = line("  ", (f"{marks.WARNING} degraded: {clean(unit.degraded)}", "yellow"))
    elif unit.reason and unit.state in ("failed", "backoff"):
        second = line("  ", (clean(unit.reason), "red"))
    elif unit.expected_wait_s is not None:
        wait = show_duration(unit.expected_wait_s)
        second = line("  ", (f"{unit.queued} waiting; one more would wait about {wait}", "yellow"))
    elif unit.reason and unit.state != "ready":  # then it says how long the load took, as the line above
        second = line("  ", (clean(unit.reason), "dim"))
    else:
        second = ()
    return [_short(first, width), cut(second, width)]


def _short(spans: Line, width: int) -> Line:
    """Cut at a comma rather than within a word."""
    if wide(spans) <= width:
        return spans
    text = spans[-1][0]
    while ", " in text and wide(line("  ", text)) > width:
        text = text.rpartition(", ")[0]
    return cut(line("  ", text), width)
