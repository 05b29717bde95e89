"""What the control routes need of the daemon: one protocol, so that the gateway never imports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from corral.api import ActionResult, DeviceInfo, HealthInfo, ModelInfo, PlanInfo, ReloadResult, Status, Story, UnitInfo
from corral.config.settings import ModelSettings, Settings
from corral.config.tuning import Tuning
from corral.events import EventLog
from corral.gateway.gate import Caller


class Host(Protocol):
    """The daemon as the gateway sees it. All names may be aliases."""

    @property
    def settings(self) -> Settings: ...

    @property
    def events(self) -> EventLog: ...

    @property
    def ready(self) -> bool:
        """Takes new work: listeners are up and Corral is not shutting down."""
        ...

    def resolve(self, name: str | None, listener_default: str | None = None) -> ModelSettings:
        """The model that answers for `name`. Raises UnknownModel (with the nearest name) or MissingModel."""
        ...

    async def find(
        self, name: str | None, listener_default: str | None = None, caller: Caller | None = None
    ) -> ModelSettings:
        """As `resolve`, for a request that wants to be served: models of the store count too, and one that is missing
        is fetched where `auto_pull` says so, and `caller` may have it. Raises Forbidden, NotInStore, and what a pull
        raises."""
        ...

    async def known(self, name: str) -> ModelSettings:
        """As `find`, but nothing is fetched, and what is configured need not be here."""
        ...

    async def stored_names(self) -> list[tuple[str, float]]:
        """Names of stored models, those that `settings` has too, and since when (wall seconds) they are there."""
        ...

    def models(self) -> list[ModelInfo]: ...

    def units(self) -> list[UnitInfo]: ...

    def status(self) -> Status: ...

    async def devices(self) -> list[DeviceInfo]:
        """Every device with its memory as it is now."""
        ...

    async def health(self, name: str | None) -> HealthInfo:
        """Whether the model, or without a name the server, is well; nothing is started."""
        ...

    async def logged(self, name: str) -> str:
        """Whose log `name` means: a model's, or one of its replicas'. Raises UnknownModel."""
        ...

    def log_files(self, name: str) -> list[Path]:
        """The unit's log files, oldest first; the last one is being written. Empty when it never ran."""
        ...

    async def request_lines(self, name: str, request_id: str) -> list[str]:
        """What is known of a request to the model by its id, and what its engine wrote of it. Empty: nothing is."""
        ...

    async def story(self, name: str, *, last_s: float | None, lines: int) -> Story:
        """What happened to the model's engines in the last `last_s` seconds (None: ever), the last `lines` of it."""
        ...

    async def start(self, name: str, *, wait: bool = True) -> ActionResult: ...

    async def stop(self, name: str, *, wait: bool = True) -> ActionResult: ...

    async def preview(self, name: str) -> PlanInfo:
        """What the next start of the model would run. Raises what planning raises."""
        ...

    async def restart(self, name: str, *, wait: bool = True) -> ActionResult: ...

    async def tune(self, name: str, tuning: Tuning) -> ModelSettings:
        """Has the model started as `tuning` says from now on, in place of what was asked for before; an engine that
        runs otherwise is replaced when it can be. Raises UnknownModel, ConfigError."""
        ...

    def tunings(self) -> Mapping[str, Tuning]:
        """What is asked for, by the model's name."""
        ...

    def reached(self, model: str) -> None:
        """Somebody has changed an engine of `model` itself, past Corral: looks, beside everything else, whether it
        sleeps now."""
        ...

    async def hand_over(self) -> str:
        """Begins to hand over to the server that waits for it; what is done, in words. Raises StateInUse, Stopping."""
        ...

    async def reload(self) -> ReloadResult:
        """Reads the configuration again. Raises ConfigError and changes nothing when it is bad."""
        ...
