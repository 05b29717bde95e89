"""Makes the checkout's virtual environment from a hashed lock, once: `setup_env.py run|dev`.

Standard library only, because it runs before anything is installed. A stamp in the environment remembers what it was
made from; as long as that is unchanged nothing is done. The wheels of a lock are kept in the user's cache directory:
the next environment is made from them, since asking an index about each package takes longer than installing it, and a
network.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("CORRAL_VENV") or ROOT / ".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "corral-setup.json"
LOCKS = {"run": ROOT / "requirements" / "run.txt", "dev": ROOT / "requirements" / "dev.txt"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corral"
WHEELS = Path(os.environ.get("CORRAL_CACHE_DIR") or CACHE) / "wheels"
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


def step(words: str, *command: str | Path, needed: bool = True) -> None:
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
    if done.returncode and needed:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        raise Failed(f"{words}: failed (see above)")


def kept_wheels(kind: str) -> Path:
    """What says that all wheels of this lock are in `WHEELS`, for this Python on this machine."""
    fits = hashlib.sha256(LOCKS[kind].read_bytes())
    fits.update(f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {platform.libc_ver()}".encode())
    return WHEELS / f"{kind}-{fits.hexdigest()[:16]}.whole"


def install(kind: str, *pip: str | Path) -> None:
    """All packages of the lock, each against its hash. The lock is whole, so nobody need look for dependencies."""
    hashed = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", LOCKS[kind])
    whole = kept_wheels(kind)
    local = ("install", "--no-index", "--find-links", WHEELS, "--no-compile", *hashed)
    if whole.exists():
        try:
            step("packages, as they were kept", *pip, *local)
            return
        except Failed:
            print("  some were lost: all are looked for again")
    try:
        WHEELS.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        print(f"  nothing can be kept in {WHEELS}: {problem.strerror}")
        step("packages, from the index", *pip, "install", "--no-compile", *hashed)
        return
    step("packages, from the index", *pip, "download", "--dest", WHEELS, *hashed)
    whole.touch()
    step("packages", *pip, *local)


def make(kind: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    pip = (PYTHON, "-m", "pip", *quiet)
    print(f"setting up {VENV.name} ({kind})")
    if not works():
        step(f"virtual environment with Python {sys.version.split()[0]}", sys.executable, "-m", "venv", "--clear", VENV)
    install(kind, *pip)
    step("corral itself", *pip, "install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    # As pip does with what it copies, only on all cores: otherwise who may not or will not write bytecode compiles at
    # each start. Packages' own tests, which nobody runs, may stay as they are, and so may what is no Python of today.
    compiled = ("-x", r"/site-packages/.*/tests?/", VENV / "lib", ROOT / "src")
    step("compiled modules", PYTHON, "-m", "compileall", "-q", "-j", "0", *compiled, needed=False)
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
