"""The nursery's own half: a process with a library loaded that forks engines to be, each the warden's child.

Over a socket of packets the warden sends it sockets, one for each child. The child says its pid there, waits for its
order, and closes it when it is settled: what goes wrong before is told there too. Whoever writes a nursery's program
loads what engines need and calls `serve_births`.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys

from . import kernel
from .spawn import settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MAX_ORDER_BYTES = 128 << 10
"""A longer one is not for a nursery. Source: a packet must fit the socket's buffer, 208 KiB by default."""

MARK_BYTES = 24
"""The length of every mark, and of the nursery's own, which stands in for it."""

NO_MARK = "0" * MARK_BYTES
_DEVICES = ("/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/dxg")
_names = ctypes.CDLL(None)
_names.getenv.restype = ctypes.c_void_p


def serve_births(fd: int, program: Callable[[list[str]], None]) -> None:
    """Forks an engine for each request on the socket `fd`; `program(argv)` is an engine's life.

    Returns when the warden is gone, or at once when this process is not fit to be forked.
    """
    link = socket.socket(fileno=fd)
    why = unfit()
    link.send(json.dumps({"unfit": why, "pss_kb": proportional_kb()}).encode())
    if why:
        return
    kernel.name_process(b"corral-nursery")
    gc.collect()
    gc.freeze()  # a collection in an engine would write to, and so copy, every page that it shares with us
    warden = os.getppid()
    size = array.array("i").itemsize
    while True:
        packet, ancillary, _, _ = link.recvmsg(16, socket.CMSG_SPACE(size))
        if not packet:
            return
        theirs = array.array("i", ancillary[0][2][:size])[0]
        if not unfit():
            _fork(theirs, warden, program)
        os.close(theirs)  # when no child came of it, the warden sees that socket end


def unfit() -> str:
    """Why forks of this process could not be engines, in words; empty when they can."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"loading the library started threads ({threads} run), which a fork would lose"
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(_DEVICES):
            return f"loading the library opened {target}: a GPU does not survive a fork"
    return ""


def proportional_kb() -> int:
    """This process's memory, shared pages divided by who shares them."""
    with open("/proc/self/smaps_rollup", "rb") as file:
        return next((int(line.split()[1]) for line in file if line.startswith(b"Pss:")), 0)


def _fork(order: int, warden: int, program: Callable[[list[str]], None]) -> None:
    """Two forks: when the one between has ended, the engine to be is the child of the warden, the nearest subreaper."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        between = os.getpid()
        if os.fork() == 0:
            _wait(order, between, warden, program)
    finally:
        os._exit(0)


def _wait(order: int, between: int, warden: int, program: Callable[[list[str]], None]) -> NoReturn:
    """Waits for the order, and becomes what it says."""
    try:
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd != order:
                with contextlib.suppress(OSError):  # the listing's own is closed already
                    os.close(fd)
        os.setsid()
        while os.getppid() == between:
            os.sched_yield()  # it has nothing left to do but to end
        kernel.die_with_parent()
        if os.getppid() != warden:
            os._exit(127)
        link = socket.socket(fileno=order)
        link.send(b"p%d" % os.getpid())
        packet = link.recv(MAX_ORDER_BYTES)
        if not packet:
            os._exit(0)  # not needed any more
        wanted = json.loads(packet)
        argv = wanted["argv"]
        _carry(wanted["mark"])
        kernel.name_process(os.fsencode(os.path.basename(argv[0])))
        kernel.show_arguments(argv)
    except BaseException:  # noqa: BLE001 - a forked child must never unwind into its parent's code
        os._exit(127)

    def life() -> None:
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd != order:
                with contextlib.suppress(OSError):
                    os.close(fd)
        link.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as the interpreter does when it starts
        gc.unfreeze()
        os._exit(_live(program, argv))

    settle(wanted["cwd"], wanted["log"], order, warden, life)


def _live(program: Callable[[list[str]], None], argv: list[str]) -> int:
    """Runs it as the interpreter would: the exit code."""
    code: object = 0
    try:
        program(argv)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, it is told and ends this process alone
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return (code or 0) & 0xFF


def _carry(mark: str) -> None:
    """Makes `mark` this process's own, in the memory that /proc/PID/environ shows as well."""
    place = _names.getenv(kernel.MARK_VARIABLE.encode())
    assert len(mark) == MARK_BYTES
    assert place is not None
    ctypes.memmove(place, mark.encode("ascii"), MARK_BYTES)
    os.environ[kernel.MARK_VARIABLE] = mark
