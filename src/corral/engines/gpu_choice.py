"""Which of the GPUs that an engine lists a model may use: by backend, by name, and by what its variables hide. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from corral.config.settings import GpuBackend, ModelSettings
from corral.engines.placement import Room
from corral.hardware.devices import Listed

WITHOUT_VULKAN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "GGML_DISABLE_VULKAN": "1",
        "GGML_VK_VISIBLE_DEVICES": "",
        "VK_LOADER_DRIVERS_DISABLE": "*",
        "VK_DRIVER_FILES": os.devnull,
        "VK_ICD_FILENAMES": os.devnull,
    }
)
"""The environment of an engine that must not load Vulkan's drivers. The first two are llama.cpp's, for a backend that
is part of the program and for one that is a library of its own; the others keep Vulkan's loader, an old one too, from
opening a driver that may be what hangs."""

HIDDEN: Final[Mapping[str, str]] = MappingProxyType(
    {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", **WITHOUT_VULKAN}
)
"""The environment of an engine that must not touch GPUs."""

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "vulkan": ("Vulkan",),
    "cuda": ("CUDA",),
    "rocm": ("ROCm", "HIP"),
    "metal": ("Metal", "MTL"),
    "sycl": ("SYCL",),
}
"""What llama.cpp calls the devices of each backend. Source: llama.cpp build 11434, ggml/src/ggml-*."""

_REMOTE: Final = "RPC"
_NOBODY: Final = ("none", "void", "")


def of_backend(listed: Sequence[Listed], backend: GpuBackend) -> tuple[Listed, ...]:
    """Those that are reached through `backend`, and those of other machines."""
    if backend == "auto":
        return tuple(listed)
    if backend == "not-vulkan":
        return tuple(one for one in listed if not one.name.startswith("Vulkan"))
    return tuple(one for one in listed if one.name.startswith((*_NAMES[backend], _REMOTE)))


def variables(model: ModelSettings, *, contained: bool) -> Mapping[str, str]:
    """What `model`'s engine gets beside its `env`, so that what is said there means the same without a container too.

    NVIDIA_VISIBLE_DEVICES tells a container's runtime which GPUs to hand in; CUDA itself does not know it. Numbers mean
    nothing any more within a container (`contained`), where those that were handed in are counted anew.
    """
    more: dict[str, str] = dict(WITHOUT_VULKAN) if model.gpu_backend == "not-vulkan" else {}
    asked = model.env.get("NVIDIA_VISIBLE_DEVICES")
    if asked is not None and asked != "all" and "CUDA_VISIBLE_DEVICES" not in model.env:
        if asked.strip() in _NOBODY:
            more["CUDA_VISIBLE_DEVICES"] = "-1"
        elif not contained or asked.startswith(("GPU-", "MIG-")):
            more["CUDA_VISIBLE_DEVICES"] = asked
    return more


def wish(model: ModelSettings) -> str:
    """What of `model`'s settings asks for a GPU, in words; "" where it is content with the processor."""
    if model.gpu_layers == 0:
        return ""
    if model.gpu_backend not in ("auto", "not-vulkan"):
        return f"gpu_backend is {model.gpu_backend}"
    if model.devices:
        return f"devices is {', '.join(model.devices)}"
    if model.gpu_layers != "auto":
        return f"gpu_layers is {model.gpu_layers}"
    if model.gpu_backend == "not-vulkan":
        return ""  # whoever turned Vulkan off does not ask for it by naming its drivers
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "GGML_VK_VISIBLE_DEVICES"):
        if model.env.get(name):
            return f"{name} is {model.env[name]}"
    return ""


def chosen(room: Room, devices: Sequence[str]) -> tuple[Room, tuple[str, ...]]:
    """`room` with the GPUs that `devices` names, in that order, and the names that are nobody's."""
    if not devices or not room:
        return room, ()
    by_name = dict(zip(room.gpus, room.engine_names, strict=True))
    ours = {engines: gpu for gpu, engines in by_name.items()}
    found = {name: name if name in by_name else ours.get(name) for name in devices}
    kept = tuple(dict.fromkeys(gpu for gpu in found.values() if gpu is not None))
    missing = tuple(name for name, gpu in found.items() if gpu is None)
    sizes = {"cpu": room.bytes_by_device["cpu"], **{gpu: room.bytes_by_device[gpu] for gpu in kept}}
    return replace(
        room,
        bytes_by_device=MappingProxyType(sizes),
        engine_names=tuple(by_name[gpu] for gpu in kept),
        shared=tuple(gpu for gpu in room.shared if gpu in kept),
    ), missing


def may_split_rows(engine_names: Sequence[str]) -> bool:
    """Whether nothing speaks against splitting matrices by rows over these. An engine that cannot refuses to start, and
    no build can over Vulkan, Metal or the network. Source: llama.cpp build 11434, `make_gpu_buft_list`."""
    never = (*_NAMES["vulkan"], *_NAMES["metal"], _REMOTE)
    return not any(name.startswith(never) for name in engine_names)


def alone(room: Room) -> Room:
    """`room` with the processor and the GPU that has most of it: for a model that is not to be split."""
    if len(room.gpus) < 2:
        return room
    return chosen(room, (max(room.gpus, key=lambda name: room.bytes_by_device[name]),))[0]


def processor(room: Room) -> Room:
    """`room` without GPUs."""
    if not room.gpus:
        return room
    return replace(
        room, bytes_by_device=MappingProxyType({"cpu": room.bytes_by_device["cpu"]}), engine_names=(), shared=()
    )
