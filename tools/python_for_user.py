"""A Python environment in another user's home, with what Corral needs to run: `make podman` makes it.

The interpreter and the packages of whoever runs the tests may be in a home that nobody else may read. The environment's
packages are copies; Corral itself is read from the checkout, or copied by the tests where that cannot be read either.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tools.install_podman_user import Failed, run_as

LEFT_OUT = ("test", "site-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "__pycache__")


def make_python(root: Path, home: Path, user: pwd.struct_passwd) -> Path:
    """The environment's interpreter. Its packages are those of requirements/run.txt, as they are installed here."""
    lock = (root / "requirements" / "run.txt").read_bytes()
    here = Path(__file__).read_bytes()
    stamp = hashlib.sha256(lock + sys.version.encode() + here).hexdigest()[:16]
    place = home / "python" / stamp
    python = place / "env" / "bin" / "python"
    if (place / "whole").exists():
        return python
    print(f"  {place}", flush=True)
    shutil.rmtree(home / "python", ignore_errors=True)
    place.mkdir(parents=True)
    interpreter = _interpreter(place)
    _run([str(interpreter), "-m", "venv", "--without-pip", str(place / "env")])
    site = place / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.decode(), re.MULTILINE):
        _copy(name, site)
    # A link, which the tests set: to the checkout, or to a copy of it.
    (site / "corral.pth").write_text(f"{home / 'src'}\n")
    _run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(home / "python")])
    run_as([str(python), "-c", "import click, pydantic, uvloop, xllamacpp, yaml"])
    (place / "whole").touch()
    return python


def _interpreter(place: Path) -> Path:
    """One of this version that the user may run: this one, the system's, or else a copy of this one."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for found in (Path(sys.base_prefix) / "bin" / name, Path("/usr/bin") / name):
        if _runs(found):
            return found
    print("  copying the interpreter", flush=True)
    prefix, target = Path(sys.base_prefix), place / "interpreter"
    shutil.copytree(
        prefix / "lib" / name, target / "lib" / name, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True
    )
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy2(library, target / "lib", follow_symlinks=False)
    (target / "bin").mkdir()
    shutil.copy2(Path(os.path.realpath(prefix / "bin" / name)), target / "bin" / name)
    return target / "bin" / name


def _runs(interpreter: Path) -> bool:
    try:
        return run_as([str(interpreter), "-c", "import ssl, sqlite3, ctypes"], check=False).returncode == 0
    except OSError:
        return False


def _copy(name: str, site: Path) -> None:
    """The files of an installed package, without its programs."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return  # for another platform or version of Python
    for file in found.files or ():
        if ".." in file.parts:
            continue
        source, target = Path(str(file.locate())), site / file
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _run(words: list[str]) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip()}", "as root: make podman")
