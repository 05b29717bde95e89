"""What the warden asks of the operating system beyond the standard library's reach: prctl, and who a process is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINUX = sys.platform.startswith("linux")
MARK_VARIABLE = "CORRAL_MARK"
"""In each engine's environment, with a random value of its own: descendants inherit it, wherever they move to."""

# Source: linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_MM, _PR_SET_MM_MAP, _PR_SET_CHILD_SUBREAPER = 1, 15, 35, 14, 36

# Resolved once, so that the forked child calls a plain function pointer and imports nothing.
_prctl = ctypes.CDLL(None).prctl if LINUX else None
_shown: ctypes.Array[ctypes.c_char] | None = None  # what the kernel reads as our arguments must stay where it is


def die_with_parent() -> None:
    """The calling process gets KILL when its parent ends. Nothing on systems that cannot."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process. Nothing on systems that cannot."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    name_process(b"corral-warden")


def name_process(name: bytes) -> None:
    """What `ps` shows as this process's short name; 15 bytes of it count."""
    if _prctl is not None:
        _prctl(_PR_SET_NAME, name, 0, 0, 0)


def show_arguments(argv: list[str]) -> None:
    """Has /proc/PID/cmdline, and so `ps`, show `argv`. Nothing on kernels that do not let a process say so."""
    global _shown
    fields = stat_fields(os.getpid()) if _prctl is not None else None
    if fields is None or _prctl is None:
        return
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    shown = ctypes.create_string_buffer(words, len(words))
    begin = ctypes.addressof(shown)
    code, data, environment = fields[23:25], fields[42:44], fields[47:49]
    brk = ctypes.CDLL(None).sbrk
    brk.restype = ctypes.c_void_p
    values = [*code, *data, fields[44], brk(0), fields[25], begin, begin + len(words), *environment]
    layout = (ctypes.c_uint64 * 13)(*map(int, values), 0, 0xFFFFFFFF << 32)  # no auxv, and exe_fd -1: both stay
    if _prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0) == 0:
        _shown = shown


def identity(pid: int) -> str | None:
    """What tells this process from every later one with the same pid; None when it has ended or cannot be seen."""
    if not LINUX:
        return _identity_by_ps(pid)
    fields = stat_fields(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return f"{_boot_id()}:{fields[19]}"  # starttime, in clock ticks since boot


def stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from the third field (state) on. Source: proc_pid_stat(5)."""
    raw = _read(f"/proc/{pid}/stat")
    return None if raw is None else raw.decode("utf-8", "replace").rpartition(")")[2].split()


def children() -> list[int]:
    """This process's children, zombies included. Empty on systems that do not list them."""
    raw = _read(f"/proc/self/task/{os.getpid()}/children") if LINUX else None
    return [int(pid) for pid in raw.split()] if raw else []


def mark_of(pid: int) -> str | None:
    """The mark that this process was started with or inherited; None when it has none or cannot be read."""
    raw = _read(f"/proc/{pid}/environ") if LINUX else None
    wanted = MARK_VARIABLE.encode() + b"="
    for entry in (raw or b"").split(b"\0"):
        if entry.startswith(wanted):
            return entry[len(wanted) :].decode("ascii", "replace")
    return None


def marked(marks: set[str]) -> list[int]:
    """Every process that carries one of `marks`. Looks at all of /proc: for start-up only."""
    if not LINUX or not marks:
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and mark_of(pid) in marks]


def group_lives(pgid: int) -> bool:
    """Whether a process of the group is left, one that was not waited for included."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # what macOS says of a group of zombies
        return not LINUX and identity(pgid) is not None
    return True


def next_exit(before: Callable[[int], None]) -> tuple[int, int] | None:
    """Reaps one ended child: its pid and wait status, or None when no child has ended.

    `before` is called with the pid while it is still the child's, so that a signal to its group cannot meet another's.
    """
    try:
        if hasattr(os, "waitid"):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            before(found.si_pid)
            return os.waitpid(found.si_pid, 0)
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    before(pid)
    return pid, status


def _boot_id() -> str:
    return (_read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # the process ended meanwhile
        return None
    finally:
        os.close(fd)


def _identity_by_ps(pid: int) -> str | None:
    out, into = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, into, 1)]
    argv = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        ps = os.posix_spawn(argv[0], argv, {"LC_ALL": "C"}, file_actions=actions)
    except OSError:
        os.close(out)
        return None
    finally:
        os.close(into)
    with open(out, "rb") as answer:
        state, _, started = answer.read().decode("ascii", "replace").strip().partition(" ")
    os.waitpid(ps, 0)
    return None if not started or state.startswith("Z") else " ".join(started.split())
