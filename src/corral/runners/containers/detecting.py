"""The detector of an image, planned by its own adapter: the same plan as on this machine, with the image's program."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.detector import DetectorAdapter, Library
from corral.engines.plan import Footprint, LaunchPlan
from corral.errors import EngineError
from corral.runners.containers.image import Chosen, Images


class DetectorInside:
    """Another adapter of detectors, whose plans for containers begin with an image. Thread-safe."""

    def __init__(
        self,
        make: Callable[[Callable[[str], Library] | None], DetectorAdapter],
        images: Callable[[str], Images],
    ) -> None:
        """`make` gives the adapter for a library that is asked in another way; None: this machine's own."""
        self._here, self._make, self._images = make(None), make, images

    def plan(self, start: Start) -> LaunchPlan:
        model = start.model
        if model.runner == "process":
            return self._here.plan(start)
        images = self._images(model.runner)
        chosen = images.choose(model)
        inner = self._make(_library(chosen, images.version(chosen)))
        plan = inner.plan(start)
        if "--export-with" in plan.argv:
            raise EngineError(
                f"{model.source} has no model.onnx yet, and the image of {model.name} cannot make one",
                hint="start it once with `runner: process`, which exports it, or put a model.onnx into the folder",
                model=model.name,
            )
        return replace(
            plan,
            argv=(chosen.entry.program, *plan.argv[plan.argv.index("--model") :]),
            image=chosen.reference,
            image_id=chosen.image.id,
            warnings=(*plan.warnings, *chosen.warnings),
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        return self._here.footprint(model)

    def has_gpus(self, model: ModelSettings) -> bool:
        return model.runner == "process" and self._here.has_gpus(model)


def _library(chosen: Chosen, told: str) -> Callable[[str], Library]:
    """What the image's program says of its onnxruntime, whichever Python is asked about."""
    try:
        said = json.loads(told.strip().splitlines()[-1])
        found = Library(chosen.entry.program, str(said["onnxruntime"]), tuple(said["providers"]))
    except (ValueError, LookupError, TypeError) as exc:
        raise EngineError(
            f"{chosen.reference} has no detector that says what it is: {told.strip()[:200]!r}",
            hint="corral image build detector makes one that does",
            image=chosen.reference,
        ) from exc
    return lambda python: found
