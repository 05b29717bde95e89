"""`make check`: every check that runs nothing of Corral, each even when another failed, then one line per check."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKS: dict[str, list[str | Path]] = {
    "ruff": [BIN / "ruff", "check", "--quiet"],
    "ruff format": [BIN / "ruff", "format", "--check", "--quiet"],
    "mypy": [BIN / "mypy", "--no-error-summary"],
    "import-linter": [BIN / "lint-imports", "--no-cache"],
    "documentation": [
        sys.executable,
        "-m",
        "pytest",
        "tests/docs/test_pages.py",
        "tests/docs/test_dialects.py",
        "--no-header",
    ],
}


def main() -> int:
    results = []
    for name, command in CHECKS.items():
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        results.append((name, done.returncode, time.monotonic() - began))
        if done.returncode:
            print(f"--- {name}: {' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}", flush=True)
    for name, code, took_s in results:
        print(f"{name:15} {'ok' if code == 0 else 'FAILED'}  {took_s:.1f} s")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
