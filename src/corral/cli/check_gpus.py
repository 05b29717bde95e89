"""The doctor's look at what opens GPUs: device nodes with who may open them, Vulkan's loader, and its drivers."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from corral.cli.finding import Finding, install
from corral.hardware.vulkan import LOADER, nodes, read_vulkan


def drivers(env: Mapping[str, str] | None = None, root: Path = Path("/")) -> list[Finding]:
    """Device nodes, and Vulkan as engines would find it. Reads files only."""
    return [*(_node(path, root) for path in nodes(root)), *vulkan(env, root)]


def vulkan(env: Mapping[str, str] | None = None, root: Path = Path("/")) -> list[Finding]:
    """The loader, then each driver's manifest, wrong ones as warnings."""
    found = read_vulkan(env, root)
    if found.loader is None:
        fix = install("libvulkan1 mesa-vulkan-drivers", brew="vulkan-loader")
        return [Finding("gpus", "vulkan", "missing", f"{LOADER} is not there: engines cannot use Vulkan", fix)]
    by = f" (only these: {found.chosen_by})" if found.chosen_by else ""
    if not found.icds:
        fix = install("mesa-vulkan-drivers", brew="molten-vk")
        return [Finding("gpus", "vulkan", "missing", f"{found.loader}, but no driver (ICD file){by}", fix)]
    good = [icd for icd in found.icds if icd.problem is None]
    names = ", ".join(dict.fromkeys(icd.name for icd in good)) or "none that can be used"
    told = [Finding("gpus", "vulkan", "ok", f"{found.loader}; drivers: {names}{by}")]
    if not good:
        fix = f"correct {found.chosen_by}, or unset it" if found.chosen_by else install("mesa-vulkan-drivers")
        told = [Finding("gpus", "vulkan", "warn", f"{found.loader}; drivers: {names}{by}", fix)]
    for icd in found.icds:
        fix = f"correct {found.chosen_by}, or unset it" if found.chosen_by else "install its driver again, or remove it"
        if icd.problem is None:
            told.append(Finding("gpus", "vulkan driver", "ok", f"{icd.manifest} ({icd.library})"))
        else:
            told.append(Finding("gpus", "vulkan driver", "warn", f"{icd.manifest} {icd.problem}", fix))
    return told


def _node(path: Path, root: Path) -> Finding:
    shown = f"/{path.relative_to(root)}"
    try:
        status = path.stat()
    except OSError as error:
        return Finding("gpus", "device", "warn", f"{shown} cannot be looked at: {error.strerror}", f"ls -l {shown}")
    group = _group(status.st_gid)
    text = f"{shown}, {stat.filemode(status.st_mode)}, group {group}"
    if os.access(path, os.R_OK | os.W_OK):
        return Finding("gpus", "device", "ok", text)
    may = bool(status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP)
    named = group in ("render", "video") or (may and group != "root")
    fix = f"sudo usermod -aG {group} $USER   (then log in again)" if named else f"sudo chgrp render {shown}"
    return Finding("gpus", "device", "warn", f"{text}: this user may not open it", fix)


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
