"""Makes the checkout's virtual environment from a hashed lock, once: `setup_env.py run|dev`.

Standard library only, because it runs before anything is installed. A stamp in the environment remembers what it was
made from; as long as that is unchanged nothing is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("CORRAL_VENV") or ROOT / ".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "corral-setup.json"
LOCKS = {"run": ROOT / "requirements" / "run.txt", "dev": ROOT / "requirements" / "dev.txt"}
INCLUDES = {"run": ("run",), "dev": ("run", "dev")}
"""Which stamps an installation earns: the dev lock holds everything of the run lock, at the same versions."""


class Failed(Exception):
    """What to tell the person at the terminal."""


def digest(kind: str) -> str:
    """What an environment of this kind is made from, as one value."""
    inputs = hashlib.sha256()
    for source in (LOCKS[kind], ROOT / "pyproject.toml"):
        inputs.update(source.read_bytes())
    inputs.update(str(ROOT).encode())  # an editable installation points here
    return inputs.hexdigest()


def stamps() -> dict[str, str]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def works() -> bool:
    """Whether the environment's Python runs: its base may have been removed or upgraded since."""
    try:
        answer = subprocess.run([PYTHON, "-c", "import pip"], capture_output=True, timeout=60, check=False)
    except OSError:
        return False
    return answer.returncode == 0


def step(words: str, *command: str | Path) -> None:
    print(f"  {words} …", end="", flush=True)
    began = time.monotonic()
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    print(f" {time.monotonic() - began:.1f} s")
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        raise Failed(f"{words}: failed (see above)")


def make(kind: str) -> None:
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    print(f"setting up {VENV.name} ({kind})")
    if not works():
        step(f"virtual environment with Python {sys.version.split()[0]}", sys.executable, "-m", "venv", "--clear", VENV)
    step("packages", *pip, "--require-hashes", "--only-binary", ":all:", "-r", LOCKS[kind])
    step("corral itself", *pip, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    # As pip does with what it copies: otherwise who may not or will not write bytecode compiles at each start.
    step("compiled modules", PYTHON, "-m", "compileall", "-q", ROOT / "src")
    made = stamps() | {name: digest(name) for name in INCLUDES[kind]}
    STAMP.write_text(json.dumps(made, indent=1) + "\n")


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0] not in LOCKS:
        print("usage: setup_env.py run|dev", file=sys.stderr)
        return 2
    kind = argv[0]
    if stamps().get(kind) == digest(kind) and PYTHON.exists():
        return 0
    try:
        make(kind)
    except Failed as failed:
        print(f"error: {failed}", file=sys.stderr)
        print(
            "hint: the first time needs a network, or a package cache that holds all of",
            LOCKS[kind].name,
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
