"""The states of a unit and the events that move it between them: one table.

A pair that is not in `TABLE` is an `IllegalTransition`, which carries the unit's history. The diagram in
docs/architecture.md is made from this table by `diagram`.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from corral.errors import Bug
from corral.lazy_dataclass import dataclass


class State(StrEnum):
    """What a unit is doing."""

    STOPPED = "stopped"  # no process
    STARTING = "starting"  # a plan is made, a process is being started
    LOADING = "loading"  # the process runs and is not ready yet
    READY = "ready"
    SLEEPING = "sleeping"  # the process runs, its memory is given back
    DRAINING = "draining"  # takes no new work, answers what it has
    STOPPING = "stopping"  # TERM or KILL was sent
    BACKOFF = "backoff"  # failed, and may be tried again after a while
    FAILED = "failed"  # failed too often; only a new request after the longest wait, or `start`, tries again


class Event(StrEnum):
    """What happened to a unit, in the past tense."""

    START_ASKED = "start asked"
    SPAWNED = "spawned"
    BECAME_READY = "became ready"
    ADOPTED = "adopted"
    SLEPT = "slept"
    WOKE = "woke"
    DRAIN_ASKED = "drain asked"
    STOP_ASKED = "stop asked"
    EXITED = "exited"
    FAILED = "failed"  # did not come up, or ended unasked, and may be tried again
    GAVE_UP = "gave up"  # the same once too often


_S, _E = State, Event

TABLE: dict[tuple[State, Event], State] = {
    (_S.STOPPED, _E.START_ASKED): _S.STARTING,
    (_S.STOPPED, _E.ADOPTED): _S.READY,
    (_S.STARTING, _E.SPAWNED): _S.LOADING,
    (_S.STARTING, _E.STOP_ASKED): _S.STOPPING,
    (_S.STARTING, _E.FAILED): _S.BACKOFF,
    (_S.STARTING, _E.GAVE_UP): _S.FAILED,
    (_S.LOADING, _E.BECAME_READY): _S.READY,
    (_S.LOADING, _E.STOP_ASKED): _S.STOPPING,
    (_S.LOADING, _E.FAILED): _S.BACKOFF,
    (_S.LOADING, _E.GAVE_UP): _S.FAILED,
    (_S.READY, _E.SLEPT): _S.SLEEPING,
    (_S.READY, _E.DRAIN_ASKED): _S.DRAINING,
    (_S.READY, _E.STOP_ASKED): _S.STOPPING,
    (_S.READY, _E.FAILED): _S.BACKOFF,
    (_S.READY, _E.GAVE_UP): _S.FAILED,
    (_S.SLEEPING, _E.WOKE): _S.READY,
    (_S.SLEEPING, _E.STOP_ASKED): _S.STOPPING,
    (_S.SLEEPING, _E.FAILED): _S.BACKOFF,
    (_S.SLEEPING, _E.GAVE_UP): _S.FAILED,
    (_S.DRAINING, _E.STOP_ASKED): _S.STOPPING,
    (_S.DRAINING, _E.FAILED): _S.BACKOFF,
    (_S.DRAINING, _E.GAVE_UP): _S.FAILED,
    (_S.STOPPING, _E.EXITED): _S.STOPPED,
    (_S.BACKOFF, _E.STOP_ASKED): _S.STOPPED,
    (_S.BACKOFF, _E.START_ASKED): _S.STARTING,
    (_S.FAILED, _E.STOP_ASKED): _S.STOPPED,
    (_S.FAILED, _E.START_ASKED): _S.STARTING,
}

RESIDENT = frozenset({_S.STARTING, _S.LOADING, _S.READY, _S.SLEEPING, _S.DRAINING, _S.STOPPING})
"""States in which a process may hold memory."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a unit's history."""

    at_wall_s: float
    generation: int
    before: State
    event: Event
    after: State
    why: str

    def __str__(self) -> str:
        return f"#{self.generation} {self.before} → {self.after} ({self.event}{': ' + self.why if self.why else ''})"


class IllegalTransition(Bug):
    """An event came that the table has no row for; `details['history']` says how it got there."""

    code = "illegal_transition"


class Machine:
    """One unit's state and its last transitions. Nothing moves it but `move`."""

    def __init__(self, unit: str, kept: int = 64) -> None:
        self.unit = unit
        self.state = State.STOPPED
        self.history: deque[Transition] = deque(maxlen=kept)

    def move(self, event: Event, *, at_wall_s: float, generation: int, why: str = "") -> Transition:
        """The transition that `event` causes, already made. Raises IllegalTransition and stays where it is."""
        after = TABLE.get((self.state, event))
        if after is None:
            raise IllegalTransition(
                f"unit {self.unit} is {self.state}: nothing follows from {event!r}",
                hint="please report this with the output of `corral events`",
                history=[str(step) for step in self.history],
            )
        step = Transition(at_wall_s, generation, self.state, event, after, why)
        self.state = after
        self.history.append(step)
        return step

    def allows(self, event: Event) -> bool:
        return (self.state, event) in TABLE

    def __repr__(self) -> str:
        return f"<Machine {self.unit} {self.state}>"


def diagram() -> str:
    """The table as a Mermaid state diagram, one line per pair of states."""
    edges: dict[tuple[State, State], list[str]] = {}
    for (before, event), after in TABLE.items():
        edges.setdefault((before, after), []).append(str(event))
    lines = [f"    {before} --> {after}: {', '.join(events)}" for (before, after), events in edges.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.STOPPED}", *lines])
