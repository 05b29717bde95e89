"""What the units of one server share, and whom they tell what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from corral.config.paths import Paths
from corral.engines.adapter import Adapter
from corral.engines.plan import Footprint
from corral.errors import CorralError
from corral.events import EventLog
from corral.lazy_dataclass import dataclass
from corral.runners.runner import Runner


class Listener(Protocol):
    """Who is told what becomes of a unit. Called on the event loop; must not block."""

    def unit_ready(self, model: str, generation: int) -> None: ...

    def unit_slept(self, model: str, generation: int) -> None: ...

    def unit_ended(self, model: str, generation: int, error: CorralError | None, retry_at: float) -> None:
        """The process is gone. `error` only when it never came up and trying again at once is in vain; `retry_at` is on
        `clock.monotonic`."""
        ...


class Spawn(Protocol):
    """Starts a task that belongs to the owner's TaskGroup."""

    def __call__(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What every unit shares."""

    paths: Paths
    events: EventLog
    adapters: Mapping[str, Adapter]
    runners: Mapping[str, Runner]
    listener: Listener
    spawn: Spawn
    forgone: Callable[[str], None] = lambda model: None  # told of a model whose plan was made in vain
    answered: Callable[[str], int] = lambda unit: 0  # how many requests that unit has answered
    planned: Callable[[str, Footprint], None] = lambda unit, footprint: None  # told what a start now would take
