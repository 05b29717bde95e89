"""The contract every engine adapter keeps: from a model's settings to a `LaunchPlan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from corral.config.settings import ModelSettings
from corral.engines.placement import TOP, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan


class Adapter(Protocol):
    """Turns settings into plans. Nothing is started by it."""

    def plan(
        self,
        model: ModelSettings,
        *,
        generation: int,
        endpoint: Endpoint,
        room: Room | None = None,
        step: Step = TOP,
    ) -> LaunchPlan:
        """The plan for one start of `model`, listening on `endpoint`: where it goes in `room`, `step` below the best.

        Without a `room` it is the machine's as it is now; the plan says which. With one, the same arguments and files
        give the same plan.

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
