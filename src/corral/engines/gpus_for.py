"""The GPUs of one model's engine: which it finds, and the flags that have it use them as planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import executables, flags
from corral.engines.executables import Build
from corral.engines.layout import Layout
from corral.engines.placement import Room, Step
from corral.errors import EngineError
from corral.hardware.devices import Listed

HIDDEN: Final[Mapping[str, str]] = MappingProxyType({"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"})
"""The environment of an engine that must not touch GPUs."""

_ALL: Final = 999
"""As a number of layers: every one, however llama.cpp counts them."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """What an engine finds. `degraded` says why it does without GPUs that it should have."""

    listed: tuple[Listed, ...] = ()
    degraded: str = ""
    awaited: bool = False  # there were some

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"gpu{number}" for number in range(len(self.listed)))


NONE: Final = Gpus()


def found(build: Build, model: ModelSettings, step: Step, *, afresh: bool = False) -> Gpus:
    """The GPUs that `build` finds for `model`. Blocks for a child process, once for all models.

    Raises EngineError where it finds none that it must have, and nothing else may be used instead.
    """
    if step.cpu:
        return Gpus(degraded=f"cpu ({step.cpu})", awaited=step.gpu_lost)
    if model.gpu_layers == 0:
        return NONE
    rpc = flags_of_remotes(model)
    try:
        listed = executables.listing(build, model.env, rpc, afresh=afresh)
        why = f"{build} finds no GPU"
    except EngineError as error:
        listed, why = (), f"its GPUs cannot be listed: {error.message}"
        if model.gpu_layers == "auto":
            return _without(model, why, awaited=True)
    if listed:
        return Gpus(listed)
    gone = executables.had_devices(build, model.env, rpc)
    if model.gpu_layers == "auto":
        return _without(model, f"its GPUs are gone: {why} any more", awaited=True) if gone else NONE
    return _without(model, f"gpu_layers is {model.gpu_layers}, but {why}", awaited=gone)


def _without(model: ModelSettings, why: str, *, awaited: bool) -> Gpus:
    if not model.cpu_fallback:
        raise EngineError(
            f"{model.name} must not run without a GPU: {why}",
            hint="`corral doctor` looks at GPUs and drivers; cpu_fallback: true goes on without",
            model=model.name,
        )
    return Gpus(degraded=f"cpu ({why})", awaited=awaited)


def flags_of_remotes(model: ModelSettings) -> tuple[str, ...]:
    """The part of `args` that adds devices on other machines."""
    written = [flags.canonical(each) for each in model.args]
    return tuple(model.args[written.index("--rpc") :][:2]) if "--rpc" in written else ()


def arguments(model: ModelSettings, build: Build, layout: Layout, room: Room, step: Step) -> tuple[str, ...]:
    """The flags for `layout`. Where there is no GPU, only what `gpu_layers` says is passed on."""
    known = build.flags if build.kind != "embedded" else None
    off = ("--fit", "off") if known is None or "--fit" in known else ()
    names = dict(zip(room.gpus, room.engine_names, strict=True))
    if step.cpu or (layout.placed and names and not layout.run.gpus):
        return ("--gpu-layers", "0", *(("--device", "none") if known and "--device" in known else ()), *off)
    asked = () if model.gpu_layers == "auto" else ("--gpu-layers", str(model.gpu_layers))
    if not layout.placed:
        return asked
    if not names:
        return (*asked, *off)
    layers = layout.on_gpus if layout.on_gpus is not None else _ALL
    return ("--gpu-layers", str(layers), *_devices(model, known, layout, names), *off)


def _devices(
    model: ModelSettings, known: Mapping[str, int] | None, layout: Layout, names: Mapping[str, str]
) -> tuple[str, ...]:
    used = layout.run.gpus
    shares = tuple(f"{share / (1 << 20):.0f}" for share in layout.run.split) if len(used) > 1 else ()
    split = ("--tensor-split", ",".join(shares)) if shares else ()
    # A remote device has its name only after --rpc, which stands in `args`, behind this.
    if known is not None and "--device" in known and not flags_of_remotes(model):
        return ("--device", ",".join(names[gpu] for gpu in used), *split)
    if len(names) > 1 and len(used) == 1:
        return ("--split-mode", "none", "--main-gpu", str(list(names).index(used[0])))
    return split
