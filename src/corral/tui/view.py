"""What the screen shows, and how keys and news change it; `screen` turns it into lines. No clock, no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field

from corral.api import EventInfo
from corral.api_live import Live, LiveUnit
from corral.lazy_dataclass import dataclass

KEPT_EVENTS = 1000
NOTICE_S = 8.0

_STATES = ("failed", "backoff", "starting", "loading", "draining", "stopping", "ready", "sleeping", "stopped")
_Key = Callable[[LiveUnit], tuple[float | str, ...]]
ORDERS: dict[str, _Key] = {
    "name": lambda unit: (),
    "state": lambda unit: (_STATES.index(unit.state) if unit.state in _STATES else -1,),
    "memory": lambda unit: (-(unit.held_bytes or 0),),
    "rate": lambda unit: (-(unit.tokens_per_s or 0.0),),
    "queue": lambda unit: (-unit.queued, -unit.busy),
    "first token": lambda unit: (-(unit.first_token_p95_ms or 0.0),),
    "restarts": lambda unit: (-unit.restarts, -unit.errors),
}
"""By what units can be sorted, the first key first; equal ones by name."""


def called(unit: LiveUnit) -> str:
    """The name by which a unit is told apart and acted on: its model's, and for a replica its number too."""
    return unit.model + unit.unit.removeprefix(unit.model).partition(".")[0]


@dataclass(frozen=True, slots=True)
class Lost:
    """The server does not answer, or refuses."""

    text: str
    hint: str
    since_wall_s: float


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence in the last line, for a while."""

    text: str
    bad: bool
    until_wall_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before something is done; `verb` is done with `model` when the answer is yes."""

    verb: str
    model: str
    text: str


@dataclass
class View:
    """The state of the screen."""

    address: str
    now_wall_s: float = 0.0
    ahead_s: float = 0.0  # by how much the clock here is ahead of the server's
    live: Live | None = None
    lost: Lost | None = None
    notice: Notice | None = None
    question: Question | None = None
    order: str = "name"
    backwards: bool = False
    stopped_too: bool = True
    cursor: str | None = None  # the model that it is on
    events: list[EventInfo] = field(default_factory=list)  # oldest first

    @property
    def there_wall_s(self) -> float:
        """What the server's clock says now."""
        return self.now_wall_s - self.ahead_s

    def seen(self, live: Live, now_wall_s: float) -> None:
        """The server as it is now."""
        before, self.now_wall_s, self.ahead_s = self.live, now_wall_s, now_wall_s - live.wall_s
        if before is not None and before.pid != live.pid:
            self.say(f"the server was started again: process {live.pid}, version {live.version}")
        elif self.lost is not None and before is not None:
            self.say("the server answers again")
        if live.events and self.events and live.events[-1].seq < self.events[-1].seq:
            newest = self.events[-1].wall_s
            if before is not None and before.pid != live.pid and live.started_wall_s > newest - 1:
                self.events = []  # this server counts from the beginning
        self.lost, self.live = None, live
        self.happened(live.events)
        self._place_cursor()

    def missed(self, text: str, hint: str, now_wall_s: float) -> None:
        """The server did not answer."""
        self.now_wall_s = now_wall_s
        since = self.lost.since_wall_s if self.lost is not None else now_wall_s
        self.lost = Lost(text, hint, since)

    def happened(self, events: list[EventInfo]) -> None:
        last = self.events[-1].seq if self.events else 0
        self.events = [*self.events, *(each for each in events if each.seq > last)][-KEPT_EVENTS:]

    def say(self, text: str, *, bad: bool = False) -> None:
        self.notice = Notice(text, bad, self.now_wall_s + NOTICE_S * (2 if bad else 1))

    def tick(self, now_wall_s: float) -> None:
        self.now_wall_s = now_wall_s
        if self.notice is not None and now_wall_s >= self.notice.until_wall_s:
            self.notice = None

    def units(self) -> list[LiveUnit]:
        """The units in the order in which they are shown."""
        if self.live is None:
            return []
        shown = [unit for unit in self.live.units if self.stopped_too or unit.state != "stopped"]
        shown.sort(key=lambda unit: (ORDERS[self.order](unit), called(unit)), reverse=self.backwards)
        return shown

    def chosen(self) -> LiveUnit | None:
        """The unit that the cursor is on."""
        return next((unit for unit in self.units() if called(unit) == self.cursor), None)

    def move(self, by: int) -> None:
        """The cursor `by` units further down, as far as there are any."""
        names = [called(unit) for unit in self.units()]
        if names:
            at = names.index(self.cursor) if self.cursor in names else 0
            self.cursor = names[max(0, min(len(names) - 1, at + by))]

    def next_order(self, step: int = 1) -> None:
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + step) % len(names)]

    def show_stopped(self, on: bool) -> None:
        self.stopped_too = on
        self._place_cursor()

    def _place_cursor(self) -> None:
        names = [called(unit) for unit in self.units()]
        if self.cursor not in names:
            self.cursor = names[0] if names else None


def meant(verb: str, unit: LiveUnit) -> str:
    """The name that `verb` is done with: one replica can be stopped, all others act on the model."""
    return called(unit) if verb == "stop" else unit.model


def question(verb: str, unit: LiveUnit, units: Sequence[LiveUnit]) -> Question | None:
    """What must be asked before `verb` is done with one of `units`; None where nobody would notice."""
    name = meant(verb, unit)
    those = [each for each in units if name in (called(each), each.model)]
    busy, queued = sum(each.busy for each in those), sum(each.queued for each in those)
    does = []
    if busy:
        does.append(f"answers {busy} request{'s' * (busy != 1)}")
    if queued:
        does.append(f"has {queued} waiting")
    if not does:
        return None
    return Question(verb, name, f"{name} {' and '.join(does)}. {verb.capitalize()} it once they are done?")
