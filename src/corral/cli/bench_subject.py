"""A model of the own server as a subject of a benchmark: its target, what it is, and the machine it is on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from corral.cli.app import App

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from corral.api import UnitInfo
    from corral.client import Client
    from corral.measure.figures import Figure
    from corral.measure.report import Report
    from corral.measure.target import Target


def unit_of(client: Client, model: str) -> UnitInfo:
    """The model's engine, started now. Raises UnknownModel, or why it does not start."""
    from corral.errors import UnknownModel

    client.start(model)
    names = {each.name for each in client.models() if model in (each.name, *each.aliases)} or {model}
    units = [each for each in client.units() if each.model in names]
    if not units:
        raise UnknownModel(f"the model {model!r} has no engine of its own", hint="see: corral ps")
    return next((each for each in units if each.state == "ready"), units[0])


def target_of(client: Client, unit: UnitInfo, name: str | None = None) -> Target:
    """How its clients reach it."""
    from corral.measure.target import Target

    return Target(name or unit.model, client.address, unit.model)


def facts_of(unit: UnitInfo) -> dict[str, Any]:
    """What is measured, for whoever reads it later."""
    return {
        "model": unit.model, "engine": unit.engine, "engine_version": unit.engine_version, "runner": unit.runner,
        "device": unit.device, "placement": unit.placement, "degraded": unit.degraded, "slots": unit.slots,
        "context": unit.context,
    }  # fmt: skip


def machine(client: Client | None = None) -> dict[str, Any]:
    """The machine that this command runs on, and the devices that the server knows."""
    from corral.hardware.cpu import read_cpu

    found: dict[str, Any] = {"system": f"{platform.system()} {platform.machine()}"}
    try:
        cpu = read_cpu()
        found |= {"processor": cpu.model, "cores": cpu.usable}
    except OSError:
        found |= {"processor": platform.processor(), "cores": os.cpu_count()}
    found["load_before"] = round(os.getloadavg()[0], 1)
    if client is not None:
        found["devices"] = [f"{each.name}: {each.words}" for each in client.devices() if each.problem is None]
    return found


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs it on the event loop that Corral uses."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def watts(client: Client) -> Callable[[], Mapping[str, float | None]]:
    """What the server's devices draw, where they say."""
    from corral.errors import CorralError

    def read() -> Mapping[str, float | None]:
        try:
            return {each.name: getattr(each, "power_w", None) for each in client.devices()}
        except CorralError:
            return {}

    return read


def report(
    kind: str, title: str, began: float, *, client: Client | None, settings: Mapping[str, Any],
    subjects: Mapping[str, Mapping[str, Any]], figures: list[Figure], notes: list[str], machine_: Mapping[str, Any],
) -> Report:  # fmt: skip
    import time

    from corral import __version__
    from corral.measure.report import Report

    return Report(
        kind, title, began, time.time() - began, __version__, dict(machine_), dict(settings), dict(subjects),
        tuple(figures), tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def teller(app: App) -> Callable[[str], None]:
    """Says how far it is, where somebody reads along."""
    return (lambda text: None) if app.json else app.note
