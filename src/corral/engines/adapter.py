"""The contract every engine adapter keeps: from a model's settings to a `LaunchPlan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from corral.config.settings import ModelSettings
from corral.engines.plan import Endpoint, Footprint, LaunchPlan


class Adapter(Protocol):
    """Turns settings into plans. Nothing is started by it."""

    def plan(self, model: ModelSettings, *, generation: int, endpoint: Endpoint) -> LaunchPlan:
        """The plan for one start of `model`, listening on `endpoint`.

        Blocks (it reads the model's header and may ask an executable for its version): call it in a thread.

        Raises ModelFileError, UnknownArchitecture, EngineMissing, EngineFlagError: all before anything runs.
        """
        ...

    def footprint(self, model: ModelSettings) -> Footprint:
        """Predicted memory of `model` without planning a start. Blocks. Raises ModelFileError."""
        ...


Adapters = Mapping[str, Adapter]
"""Adapters by the value of the `engine` key."""
