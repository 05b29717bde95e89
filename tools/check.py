"""`make check`: every check that runs nothing of Corral, each even when another failed, then one line per check.

Two run at a time, the longest first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OURS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corral"
CACHE = Path(os.environ.get("CORRAL_CACHE_DIR") or OURS)
CHECKS: dict[str, list[str | Path]] = {
    # What it knows of files by their content is kept for other checkouts too: afresh it takes longer than all the rest.
    "mypy": [BIN / "mypy", "--no-error-summary", "--cache-dir", CACHE / "mypy"],
    "documentation": [
        sys.executable,
        "-m",
        "pytest",
        "tests/docs/test_pages.py",
        "tests/docs/test_dialects.py",
        "--no-header",
    ],
    "import-linter": [BIN / "lint-imports", "--no-cache"],
    "ruff": [BIN / "ruff", "check", "--quiet"],
    "ruff format": [BIN / "ruff", "format", "--check", "--quiet"],
}


def check(name: str) -> tuple[bool, str, float]:
    """Whether it holds, what it said, and the seconds it took."""
    began = time.monotonic()
    done = subprocess.run(CHECKS[name], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr, time.monotonic() - began


def main() -> int:
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(CHECKS, pool.map(check, CHECKS), strict=True))
    for name, (holds, said, _) in results.items():
        if not holds:
            print(f"--- {name}: {' '.join(str(part) for part in CHECKS[name])}\n{said}", flush=True)
    for name, (holds, _, took_s) in results.items():
        print(f"{name:15} {'ok' if holds else 'FAILED'}  {took_s:.1f} s")
    return 0 if all(holds for holds, _, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
