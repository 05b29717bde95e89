"""`make engines`, `make vulkan`: has llama-server built in the user's cache directory, once, as
`corral engine install llama.cpp` does; the Debian packages that it needs are installed where that is allowed."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time

from corral.config.paths import find_paths
from corral.environments.child import Step
from corral.environments.llama_server import VARIANTS, build, missing_packages, version
from corral.errors import CorralError


def need_packages(variant: str, *, build: bool) -> None:
    """Makes sure that what the build and its tests need is here: through apt as root, else says what is missing."""
    missing = missing_packages(variant, tests=True)
    if not missing:
        return
    words = "apt-get install --yes --no-install-recommends " + " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        if not build:
            return
        sys.exit(f"error: building llama-server needs {', '.join(missing)}\nhint: as root: {words}")
    print(f"  {words}", flush=True)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], words.split()):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"error: {' '.join(command)}: exit code {done.returncode}\nhint: as root: {words}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds llama-server into the user's cache directory, once.")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="cpu")
    variant = parser.parse_args().variant
    phases: list[str] = []

    def say(step: Step) -> None:
        if step.phase not in phases:
            phases.append(step.phase)
            print(f"llama-server {version()}: {step.phase} {step.text}".rstrip(), flush=True)

    began = time.monotonic()
    cache = find_paths().cache_dir
    place = cache / "engines" / "llama.cpp" / f"{version()}{VARIANTS[variant].suffix}"
    need_packages(variant, build=not (place / "bin" / "llama-server").exists())
    try:
        done = build(cache, variant, say)
    except CorralError as error:
        tail = error.details.get("log_tail") or []
        print("\n".join([*tail, f"error: {error}", f"hint: {error.hint}"]), file=sys.stderr)
        return 1
    took = f" ({time.monotonic() - began:.0f} s)" if done.made else ""
    print(f"llama-server {done.version} is at {done.program}{took}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
