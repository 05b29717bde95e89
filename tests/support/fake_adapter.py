"""An adapter whose engine is the fake one, for faults that a real engine cannot be asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from corral.config.settings import ModelSettings, Rung
from corral.engines.placement import TOP, UNKNOWN, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan

PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeAdapter:
    """Plans `fake_engine.py` with the model's `args`."""

    rungs: tuple[Rung, ...] = ()  # that there are below the best plan, one of each
    well_at: int = 99  # from so many rungs down, the engine runs without `args`
    devices: tuple[str, ...] = ("cpu",)
    gpus_there = False

    def plan(
        self,
        model: ModelSettings,
        *,
        generation: int,
        endpoint: Endpoint,
        room: Room | None = None,
        step: Step = TOP,
    ) -> LaunchPlan:
        down = sum(bool(getattr(step, rung)) for rung in ("batch", "context", "layers", "cpu"))
        args = model.args if down < self.well_at else ()
        return LaunchPlan(
            unit=f"{model.name}.{generation}",
            model=model.name,
            generation=generation,
            engine="fake",
            engine_version="1",
            argv=(sys.executable, "-I", str(PROGRAM), "--listen", str(endpoint.socket), *args),
            endpoint=endpoint,
            footprint=self.footprint(model),
            env=model.env,
            devices=("cpu",) if step.cpu else self.devices,
            slots=model.parallel,
            room=room or UNKNOWN,
            step=step,
            left=tuple(rung for rung in self.rungs if not getattr(step, rung)),
            degraded=f"cpu ({step.cpu})" if step.cpu else "",
            awaits_gpu=step.gpu_lost,
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        return Footprint({"cpu": 30 << 20})

    def has_gpus(self, model: ModelSettings) -> bool:
        return self.gpus_there
