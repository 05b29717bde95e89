"""Whether a model is well at this moment: its process, its own `/health`, and one token."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TypeVar

from corral import clock
from corral.api import HealthCheck, HealthInfo
from corral.supervisor import looks
from corral.supervisor.machine import State
from corral.supervisor.unit import Unit

T = TypeVar("T")

CANARY_WITHIN_S = 10.0


async def examine(model: str, units: Iterable[Unit], busy: dict[str, int]) -> HealthInfo:
    """Asks each engine of `model`; `busy` has the requests it is at, by the unit's name. Starts and changes nothing.

    A model is well when an engine of it runs, and all that do answer. One that sleeps is well: it is woken when asked.
    """
    checks: list[HealthCheck] = []
    running = [unit for unit in units if unit.state is not State.STOPPED]
    for unit in running:
        checks += await _examine(unit, busy.get(unit.name, 0))
    if not running:
        checks.append(HealthCheck("process", False, f"{model} does not run", 0.0))
    return HealthInfo(all(check.ok for check in checks), model, checks)


async def _examine(unit: Unit, busy: int) -> list[HealthCheck]:
    plan, running = unit.plan, unit.running
    if plan is None or running is None or unit.state not in (State.READY, State.DRAINING, State.SLEEPING):
        return [HealthCheck("process", False, f"{unit.name} is {unit.state}", 0.0)]
    if running.pid is not None and looks.frozen(running.pid):
        return [HealthCheck("process", False, f"process {running.pid} of {unit.name} is stopped", 0.0)]
    checks = [HealthCheck("process", True, f"{unit.name} is {unit.state}", 0.0)]
    if unit.state is State.SLEEPING:
        return checks
    status, took_ms = await _timed(looks.health(plan.endpoint, plan.probe.path, plan.probe.timeout_s))
    said = f"answers {status}" if status is not None else f"does not answer within {plan.probe.timeout_s:g} s"
    checks.append(HealthCheck("health", status == 200, f"GET {plan.probe.path} {said}", took_ms))
    if status != 200:
        return checks
    if busy >= plan.slots:
        checks.append(HealthCheck("canary", True, f"not asked for a token: it is at {busy} requests", 0.0))
        return checks
    spoke, took_ms = await _timed(looks.token(plan.endpoint, CANARY_WITHIN_S, plan.probe))
    said = "makes a token" if spoke else f"makes no token within {CANARY_WITHIN_S:g} s"
    checks.append(HealthCheck("canary", spoke, said, took_ms))
    return checks


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    began = clock.monotonic()
    return await work, (clock.monotonic() - began) * 1000
