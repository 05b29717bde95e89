"""The story of a model's engines: events in, plain sentences out, grouped by start. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from datetime import datetime

from corral.api import Chapter, EventInfo, Story, StoryLine
from corral.lazy_dataclass import dataclass
from corral.units import show_bytes, show_duration

_SERVER = ("server.ready", "server.ending", "server.ended", "server.handover")
_DOWN = ("stopped", "backoff", "failed")
_SAME_REFUSALS_S = 60.0
_FOLDED_OVER = 4
"""Over how many lines back one that says the same again is folded."""


@dataclass
class _Line:
    event: EventInfo
    text: str
    times: int = 1
    until_wall_s: float = 0.0

    def again(self, event: EventInfo) -> None:
        self.times, self.until_wall_s = self.times + 1, event.wall_s


@dataclass
class _Chapter:
    generation: int | None
    lines: list[_Line] = field(default_factory=list)


def tell(events: Iterable[EventInfo], model: str, *, since_wall_s: float = 0.0, lines: int | None = None) -> Story:
    """The story of `model` from `events`, which may have others too. Only what happened after `since_wall_s`, and of
    that the last `lines`."""
    told: list[Chapter] = []
    left, left_out = lines, 0
    for chapter in reversed(_Teller(model).chapters(events)):
        began = chapter.lines[0].event.wall_s
        wanted = [line for line in chapter.lines if max(line.event.wall_s, line.until_wall_s) >= since_wall_s]
        shown = wanted if left is None else wanted[len(wanted) - min(left, len(wanted)) :]
        left_out += len(wanted) - len(shown)
        if left is not None:
            left -= len(shown)
        if shown:
            told.append(Chapter(chapter.generation, began, [_shown(line, began) for line in shown]))
    return Story(model, told[::-1], left_out)


def _shown(line: _Line, began: float) -> StoryLine:
    text, event = line.text, line.event
    if line.times > 1:
        text = f"{text} ({line.times} times until {_moment(line.until_wall_s, event.wall_s)})"
    return StoryLine(event.wall_s, round(max(0.0, event.wall_s - began), 3), text, event.kind, event.seq)


class _Teller:
    """Reads events in their order and remembers as much as the next sentence needs."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._told: list[_Chapter] = []
        self._state = "stopped"
        self._led: list[_Line] = []  # what comes before a start, and belongs to it
        self._asked: str | None = None  # why the scheduler decided to start it
        self._stopped_at: float | None = None
        self._server_runs = self._server_vanished = False
        self._predecessor: int | None = None  # the process that handed over to the server which comes up

    def chapters(self, events: Iterable[EventInfo]) -> list[_Chapter]:
        for event in events:
            if event.kind in _SERVER:
                self._server(event)
            elif event.kind == "scheduler.stop" and event.data.get("why") == f"making room for {self._model}":
                self._lead(event, _made_room(event))
            elif event.model is not None and (event.model == self._model or event.model.startswith(f"{self._model}~")):
                self._own(event)
            elif event.kind.startswith("download.") and event.data.get("name") == self._model:
                self._tell(event, f"download: {event.text.removeprefix(self._model).removeprefix(': ')}")
        self._settle_led()
        return [chapter for chapter in self._told if chapter.lines]

    def _tell(self, event: EventInfo, text: str) -> None:
        self._settle_led()
        if not self._told:
            self._told.append(_Chapter(None))
        _add(self._told[-1].lines, event, text or event.kind)

    def _lead(self, event: EventInfo, text: str) -> None:
        if self._state in _DOWN or self._state == "stopping":
            _add(self._led, event, text or event.kind)
        else:
            self._tell(event, text)

    def _settle_led(self) -> None:
        """What should have led to a start led to none."""
        led, self._led = self._led, []
        if led and not self._told:
            self._told.append(_Chapter(None))
        for line in led:
            _add(self._told[-1].lines, line.event, line.text, line)

    def _begin(self, generation: int | None) -> None:
        self._told.append(_Chapter(generation, self._led))
        self._led = []

    def _server(self, event: EventInfo) -> None:
        up = self._state not in _DOWN
        if event.kind == "server.ready":
            if self._server_vanished and up:
                self._tell(event, "Corral ended without a word, and was started again")
            self._server_runs, self._server_vanished, self._predecessor = True, False, None
        elif event.kind == "server.ending":
            self._server_runs = False
            if up:
                self._tell(event, f"Corral is {event.text}")
        elif event.kind == "server.ended":
            self._server_runs = False
        elif (pid := _number(event.data.get("pid"))) is not None:  # else a handover came to nothing
            self._server_runs, self._predecessor = False, int(pid)

    def _own(self, event: EventInfo) -> None:
        kind = event.kind
        if kind == "unit.state":
            self._step(event)
        elif kind == "scheduler.start":
            self._asked = event.data.get("why")
        elif kind == "unit.wanted":
            self._lead(event, f"wanted again by itself: it is {event.data.get('why')}")
        elif kind == "request.waits":
            if self._state in _DOWN or self._state == "stopping":
                self._lead(event, "asked for by a request, which waits")
        elif kind == "unit.waits":
            self._lead(event, self._short(event.text))
        elif kind == "request.refused":
            self._refused(event)
        elif kind == "unit.hung":
            self._tell(event, f"hung: {event.data.get('evidence')}; it was killed")
        elif kind == "unit.ails":
            self._tell(event, f"answered with an error of its own: {event.data.get('said')}; it was replaced")
        elif kind == "unit.warning":
            self._tell(event, f"warning: {self._short(event.text)}")
        elif kind != "scheduler.stop":  # the step that follows says the same
            self._tell(event, self._short(event.text))

    def _step(self, event: EventInfo) -> None:
        data = event.data
        what, after, why = data.get("event"), str(data.get("after")), _why(event)
        before, self._state = self._state, after
        if what == "start asked":
            led = bool(self._led)
            self._begin(_generation(event))
            self._tell(event, "started" if led or not self._asked else f"started: {self._asked}")
            self._asked = None
        elif what == "adopted":
            self._adopted(event, before)
        elif what == "became ready":
            load_ms = _number(data.get("load_ms"))
            loaded = f", loaded in {show_duration(load_ms / 1000)}" if load_ms is not None else ""
            self._tell(event, f"ready{loaded}")
        elif what == "drain asked":
            self._tell(event, f"takes no new work: {why}" if why else "takes no new work")
        elif what == "stop asked":
            waited = before in ("backoff", "failed")
            verb = "not tried again" if waited else "stopped"
            self._stopped_at = None if waited else event.wall_s
            self._tell(event, f"{verb}: {why}" if why else verb)
        elif what == "exited":
            took_s = 0.0 if self._stopped_at is None else event.wall_s - self._stopped_at
            self._stopped_at = None
            if took_s >= 1.0:
                self._tell(event, f"gone after {show_duration(took_s)}: {why}")
        elif what in ("failed", "gave up"):
            if text := self._failure(event, why, gave_up=what == "gave up"):
                self._tell(event, text)
        elif what != "spawned":
            self._tell(event, f"{what}: {why}" if why else str(what))

    def _adopted(self, event: EventInfo, before: str) -> None:
        generation = _generation(event)
        if not self._told or self._told[-1].generation != generation:
            self._begin(generation)
        # The server that adopts has not said yet that it is ready; the one before said it was ending, or did not.
        vanished = self._server_runs and before not in _DOWN
        self._server_runs = False
        if vanished:
            self._tell(event, "Corral ended without a word; its engine ran on and was taken over")
        else:
            earlier = "an earlier server" if self._predecessor is None else f"process {self._predecessor}"
            self._tell(event, f"taken over from {earlier}: it was running already")

    def _failure(self, event: EventInfo, why: str, *, gave_up: bool) -> str:
        was_up = event.data.get("before") in ("ready", "sleeping", "draining")
        parts = []
        if event.data.get("cause") != "hang" and not event.data.get("ailed"):  # that was told with what showed it
            seen_ms = _number(event.data.get("detected_ms"))
            seen = f" (seen after {show_duration(seen_ms / 1000)})" if seen_ms is not None else ""
            ended = self._short(why).removeprefix("ended: ")
            parts.append(f"crashed: {ended}{seen}" if was_up else f"did not come up: {self._short(why)}")
        failures, pause_s = event.data.get("failures"), _number(event.data.get("retry_in_s"))
        if gave_up:
            parts.append(f"that was the {_nth(failures)} failure in a row; it is left alone until somebody asks for it")
        elif pause_s:
            parts.append(f"it may be tried again in {show_duration(pause_s)}")
        hint = event.data.get("hint")
        text = "; ".join(parts)
        return f"{text} ({hint})" if hint and (gave_up or not was_up) else text

    def _refused(self, event: EventInfo) -> None:
        text = f"a request was refused: {self._short(event.text)}"
        if self._told and (lines := self._told[-1].lines):
            line = lines[-1]
            same = line.event.kind == event.kind and line.event.data.get("code") == event.data.get("code")
            if same and event.wall_s - line.event.wall_s < _SAME_REFUSALS_S:
                line.again(event)
                return
        self._tell(event, text)

    def _short(self, text: str) -> str:
        """`text` without the name that the whole story is about."""
        for lead in (f"{self._model}: ", f"{self._model} "):
            if text.startswith(lead):
                return text.removeprefix(lead)
        head, dot, rest = text.partition(".")
        number, _, more = rest.partition(" ")
        if head == self._model and dot and number.rstrip(":").isdigit() and more:
            return more
        return text


def _add(lines: list[_Line], event: EventInfo, text: str, made: _Line | None = None) -> None:
    """Adds a line, or counts it with one of the last that says the same. Steps of a unit or of the server are never the
    same twice."""
    if event.kind != "unit.state" and event.kind not in _SERVER:
        for line in lines[-_FOLDED_OVER:]:
            if line.text == text and line.event.kind == event.kind:
                line.times += 1 if made is None else made.times
                line.until_wall_s = event.wall_s if made is None or made.times == 1 else made.until_wall_s
                return
    lines.append(made or _Line(event, text))


def _moment(wall_s: float, after_wall_s: float) -> str:
    """The time of day here; with its date, where that is another than the reader expects."""
    at = datetime.fromtimestamp(wall_s)
    same_day = at.date() == datetime.fromtimestamp(after_wall_s).date()
    return f"{at:%H:%M:%S}" if same_day else f"{at:%Y-%m-%d %H:%M:%S}"


def _made_room(event: EventInfo) -> str:
    idle_s = _number(event.data.get("idle_s")) or 0.0
    idle = f" (idle for {show_duration(idle_s)})" if idle_s >= 1 else ""
    needs, free = _sizes(event.data.get("needs")), _sizes(event.data.get("free"))
    wanted = ", ".join(
        f"{show_bytes(size)} needed on {device}, {show_bytes(free[device])} free"
        for device, size in needs.items()
        if free.get(device, size) < size
    )
    return f"{event.model}{idle} was stopped to make room{f' ({wanted})' if wanted else ''}"


def _sizes(data: object) -> dict[str, int]:
    found = data.items() if isinstance(data, dict) else ()
    return {name: int(size) for name, value in found if (size := _number(value)) is not None}


def _number(value: object) -> float | None:
    """A figure as it should be; journals may be of other builds."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18
    return float(value) if usable and isinstance(value, int | float) else None


def _why(event: EventInfo) -> str:
    """The reason that a step was given; older journals have it in the text alone."""
    if isinstance(why := event.data.get("why"), str):
        return why
    _, opened, rest = event.text.partition(" (")
    return rest.removesuffix(")") if opened else ""


def _generation(event: EventInfo) -> int | None:
    number = (event.unit or "").rpartition(".")[2]
    return int(number) if number.isdigit() else None


def _nth(count: object) -> str:
    names = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth"}
    return names.get(count, f"{count}th") if isinstance(count, int) else "last"
