"""What there is of Vulkan: its loader, and the drivers' manifests (ICD files) in the order in which the loader looks.

Only files are read; no driver is loaded. Source: Khronos Vulkan-Loader, docs/LoaderDriverInterface.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from corral.lazy_dataclass import dataclass

LOADER: Final = "libvulkan.so.1"
CHOOSERS: Final = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
"""Variables that name the only manifests that count, the stronger one first."""

_LONGEST: Final = 1 << 16
_LIBRARIES: Final = ("usr/local/lib", "usr/lib", "lib", "usr/lib64", "lib64")


@dataclass(frozen=True, slots=True)
class Icd:
    """One driver's manifest. `problem` says why the loader cannot use it, as far as files tell."""

    manifest: Path
    library: str = ""
    problem: str | None = None

    @property
    def name(self) -> str:
        """What people call the driver, from its manifest's name: `radeon`, `lvp`, `nvidia` …"""
        return self.manifest.name.partition(".")[0].removesuffix("_icd")


@dataclass(frozen=True, slots=True)
class Vulkan:
    """`chosen_by` is the variable that names the manifests, where one does."""

    loader: Path | None
    icds: tuple[Icd, ...]
    chosen_by: str = ""

    @property
    def why_none(self) -> str | None:
        """Why no Vulkan device can be found here; None where nothing speaks against it."""
        if self.loader is None:
            return f"Vulkan's loader, {LOADER}, is not there"
        if not self.icds:
            return f"{self.chosen_by} names no driver" if self.chosen_by else "no Vulkan driver (ICD file) is there"
        wrong = [each for each in self.icds if each.problem is not None]
        if len(wrong) < len(self.icds):
            return None
        by = f", which {self.chosen_by} names," if self.chosen_by else ""
        return f"{wrong[0].manifest}{by} {wrong[0].problem}"


def read_vulkan(env: Mapping[str, str] | None = None, root: Path = Path("/")) -> Vulkan:
    """What a program with the environment `env` (ours) would find, seen through the files under `root`."""
    env = os.environ if env is None else env
    chosen = chosen_by(env)
    return Vulkan(_loader(env, root), tuple(read_icd(each, root) for each in manifests(env, root)), chosen)


def chosen_by(env: Mapping[str, str]) -> str:
    """The variable that says which manifests count; "" where they are looked for."""
    return next((name for name in CHOOSERS if env.get(name)), "")


def manifests(env: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Every manifest that counts, those named by a variable whether they are there or not."""
    name = chosen_by(env)
    if name:
        return list(_named(env[name], root))
    found = list(_named(env.get("VK_ADD_DRIVER_FILES", ""), root))
    for folder in _folders(env):
        found += _in_folder(_under(root, folder))
    return list(dict.fromkeys(found))


def _named(text: str, root: Path) -> Iterator[Path]:
    for part in text.split(os.pathsep):
        if part:
            path = _under(root, part)
            yield from _in_folder(path) if path.is_dir() else [path]


def _folders(env: Mapping[str, str]) -> Iterator[str]:
    home = env.get("HOME", "")
    places = [
        env.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else ""),
        *(env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep),
        "/usr/local/etc",
        "/etc",
        env.get("XDG_DATA_HOME") or (f"{home}/.local/share" if home else ""),
        *(env.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep),
    ]
    yield from (f"{place}/vulkan/icd.d" for place in dict.fromkeys(places) if place)


def _in_folder(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.suffix == ".json")
    except OSError:
        return []


def read_icd(manifest: Path, root: Path = Path("/")) -> Icd:
    """One manifest, and whether what it names is there."""
    try:
        with manifest.open("rb") as file:
            told = json.loads(file.read(_LONGEST))["ICD"]
            library = told["library_path"]
            if not isinstance(library, str) or not library:
                raise TypeError
    except FileNotFoundError:
        return Icd(manifest, problem="is not there")
    except OSError as error:
        return Icd(manifest, problem=f"cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError):
        return Icd(manifest, problem="is no driver's manifest: it names no library")
    if "/" in library:  # a bare name is the dynamic linker's affair
        path = _under(root, library) if library.startswith("/") else manifest.parent / library
        if not path.exists():
            return Icd(manifest, library, f"names a library that is not there: {library}")
    return Icd(manifest, library)


def signs(env: Mapping[str, str] | None = None, root: Path = Path("/")) -> tuple[object, ...]:
    """Something that differs once a GPU or a driver has come or gone: device nodes, and manifests with their age."""
    env = os.environ if env is None else env
    found: list[object] = [str(each) for each in nodes(root)]
    for manifest in manifests(env, root):
        try:
            status = manifest.stat()
        except OSError:
            continue
        found.append((str(manifest), status.st_mtime_ns, status.st_size))
    return tuple(found)


def nodes(root: Path = Path("/")) -> list[Path]:
    """The files through which GPUs are opened here: they come and go with the GPUs."""
    found: list[Path] = []
    for folder, pattern in (
        ("dev/dri", "renderD*"), ("dev", "nvidia[0-9]*"), ("dev", "nvidiactl"), ("dev", "kfd"), ("dev", "dxg"),
    ):  # fmt: skip
        found += sorted((root / folder).glob(pattern))
    return found


def _loader(env: Mapping[str, str], root: Path) -> Path | None:
    folders = [_under(root, part) for part in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    for name in _LIBRARIES:
        folders += [root / name, *sorted((root / name).glob("*-linux-*"))]
    return next((path for folder in folders if (path := folder / LOADER).exists()), None)


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/") if path.startswith("/") else Path(path)
