"""What a sandboxed engine is run by: a plan in, the same plan under `bwrap` out. Pure.

Inside there is no network, no other process, nothing to write to but its own socket's folder and memory, and of this
machine's files only programs, libraries, and what the engine's arguments name.

Source: bwrap(1), bubblewrap 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final

from corral.engines.plan import LaunchPlan
from corral.lazy_dataclass import dataclass

NAME: Final = "bubblewrap"

SYSTEM: Final = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
"""Programs, libraries, and what the processor is like; those that are there."""

GPU_FILES: Final = ("/etc/vulkan", "/etc/OpenCL", "/etc/nvidia", "/opt/rocm", "/sys/bus", "/sys/class", "/sys/dev",
                    "/sys/devices")  # fmt: skip
GPU_NODES: Final = (
    "/dev/dri", "/dev/kfd", "/dev/dxg", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset", "/dev/nvidia-caps", *(f"/dev/nvidia{number}" for number in range(16)),
)  # fmt: skip
"""Seen by engines that are planned for a GPU only."""

_WRITABLE_FLAGS: Final = ("--slot-save-path",)
_DRIVER_VARIABLES: Final = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES", "LD_LIBRARY_PATH")
_KEPT_APART: Final = ("TERM", "INT")


@dataclass(frozen=True, slots=True)
class Host:
    """What the wrapping needs to know of this machine."""

    bwrap: str  # the program's path
    env: str  # coreutils' `env`, 8.31 or newer
    apart: tuple[str, ...]  # bwrap's words for what it keeps the engine from
    programs: tuple[Path, ...]  # folders of the engine and of Python


def wrap(plan: LaunchPlan, host: Host, env: Mapping[str, str]) -> LaunchPlan:
    """`plan` under bwrap. `env` is what the engine's environment will be.

    TERM goes to the whole group, and bwrap would end of it, and its engine with it, before that could end in order: so
    bwrap itself ignores it. How the engine ends is then bwrap's own exit code: see `exit_of`.
    """
    words = (
        host.env, f"--ignore-signal={','.join(_KEPT_APART)}",
        host.bwrap, *host.apart, *_files(plan, host, env), "--remount-ro", "/", "--chdir", "/tmp",
        "--setenv", "TMPDIR", "/tmp", "--",
        host.env, f"--default-signal={','.join(_KEPT_APART)}",
        *plan.argv,
    )  # fmt: skip
    return replace(plan, argv=words, sandbox=NAME)


def exit_of(code: int) -> tuple[int | None, int | None]:
    """Code and signal of the engine, from the code that bwrap ends with."""
    return (None, code - 128) if 128 < code < 128 + 65 else (code, None)


def _files(plan: LaunchPlan, host: Host, env: Mapping[str, str]) -> tuple[str, ...]:
    words = [word for path in SYSTEM for word in ("--ro-bind-try", path, path)]
    # Without the bind, root could write to sysctls, which ask for the user and for no capability.
    words += ["--proc", "/proc", "--ro-bind-try", "/proc/sys", "/proc/sys", "--dev", "/dev", "--tmpfs", "/tmp"]
    if any(device.startswith("gpu") for device in plan.devices):
        words += [word for path in GPU_FILES for word in ("--ro-bind-try", path, path)]
        words += [word for path in GPU_NODES for word in ("--dev-bind-try", path, path)]
    read, write = _named(plan), _written(plan)
    drivers = [each for name in _DRIVER_VARIABLES for each in env.get(name, "").split(":") if each.startswith("/")]
    there = [*SYSTEM]
    seen = [str(each) for each in (*host.programs, *drivers, *(mount.source for mount in plan.mounts), *read)]
    for path in sorted(dict.fromkeys(seen), key=lambda path: len(PurePath(path).parts)):
        if path in write or any(PurePath(path).is_relative_to(each) for each in there):
            continue
        there.append(path)
        words += ["--ro-bind-try", path, path]
    for path in write:
        words += ["--bind-try", path, path]
    return tuple(words)


def _named(plan: LaunchPlan) -> Iterator[str]:
    """Paths in the engine's arguments: the model, projectors, adapters, templates."""
    own = str(plan.endpoint.socket)
    for word in plan.argv:
        value = word.partition("=")[2] if word.startswith("--") else word
        if value.startswith("/") and value not in ("/", own):
            yield value


def _written(plan: LaunchPlan) -> list[str]:
    places = [str(plan.endpoint.socket.parent)] if plan.endpoint.socket is not None else []
    places += [value for flag, value in zip(plan.argv, plan.argv[1:], strict=False) if flag in _WRITABLE_FLAGS]
    return list(dict.fromkeys(places))
