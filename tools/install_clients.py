"""`make clients`: installs clients that tests use and that are not in the project's own environment: JavaScript's, and
LiteLLM, which wants older versions of what is there.

The places are `<cache>/clients/<hash of the lock>/`, with `node_modules` in it or a virtual environment; what is there
already is found again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tools.own_python import installed

from corral.config.paths import find_paths

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests" / "clients" / "npm"
PYTHON_LOCK = ROOT / "requirements" / "clients.txt"
FILES = ("package.json", "package-lock.json")


def place() -> Path:
    """Where the clients of the present lock file are, or would be."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    return find_paths().cache_dir / "clients" / hashlib.sha256(lock).hexdigest()[:16]


def python_place() -> Path:
    """The same for Python's."""
    return find_paths().cache_dir / "clients" / f"py-{hashlib.sha256(PYTHON_LOCK.read_bytes()).hexdigest()[:16]}"


def install_python() -> int:
    if not installed(python_place(), PYTHON_LOCK):
        return 1
    print(f"the Python clients are at {python_place()}")
    return 0


def main() -> int:
    return install_python() or install_javascript()


def install_javascript() -> int:
    target = place()
    if (target / "node_modules").is_dir():
        print(f"the clients are at {target}")
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("error: npm is not here\nhint: install Node.js 20 or later with its npm", file=sys.stderr)
        return 1
    making = target.with_name(f"{target.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for name in FILES:
        shutil.copy(SOURCE / name, making)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=making, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        print(f"error: npm ci: exit code {done.returncode}\nhint: its words are above", file=sys.stderr)
        return 1
    making.rename(target)
    print(f"the clients are at {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
