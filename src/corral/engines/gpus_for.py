"""The GPUs of one model's engine: which it finds, and the flags that have it use them as planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import executables, flags, gpu_choice
from corral.engines.executables import Build
from corral.engines.layout import Layout
from corral.engines.placement import Room, Step
from corral.errors import EngineError
from corral.hardware.devices import Listed
from corral.hardware.gpus import contained
from corral.hardware.vulkan import read_vulkan
from corral.lazy_dataclass import dataclass

_ALL: Final = 999
"""As a number of layers: every one, however llama.cpp counts them."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """What an engine finds. `degraded` says why it does without GPUs that it should have."""

    listed: tuple[Listed, ...] = ()
    degraded: str = ""
    awaited: bool = False  # there were some
    rows: bool = True  # a model may be split by rows over them
    every: tuple[str, ...] = ()  # the engine's names of all, those too that this model is not to use

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"gpu{number}" for number in range(len(self.listed)))


NONE: Final = Gpus()


def variables(model: ModelSettings) -> Mapping[str, str]:
    """The environment that `model`'s engine is asked in, and started in while it has its GPUs."""
    return {**model.env, **gpu_choice.variables(model, contained=contained())}


def found(build: Build, model: ModelSettings, step: Step, *, afresh: bool = False) -> Gpus:
    """The GPUs that `build` finds for `model`. Blocks for a child process, once for all models.

    Raises EngineError where it finds none that it must have, and nothing else may be used instead.
    """
    if step.cpu:
        return Gpus(degraded=f"cpu ({step.cpu})", awaited=step.gpu_lost)
    if model.gpu_layers == 0:
        return NONE
    rpc, env = flags_of_remotes(model), variables(model)
    asked = gpu_choice.wish(model)
    try:
        every = executables.listing(build, env, rpc, afresh=afresh)
        why = _why_none(build, env)
    except EngineError as error:
        every, why = (), _because(build, env) or f"its GPUs cannot be listed: {error.message}"
        if not asked:
            return without(model, why, awaited=True)
    names = tuple(one.name for one in every)
    listed = gpu_choice.of_backend(every, model.gpu_backend)
    if listed:
        return Gpus(listed, every=names)
    if every:
        why = f"{build} finds only {', '.join(names)}"
    gone = executables.had_devices(build, env, rpc)
    if not asked:
        return without(model, f"its GPUs are gone: {why}", awaited=True) if gone else NONE
    return without(
        model, why if asked.startswith("VK_") and asked.split()[0] in why else f"{asked}, but {why}", awaited=True
    )


def _why_none(build: Build, env: Mapping[str, str]) -> str:
    return _because(build, env) or f"{build} finds no GPU"


def _because(build: Build, env: Mapping[str, str]) -> str | None:
    """What is wrong with Vulkan, where that is the only way in which `build` could reach a GPU."""
    return read_vulkan(executables.environment_of(env)).why_none if executables.backends(build) == ("vulkan",) else None


def without(model: ModelSettings, why: str, *, awaited: bool) -> Gpus:
    """No GPU for `model`, since `why`. Raises EngineError where it must not do without."""
    if not model.cpu_fallback:
        raise EngineError(
            f"{model.name} must not run without a GPU: {why}",
            hint="`corral doctor` looks at GPUs and drivers; cpu_fallback: true goes on without",
            model=model.name,
        )
    return Gpus(degraded=f"cpu ({why})", awaited=awaited)


def chosen(model: ModelSettings, build: Build, gpus: Gpus, room: Room) -> tuple[Gpus, Room, tuple[str, ...]]:
    """`gpus` and `room` with no more than `devices` and `split` allow, and a warning for each name that is nobody's.

    Raises EngineError where none of them is there and nothing else may be used instead.
    """
    if not gpus.listed:  # a room that was found before they were lost
        return gpus, gpu_choice.processor(room), ()
    if model.split == "row" and not gpu_choice.may_split_rows([one.name for one in gpus.listed]):
        gpus = replace(gpus, rows=False)
    if not model.devices:
        room = gpu_choice.alone(room) if model.split == "none" else room
        return gpus, room, _unshared(model, gpus, room)
    if not room:
        return _by_position(model, build, gpus, room)
    there = _there(room)
    room, missing = gpu_choice.chosen(room, model.devices)
    if not room.gpus:
        gpus = without(model, f"devices is {', '.join(model.devices)}, but {build} finds {there}", awaited=True)
        return gpus, gpu_choice.processor(room), ()
    listed = tuple(one for name in room.engine_names for one in gpus.listed if one.name == name)
    said = tuple(f"there is no {name} for it: {build} finds {there}" for name in missing)
    room = gpu_choice.alone(room) if model.split == "none" else room
    return replace(gpus, listed=listed), room, (*said, *_unshared(model, gpus, room))


def _unshared(model: ModelSettings, gpus: Gpus, room: Room) -> tuple[str, ...]:
    """A warning for each way of splitting that is asked for and cannot be."""
    count, there = len(model.tensor_split), len(room.gpus)
    said = []
    if not gpus.rows and there > 1:
        said.append(f"{gpus.listed[0].name} cannot split by rows: split by layers instead")
    if room and count and count != there:
        said.append(
            f"tensor_split has {count} shares for {there} GPUs ({', '.join(room.gpus)}): split by their room instead"
        )
    return tuple(said)


def _by_position(model: ModelSettings, build: Build, gpus: Gpus, room: Room) -> tuple[Gpus, Room, tuple[str, ...]]:
    """The same where the memory of GPUs is not known, so that they have no other numbers than their engine's."""
    by_name = {name: one for number, one in enumerate(gpus.listed) for name in (f"gpu{number}", one.name)}
    listed = tuple(dict.fromkeys(by_name[name] for name in model.devices if name in by_name))
    there = ", ".join(one.name for one in gpus.listed)
    if not listed:
        why = f"devices is {', '.join(model.devices)}, but {build} finds {there}"
        return without(model, why, awaited=True), room, ()
    said = tuple(f"there is no {name} for it: {build} finds {there}" for name in model.devices if name not in by_name)
    return replace(gpus, listed=listed), room, said


def _there(room: Room) -> str:
    return ", ".join(f"{gpu} ({engines})" for gpu, engines in zip(room.gpus, room.engine_names, strict=True))


def flags_of_remotes(model: ModelSettings) -> tuple[str, ...]:
    """The part of `args` that adds devices on other machines."""
    written = [flags.canonical(each) for each in model.args]
    return tuple(model.args[written.index("--rpc") :][:2]) if "--rpc" in written else ()


def arguments(
    model: ModelSettings, build: Build, layout: Layout, room: Room, step: Step, gpus: Gpus = NONE
) -> tuple[str, ...]:
    """The flags for `layout`. Where there is no GPU, only what `gpu_layers` says is passed on."""
    known = build.flags if build.kind != "embedded" else None
    off = ("--fit", "off") if known is None or "--fit" in known else ()
    names = dict(zip(room.gpus, room.engine_names, strict=True))
    if step.cpu or gpus.degraded or (layout.placed and names and not layout.run.gpus):
        return ("--gpu-layers", "0", *(("--device", "none") if known and "--device" in known else ()), *off)
    asked = () if model.gpu_layers == "auto" else ("--gpu-layers", str(model.gpu_layers))
    if not layout.placed:
        return (*asked, *_unplaced(model, known, gpus))
    if not names:
        return (*asked, *off)
    layers = layout.on_gpus if layout.on_gpus is not None else _ALL
    return ("--gpu-layers", str(layers), *_devices(model, known, layout, names, gpus), *off)


def _unplaced(model: ModelSettings, known: Mapping[str, int] | None, gpus: Gpus) -> tuple[str, ...]:
    """What settings say of GPUs whose memory is not known."""
    if not gpus.listed:
        return ()
    restricted = len(gpus.listed) < len(gpus.every) or bool(model.devices)
    by_name = restricted and known is not None and "--device" in known and not flags_of_remotes(model)
    device = ("--device", ",".join(one.name for one in gpus.listed)) if by_name else ()
    how = "layer" if model.split == "row" and not gpus.rows else model.split
    split = ("--split-mode", how) if how is not None else ()
    shares = ",".join(f"{share:g}" for share in model.tensor_split)
    return (*device, *split, *(("--tensor-split", shares) if shares and model.split != "none" else ()))


def _devices(
    model: ModelSettings, known: Mapping[str, int] | None, layout: Layout, names: Mapping[str, str], gpus: Gpus
) -> tuple[str, ...]:
    used = layout.run.gpus
    shares = dict(zip(used, layout.run.split, strict=True)) if len(used) > 1 else {}
    row = ("--split-mode", "row") if model.split == "row" and gpus.rows and len(used) > 1 else ()
    # A remote device has its name only after --rpc, which stands in `args`, behind this.
    if known is not None and "--device" in known and not flags_of_remotes(model):
        split = ("--tensor-split", _shares(shares.values())) if shares else ()
        return ("--device", ",".join(names[gpu] for gpu in used), *row, *split)
    ours = {engines: gpu for gpu, engines in names.items()}
    every = gpus.every or tuple(names.values())
    if len(every) > 1 and len(used) == 1:
        return ("--split-mode", "none", "--main-gpu", str(every.index(names[used[0]])))
    return (*row, "--tensor-split", _shares(shares.get(ours.get(name, ""), 0.0) for name in every)) if shares else row


def _shares(shares: Iterable[float]) -> str:
    """As the engine is told; the room of devices in MiB, or numbers of one's own."""
    found = tuple(shares)
    return ",".join(f"{share / (1 << 20):.0f}" if max(found) >= 1 << 20 else f"{share:g}" for share in found)
