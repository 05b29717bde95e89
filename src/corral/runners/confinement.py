"""What a shut-in or bounded engine needs around its process: its folder, its control group, and how it ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from corral.engines import bubblewrap
from corral.engines.confined import SOCKET
from corral.engines.plan import LaunchPlan
from corral.errors import StartFailed
from corral.hardware import cgroups
from corral.runners import memory
from corral.runners.runner import Exit


def prepare(plan: LaunchPlan) -> None:
    """Makes the folder that a sandboxed engine's socket is to lie in. Blocks. Raises StartFailed."""
    socket = plan.endpoint.socket
    if not plan.sandbox or socket is None:
        return
    try:
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        socket.unlink(missing_ok=True)
    except OSError as error:
        raise StartFailed(f"cannot make {socket.parent}: {error.strerror}", hint="look at `corral doctor`") from error


def bound(plan: LaunchPlan, pid: int) -> None:
    """Puts the process and its children under the plan's limits. Blocks. Raises StartFailed where that fails, which
    planning has tried before."""
    if plan.limits is None:
        return
    try:
        group = cgroups.find().group(_name(plan))
        group.make(plan.limits.memory_bytes, plan.limits.pids)
        group.take(pid, memory.family)
    except ProcessLookupError:
        return  # it has ended; why is told by those who wait for it
    except cgroups.NotPermitted as why:
        raise StartFailed(
            f"the limits of {plan.model} cannot be set: {why}", hint="set `limits: false`, or see docs/sandbox.md"
        ) from why


def leave(plan: LaunchPlan) -> int:
    """Removes what `prepare` and `bound` made, once the engine has ended. Returns its memory limit where the kernel
    ended something for that, else 0."""
    socket, reached = plan.endpoint.socket, 0
    if plan.sandbox and socket is not None and socket.name == SOCKET:
        with suppress(OSError):
            socket.unlink(missing_ok=True)
            socket.parent.rmdir()
    if plan.limits is not None:
        with suppress(cgroups.NotPermitted):
            group = cgroups.find().group(_name(plan))
            reached = plan.limits.memory_bytes if group.hit() else 0
            group.remove()
    return reached


def exit_of(exit: Exit) -> Exit:
    """The engine's own end, where bubblewrap's is given."""
    if exit.code is None:
        return exit
    code, signal = bubblewrap.exit_of(exit.code)
    return replace(exit, code=code, signal=signal)


def _name(plan: LaunchPlan) -> str:
    """Of the unit, and apart from the same unit of another server: both have sockets of their own."""
    return f"{plan.unit}-{cgroups.short(str(plan.endpoint.socket))}"
