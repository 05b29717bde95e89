"""The story of a model's engines: events in, plain sentences out, grouped by start. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from corral.api import Chapter, EventInfo, Story, StoryLine
from corral.units import show_bytes, show_duration

_SERVER = ("server.ready", "server.ending", "server.ended")
_DOWN = ("stopped", "backoff", "failed")
_SAME_REFUSALS_S = 60.0


@dataclass
class _Line:
    event: EventInfo
    text: str
    times: int = 1


@dataclass
class _Chapter:
    generation: int | None
    lines: list[_Line] = field(default_factory=list)


def tell(events: Iterable[EventInfo], model: str, *, since_wall_s: float = 0.0, lines: int | None = None) -> Story:
    """The story of `model` from `events`, which may have others too. Only what happened after `since_wall_s`, and of
    that the last `lines`."""
    chapters = _Teller(model).chapters(events)
    made = [
        StoryLine(
            line.event.wall_s,
            max(0.0, line.event.wall_s - chapter.lines[0].event.wall_s),
            line.text if line.times == 1 else f"{line.text} ({line.times} times)",
            line.event.kind,
            line.event.seq,
        )
        for chapter in chapters
        for line in chapter.lines
    ]
    wanted = [line for line in made if line.wall_s >= since_wall_s]
    shown = wanted if lines is None else wanted[len(wanted) - min(lines, len(wanted)) :]
    numbers = {line.seq for line in shown}
    told = []
    for chapter in chapters:
        own = {each.event.seq for each in chapter.lines}
        kept = [line for line in shown if line.seq in own and line.seq in numbers]
        if kept:
            told.append(Chapter(chapter.generation, chapter.lines[0].event.wall_s, kept))
    return Story(model, told, len(wanted) - len(shown))


class _Teller:
    """Reads events in their order and remembers as much as the next sentence needs."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._told: list[_Chapter] = []
        self._state = "stopped"
        self._asked: EventInfo | None = None  # the scheduler's decision to start, told with the start itself
        self._stopped_at: float | None = None
        self._stop_why: str | None = None
        self._running = False  # a server runs, as far as is known
        self._ended_well = True

    def chapters(self, events: Iterable[EventInfo]) -> list[_Chapter]:
        for event in events:
            if event.kind in _SERVER:
                self._server(event)
            elif self._is_mine(event):
                self._own(event)
            elif event.kind == "scheduler.stop" and event.data.get("why") == f"making room for {self._model}":
                self._tell(event, _made_room(event))
        return [chapter for chapter in self._told if chapter.lines]

    def _is_mine(self, event: EventInfo) -> bool:
        return event.model is not None and (event.model == self._model or event.model.startswith(f"{self._model}~"))

    def _tell(self, event: EventInfo, text: str) -> None:
        if not self._told:
            self._told.append(_Chapter(None))
        self._told[-1].lines.append(_Line(event, text))

    def _begin(self, generation: int | None) -> None:
        # What was told since the last one ended led to this start.
        led: list[_Line] = []
        if self._told and self._state in _DOWN:
            lines = self._told[-1].lines
            while lines and lines[-1].event.kind == "scheduler.stop" and lines[-1].event.model != self._model:
                led.insert(0, lines.pop())
        self._told.append(_Chapter(generation, led))

    def _server(self, event: EventInfo) -> None:
        if event.kind == "server.ready":
            if self._running and not self._ended_well and self._state not in _DOWN:
                self._tell(event, "Corral ended without a word, and was started again")
            self._running, self._ended_well = True, False
        elif event.kind == "server.ending":
            self._ended_well = True
            if self._state not in _DOWN:
                self._tell(event, f"Corral is {event.text}")
        else:
            self._running = False

    def _own(self, event: EventInfo) -> None:
        kind = event.kind
        if kind == "scheduler.start":
            self._asked = event
        elif kind == "scheduler.stop":
            self._stop_why = event.data.get("why")
        elif kind == "unit.state":
            self._step(event)
        elif kind == "request.refused":
            self._refused(event)
        elif kind == "unit.warning":
            self._tell(event, f"warning: {self._short(event.text)}")
        else:
            self._tell(event, self._short(event.text))

    def _step(self, event: EventInfo) -> None:
        data = event.data
        what, after, why = data.get("event"), str(data.get("after")), _why(event)
        text: str | None = None
        if what == "start asked":
            self._begin(_generation(event))
            text = f"asked for{_because(self._asked)}"
            self._asked = None
        elif what == "adopted":
            if self._state not in ("ready", "draining") or not self._told:
                self._begin(_generation(event))
            text = "taken over from the server before: it was running already"
        elif what == "became ready":
            load_ms = data.get("load_ms")
            text = f"ready, loaded in {show_duration(load_ms / 1000)}" if isinstance(load_ms, int | float) else "ready"
        elif what == "drain asked":
            text = f"takes no new work: {why}" if why else "takes no new work"
        elif what == "stop asked":
            if self._state in ("backoff", "failed"):
                text = f"given up for now: {why}" if why else "given up for now"
            else:
                text = f"stopped: {why}" if why else "stopped"
                self._stopped_at = event.wall_s
        elif what == "exited":
            took_s = None if self._stopped_at is None else event.wall_s - self._stopped_at
            text = f"gone after {show_duration(took_s)}, {why}" if took_s is not None and took_s >= 1.0 else None
            self._stopped_at = None
        elif what in ("failed", "gave up"):
            text = self._failure(event, why, gave_up=what == "gave up")
        elif what != "spawned":
            text = f"{what}: {why}" if why else str(what)
        if text is not None:
            self._tell(event, text)
        self._state = after

    def _failure(self, event: EventInfo, why: str, *, gave_up: bool) -> str:
        was_up = event.data.get("before") in ("ready", "sleeping", "draining")
        head = "" if event.data.get("cause") == "hang" else "crashed: " if was_up else "did not come up: "
        text = head + self._short(why).removeprefix("ended: ")
        if was_up and (seen_ms := event.data.get("detected_ms")) is not None:
            text += f" (seen after {show_duration(seen_ms / 1000)})"
        failures, pause_s = event.data.get("failures"), event.data.get("retry_in_s")
        if gave_up:
            text += f"; that was the {_nth(failures)} failure in a row, so it is left alone until somebody asks for it"
        elif isinstance(pause_s, int | float) and pause_s > 0:
            text += f"; the next try comes in {show_duration(pause_s)} at the earliest"
        hint = event.data.get("hint")
        return f"{text} ({hint})" if hint and (gave_up or not was_up) else text

    def _refused(self, event: EventInfo) -> None:
        text = f"a request was refused: {self._short(event.text)}"
        if self._told and (lines := self._told[-1].lines):
            line = lines[-1]
            same = line.event.kind == event.kind and line.event.data.get("code") == event.data.get("code")
            if same and event.wall_s - line.event.wall_s < _SAME_REFUSALS_S:
                line.times += 1
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


def _made_room(event: EventInfo) -> str:
    idle_s = event.data.get("idle_s")
    idle = f" (idle for {show_duration(idle_s)})" if isinstance(idle_s, int | float) and idle_s >= 1 else ""
    needs = ", ".join(
        f"{show_bytes(count)} on {device}"
        for device, count in (event.data.get("needs") or {}).items()
        if isinstance(count, int)
    )
    wanted = f"; it needs {needs}" if needs else ""
    return f"{event.model}{idle} was stopped to make room{wanted}"


def _because(asked: EventInfo | None) -> str:
    why = asked.data.get("why") if asked is not None else None
    return f": {why}" if why else ""


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
