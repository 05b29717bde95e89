"""An adapter whose engine is the fake one, for faults that a real engine cannot be asked for."""

from __future__ import annotations

import sys
from pathlib import Path

from corral.config.settings import ModelSettings
from corral.engines.plan import Endpoint, Footprint, LaunchPlan

PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeAdapter:
    """Plans `fake_engine.py` with the model's `args`."""

    def plan(self, model: ModelSettings, *, generation: int, endpoint: Endpoint) -> LaunchPlan:
        return LaunchPlan(
            unit=f"{model.name}.{generation}",
            model=model.name,
            generation=generation,
            engine="fake",
            engine_version="1",
            argv=(sys.executable, "-I", str(PROGRAM), "--listen", str(endpoint.socket), *model.args),
            endpoint=endpoint,
            footprint=self.footprint(model),
            env=model.env,
            slots=model.parallel,
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        return Footprint({"cpu": 30 << 20})
