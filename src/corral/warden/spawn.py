"""Starting one engine: fork, make the child its own, exec; what goes wrong comes back through a pipe."""

from __future__ import annotations

import errno
import os
import signal

from . import kernel
from .protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# Ignored signals stay ignored across exec; handlers reset on their own.
_RESET = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_ALL = signal.valid_signals()
_STEPS = {"c": "cwd", "l": "log", "x": "executable"}


def spawn(argv: list[str], env: dict[str, str], cwd: str, log: str, keep: int | None = None) -> tuple[int, int]:
    """Forks the engine: its pid, and a descriptor that ends once exec is through or holds what went wrong.

    Does not wait for exec: a program on a slow disk must not hold up the other engines. `keep` is a descriptor that
    the program gets under the same number. Without a `log` its output goes where the warden's words go.

    Raises Refused when the system has no room for another process.
    """
    warden = os.getpid()
    try:
        result, report = os.pipe()
        os.set_blocking(result, False)
    except OSError as error:
        raise refused(error.errno or 0, "", "") from None
    # Blocked across the fork: a signal that comes before exec must neither run the warden's handlers in the child nor
    # write into the warden's wakeup pipe, which both share.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        pid = os.fork()
        if pid == 0:

            def program() -> None:
                for each in _IGNORED_BY_PYTHON:
                    signal.signal(each, signal.SIG_DFL)
                if keep is not None:
                    os.set_inheritable(keep, True)
                os.execvpe(argv[0], argv, env)  # every other descriptor is close-on-exec

            settle(cwd, log, report, warden, program)
    except OSError as error:
        os.close(result)
        raise refused(error.errno or 0, "", "") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(report)
    return pid, result


def outcome(result: int, argv: list[str], cwd: str, log: str) -> Refused | None:
    """What the descriptor of `spawn` says, once it is readable: None when the engine runs. Closes it."""
    try:
        told = os.read(result, 64).decode("ascii")
    except (BlockingIOError, ConnectionError):
        return None
    finally:
        os.close(result)
    if not told:
        return None
    step, number = told[0], int(told[1:])
    return refused(number, _STEPS[step], {"c": cwd, "l": log, "x": argv[0]}[step])


def refused(number: int, about: str, name: str) -> Refused:
    """An errno in words, such as `executable /x/y: No such file or directory`."""
    what = f"{about} {name}" if about else "no new process"
    return Refused(errno.errorcode.get(number, str(number)), f"{what}: {os.strerror(number)}", about)


def settle(cwd: str, log: str, report: int, warden: int, program: Callable[[], None]) -> NoReturn:
    """Makes the calling process, a fresh fork whose parent is the warden, an engine's; `program` is then its life.

    What goes wrong until then is written to `report`; so is an OSError of `program` itself.
    """
    step = "x"
    try:
        signal.set_wakeup_fd(-1)
        for each in _RESET:
            signal.signal(each, signal.SIG_DFL)
        if os.getsid(0) != os.getpid():
            os.setsid()
        kernel.die_with_parent()
        if os.getppid() != warden:  # it ended before we asked to end with it
            os._exit(127)
        step = "c"
        os.chdir(cwd)
        if log:
            step = "l"
            # O_NONBLOCK for the open alone: a FIFO under this name must fail, not hang.
            output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            os.set_blocking(output, True)
            os.dup2(output, 2)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        step = "x"
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        program()
    except BaseException as error:  # noqa: BLE001 - a forked child must never unwind into its parent's code
        number = error.errno if isinstance(error, OSError) else None
        os.write(report, f"{step}{number or errno.EINVAL}".encode())
    finally:
        os._exit(127)
