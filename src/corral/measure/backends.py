"""Which ways one model can be served on this machine: the processor, and each GPU backend of each llama.cpp. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from corral.engines.gpu_choice import HIDDEN
from corral.lazy_dataclass import dataclass

ENV: Final = frozenset(
    (
        "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES", "GGML_VK_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR", "HSA_OVERRIDE_GFX_VERSION",
    )
)  # fmt: skip
"""What of an engine's environment says which devices there are."""

_KEPT: Final = (
    "--threads", "-t", "--threads-batch", "-tb", "--batch-size", "-b", "--ubatch-size", "-ub", "--flash-attn", "-fa",
    "--cache-type-k", "-ctk", "--cache-type-v", "-ctv",
)  # fmt: skip

_BACKENDS: Final = {
    "Vulkan": "vulkan", "CUDA": "cuda", "ROCm": "rocm", "HIP": "rocm", "Metal": "metal", "MTL": "metal", "SYCL": "sycl",
}  # fmt: skip
"""By how the engine's names of devices begin; those of other machines (RPC) are none of this one."""
_SOFTWARE: Final = ("llvmpipe", "lavapipe", "swiftshader")


class Listed(Protocol):
    """An engine as `corral engine list` has it."""

    @property
    def state(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def devices(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Way:
    """One way to serve the model."""

    name: str
    program: str  # "embedded", or a path
    backend: str | None  # none: the processor
    devices: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Keys of a model's entry in `models.yaml`."""
        if self.backend is None:
            # Without layers on it, llama.cpp still computes long prompts on a GPU that it sees.
            return {"executable": self.program, "gpu_layers": 0, "env": dict(HIDDEN)}
        return {"executable": self.program, "gpu_backend": self.backend}

    @property
    def words(self) -> str:
        return f"{self.program}, {', '.join(self.devices) or 'the processor'}"

    @property
    def software(self) -> bool:
        """Whether all of its devices are played by the processor."""
        told = [each.casefold() for each in self.devices]
        return bool(told) and all(any(word in each for word in _SOFTWARE) for each in told)


def ways_of(engines: Sequence[Listed], own: str) -> list[Way]:
    """The processor with the model's own engine first, then each engine that reaches a GPU, with the processor too.

    `own` is "embedded" or the model's own program. Each backend of a program is one way.
    """
    by_program: dict[str, tuple[str, ...]] = {own: ()}
    for each in engines:
        if not each.state.startswith("broken"):
            by_program.setdefault("embedded" if each.state == "embedded" else each.path, ())
            by_program["embedded" if each.state == "embedded" else each.path] = tuple(each.devices)
    kept = {program: of for program, devices in by_program.items() if (of := _by_backend(devices)) or program == own}
    found: list[Way] = []
    taken: set[str] = set()
    for program, backends in kept.items():
        found.append(Way(_named("cpu", taken), program, None))
        found += [Way(_named(backend, taken), program, backend, names) for backend, names in backends.items()]
    return found


def _by_backend(devices: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for device in devices:
        match = re.match(r"([A-Za-z]+)\d+: ", device)
        if match and (backend := _BACKENDS.get(match[1])) is not None:
            found[backend] = (*found.get(backend, ()), device)
    return found


def _named(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found


def kept_flags(argv: Sequence[str]) -> list[str]:
    """Of an engine's command line, what makes it faster or slower on any device, with its value."""
    found: list[str] = []
    for flag, value in pairwise(argv):
        if flag in _KEPT:
            found += [flag, value]
    return found


def file_of(argv: Sequence[str]) -> str | None:
    """The model's file in an engine's command line."""
    for flag in ("--model", "-m"):
        if flag in argv[:-1]:
            return argv[list(argv).index(flag) + 1]
    return None
