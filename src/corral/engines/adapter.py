"""The contract every engine adapter keeps: from a model's settings to a `LaunchPlan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from corral.config.settings import ModelSettings
from corral.engines.placement import TOP, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a model, as a plan is asked for."""

    model: ModelSettings
    generation: int
    endpoint: Endpoint  # where it is to listen
    room: Room | None = None  # where it may go; None: the machine's as it is now, and the plan says which
    step: Step = TOP  # how far below the best it is to be

    @property
    def unit(self) -> str:
        return f"{self.model.name}.{self.generation}"


class Adapter(Protocol):
    """Turns settings into plans. Nothing is started by it."""

    def plan(self, start: Start) -> LaunchPlan:
        """The plan for `start`. With a room in it, the same start and files give the same plan.

        Blocks (it reads the model's header and may ask an executable for its version): call it in a thread.

        Raises ModelFileError, UnknownArchitecture, EngineMissing, EngineFlagError, CannotFit: all before anything runs.
        """
        ...

    def footprint(self, model: ModelSettings) -> Footprint:
        """Predicted memory of `model` where a plan would put it now. Blocks. Raises ModelFileError."""
        ...

    def has_gpus(self, model: ModelSettings) -> bool:
        """Whether the engine that would run `model` finds a GPU, asked anew. Blocks for a child process."""
        ...


class Around:
    """Another adapter, `inner`, around whose plans something is put: what it says besides stays as it is."""

    def __init__(self, inner: Adapter) -> None:
        self._inner = inner

    def footprint(self, model: ModelSettings) -> Footprint:
        return self._inner.footprint(model)

    def has_gpus(self, model: ModelSettings) -> bool:
        return self._inner.has_gpus(model)


Adapters = Mapping[str, Adapter]
"""Adapters by the value of the `engine` key."""
