"""What a daemon is made of, once it is built."""

from __future__ import annotations

from contextlib import suppress

from corral.access.desk import Desk
from corral.control_plane import ControlPlane
from corral.conversations.keeper import KeptConversations
from corral.engine_room import Runners
from corral.engines.stored import FromStore
from corral.errors import CorralError
from corral.events import EventLog
from corral.facts import Adapters
from corral.gateway.listen import Listeners
from corral.lazy_dataclass import dataclass
from corral.measures import Measures
from corral.metrics.record import Recorder
from corral.model_plane import ModelPlane
from corral.observability.metering import Metering
from corral.runners.process import ProcessRunner
from corral.scheduler.loop import Scheduler
from corral.supervisor.fleet import Fleet
from corral.supervisor.gpu_return import GpuReturn
from corral.supervisor.keep import Keeper, why_kept
from corral.supervisor.means import Spawn
from corral.supervisor.unit import Unit
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
    recorder: Recorder  # what requests leave, until it is drained
    metering: Metering

    def gpu_return(self, events: EventLog, spawn: Spawn) -> GpuReturn:
        """What looks for GPUs that were lost."""

        def restart(unit: Unit, why: str) -> None:
            self.scheduler.renew_unit(unit.model.name, why)
            if why_kept(unit.model):
                spawn(again(unit.model.name), name=f"start {unit.model.name} again")

        async def again(model: str) -> None:
            with suppress(CorralError):  # told to everybody already
                await self.scheduler.ensure_ready(model)

        return GpuReturn(lambda: self.fleet, self.adapters, events, is_busy=self.scheduler.is_busy, restart=restart)

    def scheduler_works(self) -> bool:
        """Whether what is free on the devices matters now."""
        return bool(self.scheduler.resident or self.scheduler.waiting)
