"""What is known of a process's end before it comes, and what is said of it once it has."""

from __future__ import annotations

import asyncio
import signal
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from corral import clock
from corral.engines.plan import LaunchPlan
from corral.errors import CorralError, StartFailed
from corral.runners.runner import Exit, Running
from corral.supervisor import logs, reasons
from corral.supervisor.machine import Event, Transition

_REMEMBERED = 16  # generations
_SHOWN_LINES = 20

_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NOBODYS = ("stopped", "hang", "file", "unseen", "address")
"""Kinds of ends that no request is to blame for."""


class Ends:
    """One unit's."""

    def __init__(self) -> None:
        self.hung: str | None = None  # what showed that this process hangs
        self.ailment: reasons.Reason | None = None  # what it said of itself, so that it is ended
        self._blameless: OrderedDict[int, bool] = OrderedDict()  # by generation, of those that had been ready

    def begin(self) -> None:
        """Another process comes."""
        self.hung, self.ailment = None, None

    @property
    def told(self) -> bool:
        """Whether it is known already that it must end."""
        return self.hung is not None or self.ailment is not None

    def known(self, model: str, log_tail: str, fate: str) -> StartFailed | None:
        """The reason that was there before the end came; None where the end itself has to tell. `fate`: see below."""
        if (ailment := self.ailment) is not None:
            return StartFailed(ailment.text, hint=ailment.hint, model=model, kind=ailment.kind, log_tail=log_tail)
        if self.hung is None:
            return None
        hint = "a driver or the engine itself got stuck; timeouts.hang says after how long that is taken for certain"
        text = f"{model} hung and was {fate}: {self.hung}"
        return StartFailed(text, hint=hint, model=model, kind="hang", log_tail=log_tail)

    def came(self, generation: int, exit_: Exit, error: CorralError | None) -> None:
        """A process that had been ready ended with `error`, or as it was asked to."""
        kind = "stopped" if error is None else error.details.get("kind")
        outside = kind == "signal" and exit_.signal in _OUTSIDE
        self._blameless[generation] = outside or kind in _NOBODYS or self.ailment is not None
        while len(self._blameless) > _REMEMBERED:
            self._blameless.popitem(last=False)

    def blameless(self, generation: int) -> bool | None:
        """Whether that process ended for a reason that has nothing to do with the requests it had. None when it did not
        end, or longer ago than is remembered."""
        return self._blameless.get(generation)


def in_a_row(history: Iterable[Transition], failures: int, error: CorralError, model: str) -> CorralError:
    """`error`, the last of so many failures, with what happened each time."""
    steps = [step for step in history if step.event in (Event.FAILED, Event.GAVE_UP)][-failures:]
    if len(steps) < 2:
        return error
    took_s = steps[-1].at_wall_s - steps[0].at_wall_s
    text = reasons.in_a_row([step.why for step in steps], model, took_s)
    details = {**error.details, "story": [f"{clock.iso(step.at_wall_s)} {step.why}" for step in steps]}
    return StartFailed(text, hint=f"`corral story {model}` has all of it; {error.hint}", **details)


async def last_words(log: Path | None, engine: str) -> str:
    """The end of an engine's log: so much of it that its reason to end is in there."""
    if log is None:
        return ""
    lines, most = (3000, 1 << 19) if engine == "vllm" else (_SHOWN_LINES, 1 << 16)
    return await asyncio.to_thread(logs.tail, log, lines, most)


def shown(log_tail: str) -> str:
    """What of it is shown."""
    return "".join(log_tail.splitlines(keepends=True)[-_SHOWN_LINES:])


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory; None where nobody can tell."""
    try:
        return reasons.oom_kills_in(Path("/proc/vmstat").read_text())
    except OSError:
        return None  # no such file on this platform


def borrowed(plan: LaunchPlan | None) -> bool:
    """Whether its server is somebody else's, to mend and to end."""
    return plan is not None and not plan.ours


def at(plan: LaunchPlan) -> str:
    """Where that server is, for a sentence; empty for an engine of ours."""
    return "" if plan.ours else f" at {plan.endpoint}"


def fate(plan: LaunchPlan | None) -> str:
    """What becomes of one that hangs."""
    return "killed" if plan is None or plan.ours else f"let go (the server at {plan.endpoint} is not Corral's to end)"


def spawned(plan: LaunchPlan, running: Running) -> str:
    """What there is to say of a start that has begun."""
    return f"pid {running.pid}" if plan.ours else f"waits for the server at {plan.endpoint}"


def own_socket(plan: LaunchPlan | None) -> Path | None:
    """The socket that an engine of ours leaves behind."""
    return plan.endpoint.socket if plan is not None and plan.ours else None


def how(exit_: Exit) -> str:
    """How a process ended, in a few words."""
    if exit_.why:
        return exit_.why
    if exit_.signal is not None:
        return f"ended by signal {exit_.signal}"
    return f"exit code {exit_.code}" if exit_.code is not None else "ended"
