"""Graphics processors, by what the kernel shows of them: PCI devices, their drivers and their device nodes.

No driver library is loaded here: a broken one takes its process down.
"""

from __future__ import annotations

import os
from pathlib import Path

from corral.lazy_dataclass import dataclass

VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380")
_VIRTUAL = frozenset({"0x1af4", "0x1234", "0x1b36", "0x15ad", "0x1414", "0x80ee"})
"""Screens of virtual machines: they show a console and compute nothing."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One graphics processor. `problem` says why it cannot be used as things are; None = nothing speaks against it."""

    vendor: str  # "nvidia", "amd", "intel", "apple", or the PCI vendor's number
    name: str
    driver: str | None
    node: str | None  # the device file that opens it
    memory_bytes: int | None = None  # None = nothing told yet; drivers are asked elsewhere
    free_bytes: int | None = None
    problem: str | None = None
    doubt: str | None = None  # what does not work, although it can be used
    address: str | None = None  # PCI
    shared: bool = False  # its memory is the machine's own
    source: str = ""  # who told of its memory


def parse_nvidia_information(text: str) -> dict[str, str]:
    """A `/proc/driver/nvidia/gpus/*/information` file, by field name."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def read_gpus(root: Path = Path("/")) -> list[Gpu]:
    """Every graphics processor that the kernel shows under `root`, in the order of their PCI addresses."""
    nvidia = _nvidia(root)
    found = list(nvidia.values())
    for device in _sorted(root / "sys/bus/pci/devices"):
        vendor = _text(device / "vendor")
        if not _text(device / "class").startswith(_DISPLAY_CLASSES) or vendor in _VIRTUAL or device.name in nvidia:
            continue
        found.append(_pci(root, device, VENDORS.get(vendor, vendor)))
    return found


def contained(root: Path = Path("/")) -> bool:
    """Whether this is a container, by the files that Docker and Podman leave in theirs."""
    return any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))


def _nvidia(root: Path) -> dict[str, Gpu]:
    gpus = {}
    for directory in _sorted(root / "proc/driver/nvidia/gpus"):
        told = parse_nvidia_information(_text(directory / "information"))
        node = f"/dev/nvidia{told.get('Device Minor', '0')}"
        version = _text(root / "sys/module/nvidia/version")
        driver = f"nvidia {version}".strip()
        name, problem = told.get("Model", "NVIDIA GPU"), _closed(root, node, "nvidia")
        gpus[directory.name] = Gpu("nvidia", name, driver, node, problem=problem, address=directory.name)
    return gpus


def _pci(root: Path, device: Path, vendor: str) -> Gpu:
    driver = (device / "driver").resolve().name if (device / "driver").exists() else None
    render = next((each.name for each in _sorted(device / "drm") if each.name.startswith("renderD")), None)
    node = f"/dev/dri/{render}" if render else None
    if driver is None or driver == "vfio-pci":
        problem: str | None = "no driver for it is loaded" if driver is None else "it is reserved for a virtual machine"
    elif node is None:
        problem = "its driver gives it no device node"
    else:
        problem = _closed(root, node, vendor)
    without = problem is None and vendor == "amd" and not (root / "dev/kfd").exists()
    doubt = "there is no /dev/kfd: Vulkan works, ROCm does not" if without else None
    name = f"{vendor.upper()} {_text(device / 'device')} at {device.name}"
    return Gpu(vendor, name, driver, node, problem=problem, doubt=doubt, address=device.name)


def _closed(root: Path, node: str, vendor: str) -> str | None:
    path = root / node.lstrip("/")
    if not path.exists():
        return f"there is no {node} here (a container is given it on start)"
    return None if os.access(path, os.R_OK | os.W_OK) else f"this user may not open {node}"


def _sorted(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
