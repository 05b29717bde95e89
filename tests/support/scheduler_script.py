"""A scheduler driven by hand: events in, commands out as short words."""

from __future__ import annotations

from corral.errors import CorralError
from corral.scheduler.decide import step
from corral.scheduler.messages import (
    Asked,
    Command,
    Drain,
    Event,
    Foretell,
    Grant,
    Lacks,
    Look,
    Plan,
    Reject,
    Sleep,
    Start,
    Stop,
    Wake,
    WakeAt,
)
from corral.scheduler.state import Place, Policy, Scheduling, Spec


class Script:
    """A scheduler with a clock of its own; commands come back as short words."""

    def __init__(self, *specs: Spec, policy: Policy | None = None, plans: bool = False) -> None:
        self.state = Scheduling(policy or Policy(), {spec.name: Place(spec) for spec in specs}, plans=plans)
        self.now = 0.0
        self.errors: dict[int, CorralError] = {}
        self.grants: dict[int, Grant] = {}
        self.although: dict[str, str] = {}

    def __call__(self, event: Event, *, at: float | None = None) -> list[str]:
        self.now = self.now if at is None else at
        commands = step(self.state, event, self.now)
        self.state.validate()
        return [word for command in commands if (word := self._word(command))]

    def ask(self, waiter: int, model: str, *, deadline: float = 1000.0, at: float | None = None) -> list[str]:
        return self(Asked(waiter, model, deadline), at=at)

    def _word(self, command: Command) -> str:
        match command:
            case Grant(waiter, model):
                self.grants[waiter] = command
                return f"grant {waiter} {model}"
            case Reject(waiter, error):
                self.errors[waiter] = error
                return f"reject {waiter}"
            case Start(model, generation, although):
                self.although[model] = although
                return f"start {model}.{generation}"
            case Stop(model, generation):
                return f"stop {model}.{generation}"
            case Sleep(model, generation):
                return f"sleep {model}.{generation}"
            case Wake(model, generation):
                return f"wake {model}.{generation}"
            case Plan(model, generation):
                return f"plan {model}.{generation}"
            case Drain(model, generation):
                return f"drain {model}.{generation}"
            case Look():
                return "look"
            case WakeAt() | Lacks() | Foretell():
                return ""


ONE = Policy(max_active=1)
