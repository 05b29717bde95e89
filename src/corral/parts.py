"""What a daemon is made of, once it is built."""

from __future__ import annotations

from dataclasses import dataclass

from corral.access.desk import Desk
from corral.control_plane import ControlPlane
from corral.conversations.keeper import KeptConversations
from corral.engine_room import Runners
from corral.engines.stored import FromStore
from corral.facts import Adapters
from corral.gateway.listen import Listeners
from corral.measures import Measures
from corral.model_plane import ModelPlane
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.supervisor.fleet import Fleet
from corral.supervisor.keep import Keeper
from corral.supervisor.watch import Watch


@dataclass(frozen=True, slots=True)
class Parts:
    """What was built, for opening and closing."""

    runner: ProcessRunner
    runners: Runners  # it and all others
    adapters: Adapters
    from_store: FromStore
    fleet: Fleet
    scheduler: Scheduler
    plane: ControlPlane
    models: ModelPlane
    listeners: Listeners
    keeper: Keeper
    watch: Watch
    kept: KeptConversations
    measures: Measures
    desk: Desk

    def scheduler_works(self) -> bool:
        """Whether what is free on the devices matters now."""
        return bool(self.scheduler.resident or self.scheduler.waiting)
