"""The plan of one start: the same, whether it is then run or only shown. Everything blocks."""

from __future__ import annotations

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines.adapter import Adapter, Start
from corral.engines.placement import Step
from corral.engines.plan import Endpoint, LaunchPlan
from corral.supervisor.files import short


def endpoint_of(paths: Paths, model: str, generation: int) -> Endpoint:
    """Where an engine listens, unless its plan gives it a folder of its own."""
    return Endpoint(socket=paths.units_dir / f"{short(model)}.{generation}.sock")


def plan_start(paths: Paths, adapter: Adapter, model: ModelSettings, generation: int, step: Step) -> LaunchPlan:
    """Raises what planning raises."""
    return adapter.plan(Start(model, generation, endpoint_of(paths, model.name, generation), step=step))
