"""The doctor's look at the machine: hardware, directories, disk, limits."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from corral.cli.finding import Finding
from corral.config.paths import Paths
from corral.hardware.gpus import Gpu
from corral.hardware.memory import parse_mountinfo
from corral.hardware.probe import Hardware, probe
from corral.units import show_bytes

LITTLE_MEMORY = 2 << 30
LITTLE_DISK = 5 << 30
NO_DISK = 256 << 20
FEW_FILES = 1024
SOCKET_PATH_BYTES = 103
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs"})


def machine() -> list[Finding]:
    """Processor, memory and graphics processors."""
    return describe(probe())


def describe(hardware: Hardware) -> list[Finding]:
    """The findings about `hardware`. Pure."""
    cpu, memory = hardware.cpu, hardware.memory
    cores = f"{cpu.physical} cores" + (f", {cpu.logical} threads" if cpu.logical != cpu.physical else "")
    less = f"; {cpu.usable:g} usable here" if cpu.usable < cpu.logical else ""
    found = [
        Finding("machine", "system", "ok", f"{hardware.system}, Python {sys.version.split()[0]}"),
        Finding("machine", "cpu", "ok", f"{cpu.model or cpu.architecture}, {cores}{less}"),
    ]
    if cpu.architecture in ("x86_64", "AMD64") and cpu.features and "avx2" not in cpu.features:
        slow = "without AVX2 models on the processor are slow"
        found.append(Finding("machine", "cpu features", "warn", slow, "no command can help; use a GPU"))
    if memory is not None:
        text = f"{show_bytes(memory.total_bytes)}, {show_bytes(memory.available_bytes)} free"
        if memory.limit_bytes is not None:
            text += f", limited to {show_bytes(memory.limit_bytes)} by {memory.limit_from}"
        small = memory.usable_bytes < LITTLE_MEMORY
        fix = "choose models below 1 GiB, or raise the limit of the container" if small else ""
        found.append(Finding("machine", "memory", "warn" if small else "ok", text, fix))
    found += [_gpu(gpu) for gpu in hardware.gpus]
    if not hardware.gpus:
        found.append(Finding("machine", "gpu", "ok", "none: models run on the processor"))
    return found + [Finding("machine", "probe", "warn", note) for note in hardware.notes]


def _gpu(gpu: Gpu) -> Finding:
    words = [gpu.name]
    if gpu.memory_bytes is not None:
        free = f", {show_bytes(gpu.free_bytes)} free" if gpu.free_bytes is not None else ""
        words.append(show_bytes(gpu.memory_bytes) + free)
    words += [word for word in (gpu.driver, gpu.node) if word]
    if (wrong := gpu.problem or gpu.doubt) is None:
        return Finding("machine", "gpu", "ok", ", ".join(words))
    return Finding("machine", "gpu", "warn", f"{', '.join(words)}: {wrong}", _gpu_fix(gpu, wrong))


def _gpu_fix(gpu: Gpu, problem: str) -> str:
    if "may not open" in problem:
        return "sudo usermod -aG render,video $USER   (then log in again)"
    if "no driver" in problem and gpu.vendor == "nvidia":
        return "install NVIDIA's driver: sudo apt-get install nvidia-driver (Debian: non-free), then restart"
    if "/dev/kfd" in problem:
        return "sudo modprobe amdgpu"
    if "container" in problem:
        return "start the container with its device: --device nvidia.com/gpu=all, or --device /dev/dri"
    return "see: lspci -k"


def places(paths: Paths) -> list[Finding]:
    """The directories Corral writes to: writable, local, with room, and short enough for sockets."""
    found = []
    for name, directory, needed in (
        ("state", paths.state_dir, True),
        ("runtime", paths.runtime_dir, True),
        ("cache", paths.cache_dir, False),
        ("config", paths.config_dir, False),
    ):
        there = _existing(directory)
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            found.append(Finding("places", name, "ok", str(directory)))
        else:
            fix = f"sudo chown -R $USER {there}   (or set CORRAL_{name.upper()}_DIR)"
            found.append(Finding("places", name, "error" if needed else "warn", f"{there} is not writable", fix))
    if (kind := _remote_kind(paths.state_dir)) is not None:
        text = f"the state directory is on a network mount ({kind}): locks and sockets do not work there"
        found.append(Finding("places", "state", "error", text, "export CORRAL_STATE_DIR=/var/tmp/corral-$USER"))
    longest = len(os.fsencode(paths.units_dir)) + 32
    if longest > SOCKET_PATH_BYTES:
        text = f"{paths.runtime_dir} is too long for sockets ({longest} of {SOCKET_PATH_BYTES} bytes)"
        found.append(Finding("places", "runtime", "error", text, "export CORRAL_RUNTIME_DIR=/tmp/corral-$USER"))
    return [*found, _disk(paths), _files()]


def _disk(paths: Paths) -> Finding:
    there = _existing(paths.state_dir)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("places", "disk", "warn", f"cannot be measured: {error.strerror}", "df -h")
    text = f"{show_bytes(free)} free for {there}"
    if free < NO_DISK:
        return Finding("places", "disk", "error", text, "free some space: df -h; du -xh --max-depth=2 ~ | sort -h")
    level = "warn" if free < LITTLE_DISK else "ok"
    return Finding("places", "disk", level, text, "df -h" if level == "warn" else "")  # type: ignore[arg-type]


def _files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{'no limit' if soft == resource.RLIM_INFINITY else soft} open files at once"
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        better = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        return Finding("places", "files", "warn", text, f"ulimit -n {better}")
    return Finding("places", "files", "ok", text)


def _existing(directory: Path) -> Path:
    """`directory`, or the nearest one above it that exists."""
    return next((each for each in (directory, *directory.parents) if each.exists()), Path("/"))


def _remote_kind(directory: Path) -> str | None:
    """The kind of file system, when it is one that other machines serve. Linux only; elsewhere None."""
    try:
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    real = _existing(directory).resolve()
    over = [mount for mount in mounts if real.is_relative_to(mount.point)]
    kind = max(over, key=lambda mount: len(Path(mount.point).parts)).kind if over else ""
    return kind if kind in _REMOTE else None
