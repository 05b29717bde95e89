"""One daemon per state directory: a lock that dies with its owner, and the file that says who owns it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from corral.config.paths import Paths
from corral.errors import ConfigError, StateInUse
from corral.processes import alive

try:
    import fcntl
except ImportError:  # a platform without flock is not supported as a server; the client still imports
    fcntl = None  # type: ignore[assignment]

_OWNER_S = 0.1


class StateLock:
    """The lock, held."""

    def __init__(self, paths: Paths, descriptor: int) -> None:
        self._paths = paths
        self._descriptor: int | None = descriptor

    def release(self, *, tidy: bool = True) -> None:
        """Lets the next one have it; `tidy` removes the file that says where we are. A second call does nothing."""
        if self._descriptor is not None:
            if tidy:
                self._paths.daemon_file.unlink(missing_ok=True)
            _say_who(self._descriptor, "")
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def hold_state(paths: Paths) -> Iterator[StateLock]:
    """Holds the state directory's lock while the block runs, or until it is released. Raises StateInUse or
    ConfigError."""
    if fcntl is None:
        raise ConfigError("this platform has no file locks", hint="run Corral on Linux, macOS or WSL2")
    try:
        descriptor = os.open(paths.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot open {paths.lock_file}: {error.strerror}", hint="set CORRAL_STATE_DIR to a directory of yours"
        ) from error
    lock = StateLock(paths, descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _in_use(paths, descriptor) from error
        _say_who(descriptor, str(os.getpid()))
        yield lock
        lock.release()
    finally:
        lock.release(tidy=False)


def is_held(paths: Paths) -> bool:
    """Whether a server has the state directory, one that does not answer yet too."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(paths.lock_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_daemon_file(paths: Paths, facts: dict[str, Any]) -> None:
    """Says where the running daemon is reached; replaced in one step, readable by this user only.

    Raises ConfigError.
    """
    scratch = paths.daemon_file.with_suffix(".new")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(facts, file)
        scratch.replace(paths.daemon_file)
    except OSError as error:
        raise ConfigError(
            f"cannot write {paths.daemon_file}: {error.strerror}",
            hint="make room or set CORRAL_STATE_DIR to a directory of yours; `corral doctor` looks at the disk",
        ) from error


def _say_who(descriptor: int, who: str) -> None:
    """Writes the owner into the lock's own file: the daemon's file comes later, and one that was killed leaves its."""
    with suppress(OSError):  # a full disk: then nobody is named
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, who.encode(), 0)


def _owner(descriptor: int) -> int | None:
    """The process that holds the lock; None when it does not say. One that was killed is still named for the moment
    that the next one takes to write: that is waited for."""
    deadline = time.monotonic() + _OWNER_S
    while True:
        text = os.pread(descriptor, 32, 0)
        if text.isdigit() and alive(int(text)):
            return int(text)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def _in_use(paths: Paths, descriptor: int) -> StateInUse:
    owner = _owner(descriptor)
    who = "another process" if owner is None else f"process {owner}"
    try:
        facts = json.loads(paths.daemon_file.read_text())
        if owner is not None and facts["pid"] == owner:  # else it is an earlier owner's
            who += f", on {', '.join(facts['listen'])}"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return StateInUse(
        f"a Corral already runs with the state directory {paths.state_dir} ({who})",
        hint="use that one (`corral status`), stop it, or set CORRAL_STATE_DIR for a second one",
    )
