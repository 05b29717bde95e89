"""Real child processes for tests: plans of the fake engine, and looking at processes until something holds."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil

from corral.engines.plan import Endpoint, Footprint, LaunchPlan

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
WITHIN_S = 10.0
T = TypeVar("T")


def fake_plan(
    socket: Path, *flags: str, generation: int = 1, model: str = "fake", leash: str = "survive"
) -> LaunchPlan:
    """A plan that runs the fake engine on `socket`. `-S -E`: it needs the standard library only, and starts faster."""
    argv = (sys.executable, "-S", "-E", str(FAKE_ENGINE), "--listen", str(socket), *flags)
    return plan_of(*argv, generation=generation, model=model, leash=leash, endpoint=Endpoint(socket=socket))


def plan_of(
    *argv: str, generation: int = 1, model: str = "fake", leash: str = "survive", endpoint: Endpoint | None = None
) -> LaunchPlan:
    """A plan that runs `argv`."""
    return LaunchPlan(
        unit=f"{model}.{generation}",
        model=model,
        generation=generation,
        engine="fake",
        engine_version="0",
        argv=argv,
        endpoint=endpoint or Endpoint(),
        footprint=Footprint({"cpu": 1 << 20}),
        leash="die-with-daemon" if leash == "die-with-daemon" else "survive",
    )


async def until(holds: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Returns once `holds()` is true. Fails with `what` otherwise."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        await asyncio.sleep(0.005)


async def until_told(ask: Callable[[], Awaitable[T]], what: str, within_s: float = WITHIN_S) -> T:
    """The first answer of `ask` that is true. Fails with `what` otherwise."""
    deadline = time.monotonic() + within_s
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        await asyncio.sleep(0.005)
    return answer


async def said(log: Path, pattern: str, within_s: float = WITHIN_S) -> str:
    """The first group of `pattern` (or the whole match) once a log has it."""
    expression = re.compile(pattern)

    def look() -> re.Match[str] | None:
        return expression.search(log.read_text(errors="replace")) if log.exists() else None

    await until(look, f"{pattern!r} in {log}", within_s)
    match = look()
    assert match is not None
    return match[1] if match.re.groups else match[0]


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
