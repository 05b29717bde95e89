"""An adapter whose engine is the fake one, for faults that a real engine cannot be asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from corral.config.settings import ModelSettings, Rung
from corral.engines.adapter import Start
from corral.engines.placement import UNKNOWN
from corral.engines.plan import Footprint, LaunchPlan

PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeAdapter:
    """Plans `fake_engine.py` with the model's `args`."""

    rungs: tuple[Rung, ...] = ()  # that there are below the best plan, one of each
    well_at: int = 99  # from so many rungs down, the engine runs without `args`
    devices: tuple[str, ...] = ("cpu",)
    gpus_there = False

    def plan(self, start: Start) -> LaunchPlan:
        model, step = start.model, start.step
        down = sum(bool(getattr(step, rung)) for rung in ("batch", "context", "layers", "cpu"))
        args = model.args if down < self.well_at else ()
        return LaunchPlan(
            unit=start.unit,
            model=model.name,
            generation=start.generation,
            engine="fake",
            engine_version="1",
            argv=(sys.executable, "-I", str(PROGRAM), "--listen", str(start.endpoint.socket), *args),
            endpoint=start.endpoint,
            footprint=self.footprint(model),
            env=model.env,
            devices=("cpu",) if step.cpu else self.devices,
            slots=model.parallel,
            room=start.room or UNKNOWN,
            step=step,
            left=tuple(rung for rung in self.rungs if not getattr(step, rung)),
            degraded=f"cpu ({step.cpu})" if step.cpu else "",
            awaits_gpu=step.gpu_lost,
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        return Footprint({"cpu": 30 << 20})

    def has_gpus(self, model: ModelSettings) -> bool:
        return self.gpus_there
