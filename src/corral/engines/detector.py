"""The detector's adapter: from a model's settings to the plan of one `corral.detector` process."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from corral.config.settings import ModelSettings
from corral.config.sources import check_inside
from corral.engines import detector_flags, executables
from corral.engines.adapter import Start
from corral.engines.detector_flags import CONFIDENCE_VARIABLE, FREE, Flags
from corral.engines.detector_folder import PIXEL_BYTES, Detector, exported, read_detector
from corral.engines.placement import TOP, UNKNOWN, Room, Step
from corral.engines.plan import Footprint, LaunchPlan, Mount, Probe
from corral.engines.rooms import Machine, room_of
from corral.environments.shelf import Environment, Shelf
from corral.errors import CannotFit, EngineError, EngineFlagError, EngineMissing
from corral.hardware.devices import CPU, Listed
from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import Parts
from corral.units import show_bytes

NAME: Final = "detector"
"""The value of the `engine` key that means this adapter."""
PARALLEL: Final = 16
"""Requests let into it at once where `parallel` does not say: two batches, one being seen and one on its way."""

PROGRAM_BYTES: Final = 96 << 20
"""What the program takes without a model: Python, numpy, onnxruntime's own. Measured: 60 to 85 MB."""
LARGER: Final = 2
"""Models with more layers than R18 take more for each pixel: so much is kept free until it is measured."""
CONTEXT_BYTES: Final = 400 << 20
"""What a GPU's driver and libraries take for a process."""
EXPORT_BYTES: Final = 1 << 30
"""What torch and transformers take while they export, beside the weights, which are there three times."""

_GPU_PROVIDERS: Final = (
    ("CUDAExecutionProvider", "cuda", "nvidia", "CUDA"),
    ("MIGraphXExecutionProvider", "rocm", "amd", "ROCm"),
    ("OpenVINOExecutionProvider", "openvino-gpu", "intel", "OpenVINO"),
)
"""onnxruntime's name, ours, whose GPUs it runs on, and what it calls them."""
_EXPORTER: Final = (
    "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('transformers')))"
)
_ENVIRONMENT: Final = "detector-export"
_INSTALL: Final = f"corral engine install {_ENVIRONMENT}"


@dataclass(frozen=True, slots=True)
class Library:
    """The onnxruntime of one Python."""

    python: str
    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What it runs on."""

    provider: str = "cpu"
    gpu: str | None = None  # Corral's name
    device: int = 0  # among those of its kind
    listed: tuple[Listed, ...] = ()


class DetectorAdapter:
    """The `Adapter` of the detector. `cache` keeps what was exported, `exporter` says which environment exports."""

    def __init__(
        self,
        machine: Callable[[], Machine] | None,
        cache: Path,
        exporter: Callable[[], Environment | None] = lambda: None,
        environment: Mapping[str, str] = os.environ,
        *,
        library: Callable[[str], Library] | None = None,
        exports: Callable[[str], bool] | None = None,
    ) -> None:
        """`library` says what a Python has of onnxruntime, `exports` whether one can export; both ask it themselves."""
        self._machine, self._cache, self._exporting, self._environment = machine, cache, exporter, environment
        self._library, self._exports = library or about, exports or can_export

    def plan(self, start: Start) -> LaunchPlan:
        model, endpoint, step = start.model, start.endpoint, start.step
        detector = _read(model)
        flags = detector_flags.parse(model.args, FREE)
        library = self._library(_python(model))
        place, degraded = self._place(model, library, step, flags)
        largest = max(1, flags.max_batch >> step.batch)
        onnx, exporter = exported(detector, self._cache), ""
        if not onnx.is_file():
            exporter = self._exporter(library.python, model)
        footprint = _footprint(detector, place, largest, exports=bool(exporter))
        room = start.room or self._room(place)
        if room and (lack := _lack(footprint, room, model.name)) is not None:
            raise lack
        where = (
            (str(endpoint.socket),) if endpoint.socket is not None else (endpoint.host, "--port", str(endpoint.port))
        )
        argv = [library.python, "-I", str(program()), "--model", str(onnx), "--folder", str(detector.folder), "--host"]
        argv += [*where, "--alias", model.name.partition("~")[0], "--provider", place.provider]
        argv += ["--device", str(place.device), "--confidence", str(self._confidence(model)), *model.args]
        argv += ["--max-batch", str(largest)]
        if exporter:
            argv += ["--export-with", exporter]
        return LaunchPlan(
            unit=start.unit,
            model=model.name,
            generation=start.generation,
            engine=NAME,
            engine_version=library.version,
            argv=tuple(argv),
            endpoint=endpoint,
            footprint=footprint,
            probe=Probe(canary="", counters=""),
            env=MappingProxyType(dict(model.env)),
            mounts=tuple(Mount(path, str(path)) for path in _files(detector, onnx, exports=bool(exporter))),
            devices=(CPU,) if place.gpu is None else (CPU, place.gpu),
            slots=model.parallel,
            runner=model.runner,
            warnings=(f"degraded: {degraded}",) if degraded else (),
            room=room,
            step=step,
            left=("batch",) if largest > 1 else (),
            placement=f"{place.gpu or CPU}, by {place.provider}",
            degraded=degraded,
            awaits_gpu=step.gpu_lost,
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        detector = _read(model)
        place, largest = Place(), Flags().max_batch
        try:
            flags = detector_flags.parse(model.args, FREE)
            place, largest = self._place(model, self._library(_python(model)), TOP, flags)[0], flags.max_batch
        except EngineError:
            pass  # planning a start will say what is wrong
        return _footprint(detector, place, largest)

    def has_gpus(self, model: ModelSettings) -> bool:
        try:
            flags = detector_flags.parse(model.args, FREE)
            return self._place(model, self._library(_python(model)), TOP, flags)[0].gpu is not None
        except EngineError:
            return False

    def _confidence(self, model: ModelSettings) -> float:
        text = model.env.get(CONFIDENCE_VARIABLE, self._environment.get(CONFIDENCE_VARIABLE))
        return Flags().confidence if text is None else detector_flags.confidence_in(text, CONFIDENCE_VARIABLE)

    def _place(self, model: ModelSettings, library: Library, step: Step, flags: Flags) -> tuple[Place, str]:
        """Where it goes, and why it must do without a GPU."""
        otherwise = Place("openvino" if "OpenVINOExecutionProvider" in library.providers else "cpu")
        if step.cpu:
            return otherwise, f"cpu ({step.cpu})"
        if model.gpu_layers == 0:
            return otherwise, ""
        devices = self._machine().devices if self._machine is not None else ()
        for theirs, ours, vendor, word in _GPU_PROVIDERS:
            found = [each for each in devices if each.name != CPU and each.vendor == vendor and each.problem is None]
            if theirs in library.providers and len(found) > flags.device:
                listed = tuple(
                    Listed(f"{word}{number}", each.words, each.total_bytes) for number, each in enumerate(found)
                )
                return Place(ours, found[flags.device].name, flags.device, listed), ""
        if model.gpu_layers != "auto":
            raise EngineError(
                f"{model.name} wants a GPU (gpu_layers: {model.gpu_layers}), and onnxruntime reaches none here",
                hint="install onnxruntime for your GPU (onnxruntime-gpu), or let it go without: gpu_layers: auto",
            )
        return otherwise, ""

    def _room(self, place: Place) -> Room:
        return UNKNOWN if self._machine is None else room_of(self._machine(), place.listed)

    def _exporter(self, python: str, model: ModelSettings) -> str:
        """A Python with torch and transformers: the engine's own, or that of the environment made for it."""
        if self._exports(python):
            return python
        if (made := self._exporting()) is None:
            raise EngineMissing(
                f"{model.source} has no model.onnx, and nothing here can make one of its safetensors",
                hint=f"run `{_INSTALL}`, or put a model.onnx into the folder",
            )
        if not self._exports(str(made.interpreter)):
            raise EngineMissing(
                f"{made}, which would make ONNX of {model.source}, does not work any more",
                hint=f"make it anew: corral engine remove {_ENVIRONMENT} {made.id} && {_INSTALL}",
            )
        return str(made.interpreter)


def exporter(data: Path) -> Environment | None:
    """The current environment of `corral engine install detector-export`, below the data directory."""
    return Shelf(data / "engines", _ENVIRONMENT).current()


def program() -> Path:
    """The folder that a Python runs as the detector."""
    return Path(__file__).resolve().parents[1] / "detector"


def about(python: str) -> Library:
    """What `python` has of onnxruntime. Blocks for a child process, once. Raises EngineMissing."""
    return executables.kept(Path(python), "onnxruntime", partial(_about, python))


def _about(python: str, _: Path) -> Library:
    try:
        said: Any = json.loads(executables.asked((python, "-I", str(program()), "--about")).splitlines()[-1])
        return Library(python, str(said["onnxruntime"]), tuple(said["providers"]))
    except (EngineError, ValueError, LookupError, TypeError) as exc:
        why = exc.message if isinstance(exc, EngineError) else str(exc)
        raise EngineMissing(
            f"the detector's libraries are not here: {why}",
            hint=f"install them with `{python} -m pip install 'corral[vision]'`",
        ) from exc


def can_export(python: str) -> bool:
    """Whether `python` has what exporting needs. Blocks for a child process; until it has, each time."""
    try:
        return executables.kept(Path(python), "exports", partial(_can_export, python))
    except (EngineError, OSError):
        return False


def _can_export(python: str, _: Path) -> bool:
    executables.asked((python, "-I", "-c", _EXPORTER))
    return True


def _python(model: ModelSettings) -> str:
    """The Python that runs it: Corral's own, or the one that `executable` names. Raises EngineMissing."""
    if model.executable in ("auto", "embedded"):
        return sys.executable
    found = shutil.which(model.executable)
    if found is None:
        raise EngineMissing(
            f"there is no program {model.executable}",
            hint="for a detector, `executable` is a Python that has `corral[vision]`, or auto for Corral's own",
        )
    return found


def _read(model: ModelSettings) -> Detector:
    check_inside(model.source, model.roots)  # once more: a link may have changed since the file was read
    if model.context is not None:
        raise EngineFlagError(f"{model.name} is a detector, which has no context", hint="take `context` out")
    return read_detector(model.source)


def _files(detector: Detector, onnx: Path, *, exports: bool) -> list[Path]:
    found = [detector.folder / "config.json", detector.folder / "preprocessor_config.json"]
    if exports and detector.weights is not None:
        return [*found, detector.weights]
    beside = onnx.with_name(onnx.name + "_data")
    return [onnx, *found, *([beside] if beside.is_file() else [])]


def _footprint(detector: Detector, place: Place, largest: int, *, exports: bool = False) -> Footprint:
    weights, how = detector.weights_bytes, detector.preprocessing
    compute = largest * how.height * how.width * PIXEL_BYTES * LARGER
    if place.gpu is None:
        parts = {CPU: Parts(weights=weights, compute=compute + PROGRAM_BYTES)}
    else:
        parts = {CPU: Parts(compute=PROGRAM_BYTES + weights), place.gpu: Parts(weights, 0, compute + CONTEXT_BYTES)}
    if exports:
        most = max(parts[CPU].total, EXPORT_BYTES + 3 * weights)
        parts[CPU] = Parts(parts[CPU].weights, 0, most - parts[CPU].weights)
    return Footprint(
        MappingProxyType({name: each.total for name, each in parts.items()}), parts=MappingProxyType(parts)
    )


def _lack(footprint: Footprint, room: Room, name: str) -> CannotFit | None:
    for device, size in footprint.bytes_by_device.items():
        if size > room.bytes_by_device.get(device, size):
            has = show_bytes(room.bytes_by_device[device])
            return CannotFit(
                f"{name} needs {show_bytes(size)} on {device}, which has {has} for it",
                hint="use a smaller --max-batch in `args`, a smaller model, or a larger `memory` budget",
            )
    return None
