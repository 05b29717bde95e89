"""Whether this machine lets processes be shut in by bubblewrap: asked by trying it. Blocks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence

TRY_WITHIN_S = 10.0
INSTALL = "install the package bubblewrap (Debian, Ubuntu, Fedora and Arch call it so), or set `sandbox: off`"

APART = (
    "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
    "--die-with-parent", "--cap-drop", "ALL", "--hostname", "corral",
)  # fmt: skip
"""Every namespace of its own but that of users, which bwrap adds where it is not root; no capability."""
_TRIAL = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--remount-ro", "/")

_lock = threading.Lock()
_tried: dict[tuple[object, ...], str] = {}


class NoSandbox(Exception):
    """Why there is none, in words; `hint` is what to do about it."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


def find_bwrap() -> tuple[str, str]:
    """The paths of `bwrap` and `env`. Raises NoSandbox."""
    if not sys.platform.startswith("linux"):
        raise NoSandbox("bubblewrap is for Linux only", "set `sandbox: off`, or use a container")
    bwrap, env = shutil.which("bwrap"), shutil.which("env")
    if bwrap is None or env is None:
        missing = "bwrap is not on PATH" if bwrap is None else "env is not on PATH"
        raise NoSandbox(missing, INSTALL)
    return os.path.realpath(bwrap), env


def check(bwrap: str, env: str) -> None:
    """Runs `true` in one; what came of it is remembered until the program changes. Raises NoSandbox
    with what bwrap says."""
    true = shutil.which("true") or "/bin/true"
    signals = [env, "--ignore-signal=TERM", bwrap, *APART, *_TRIAL, "--", env, "--default-signal=TERM", true]
    found = os.stat(bwrap)  # noqa: PTH116
    key = (bwrap, found.st_mtime_ns, found.st_size, found.st_mode, os.geteuid())
    with _lock:
        if key not in _tried:
            _tried[key] = _try(signals)
        why = _tried[key]
    if why:
        raise NoSandbox(f"bubblewrap does not work here: {why}", _hint(why))


def _try(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_WITHIN_S, check=False,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it did nothing within {TRY_WITHIN_S:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix("bwrap: ") if said else f"exit code {done.returncode}"


def _hint(why: str) -> str:
    if "namespace" in why or "Operation not permitted" in why or "uid map" in why:
        return (
            "user namespaces must be allowed: sysctl user.max_user_namespaces (above 0), "
            "kernel.unprivileged_userns_clone=1 on older Debian, kernel.apparmor_restrict_unprivileged_userns=0 or an "
            "AppArmor profile for bwrap on Ubuntu; or set `sandbox: off`"
        )
    return "`corral doctor` tries it again; or set `sandbox: off`"
