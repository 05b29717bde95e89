"""A Python environment of its own for what tests use beside the project's, from a lock file; found again."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path


def installed(target: Path, lock: Path) -> bool:
    """Has `target` hold what `lock` says; False, with the reason told, where that failed. The file `whole` in it is
    there once it does."""
    if (target / "whole").is_file():
        return True
    venv.create(target, clear=True, with_pip=True)  # in its place at once: an environment cannot be moved
    command: list[str | Path] = [target / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-r", lock]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        print(f"error: pip install: exit code {done.returncode}\nhint: its words are above", file=sys.stderr)
        return False
    (target / "whole").touch()
    return True
