"""What an engine sees of our own environment: an allow-list, so that no secret gets there by accident."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Where programs, libraries and scratch space are; who and where the user is.
_PLACES = {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE"}
_PLACES |= {"SSL_CERT_DIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"}
# Which devices and threads an engine may use, as the machine's owner set them for every program.
_DEVICES = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
_DEVICES |= {"ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "GGML_VK_VISIBLE_DEVICES", "VK_ICD_FILENAMES"}
_DEVICES |= {"VK_ADD_DRIVER_FILES", "VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE", "MESA_VK_DEVICE_SELECT"}
_DEVICES |= {"ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL", "XDG_DATA_DIRS", "XDG_DATA_HOME", "XDG_CONFIG_DIRS"}
_DEVICES |= {"XDG_CONFIG_HOME"}  # where Vulkan's loader looks for drivers
_DEVICES |= {"VK_DRIVER_FILES", "ONEAPI_DEVICE_SELECTOR", "ZES_ENABLE_SYSMAN", "OMP_NUM_THREADS"}

ALLOWED = frozenset(_PLACES | _DEVICES)
"""Names that are passed on when they are set. Everything else an engine needs is in its plan."""

ALWAYS = {"GGML_NO_BACKTRACE": "1"}
"""A dying llama.cpp would have a debugger look at it first: that takes long, and its last words would be the
debugger's."""


def engine_environment(plan_env: Mapping[str, str], inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of an engine: the plan's, over what is allowed of ours."""
    inherited = os.environ if inherited is None else inherited
    return ALWAYS | {name: inherited[name] for name in sorted(ALLOWED) if name in inherited} | dict(plan_env)


_PLACES_OF_DRIVERS = {"VK_ICD_FILENAMES", "VK_DRIVER_FILES"}


def container_environment(plan_env: Mapping[str, str], inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """An engine's environment inside a container, beside its image's: nothing that names places of this machine."""
    inherited = os.environ if inherited is None else inherited
    passed = {name: inherited[name] for name in sorted(_DEVICES - _PLACES_OF_DRIVERS) if name in inherited}
    return {"HOME": "/tmp"} | ALWAYS | passed | dict(plan_env)
