"""The daemon's state as the wire types show it, and its greeting."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from corral import __version__, clock
from corral.api import ModelInfo, MountInfo, PlanInfo, UnitInfo
from corral.config.settings import ModelSettings, Settings
from corral.engines.plan import LaunchPlan
from corral.models.library import Library
from corral.runners.runner import Preview
from corral.scheduler.state import Place
from corral.serve_options import ServeOptions
from corral.supervisor.fleet import Fleet
from corral.supervisor.machine import State
from corral.supervisor.unit import Unit
from corral.units import show_duration


def model_info(model: ModelSettings, settings: Settings, fleet: Fleet, library: Library) -> ModelInfo:
    unit = fleet.get(model.name)
    size_bytes, problem = _size(model, library)
    if problem is None and unit is not None and unit.last_error is not None:
        problem = unit.last_error.message
    return ModelInfo(
        name=model.name,
        aliases=list(model.aliases),
        source=model.endpoint or str(model.source),
        engine=model.engine,
        runner=model.runner,
        state=str(unit.state if unit is not None else State.STOPPED),
        size_bytes=size_bytes,
        context=model.context,
        gpu_layers=model.gpu_layers,
        parallel=model.parallel,
        port=model.port,
        idle_timeout_s=model.idle_timeout_s,
        preload=model.preload,
        pin=model.pin,
        priority=model.priority,
        exclusive=model.exclusive,
        group=model.group,
        default=model.name == settings.default_model,
        problem=problem,
    )


def _size(model: ModelSettings, library: Library) -> tuple[int | None, str | None]:
    if model.ref is not None:
        stored = library.find_ref(model.ref)
        if stored is None:
            return None, f"{model.ref} is not here; fetch it with: corral pull {model.ref}"
        return (stored.named.bytes if stored.named is not None else None), None
    if model.endpoint is not None:
        return None, None
    try:
        return model.source.stat().st_size, None
    except OSError as error:
        return None, f"{model.source}: {error.strerror}"


def unit_info(
    unit: Unit,
    place: Place | None,
    now: float,
    notes: Sequence[str] = (),
    expected_wait_s: float | None = None,
    held: Mapping[str, int] | None = None,
) -> UnitInfo:
    """`unit` with what the scheduler knows of it, and with `notes`; `now` is on `clock.monotonic`. It must have had a
    plan. `expected_wait_s` is shown where somebody waits; `held` are the bytes that it held at the last look."""
    plan = unit.plan
    assert plan is not None
    footprint = plan.footprint
    return UnitInfo(
        model=unit.model.name,
        unit=unit.name,
        generation=unit.generation,
        state=str(unit.state),
        engine=plan.engine,
        engine_version=plan.engine_version,
        runner=unit.model.runner,
        device="+".join(plan.devices),
        endpoint=str(plan.endpoint),
        pid=unit.running.pid if unit.running is not None else None,
        memory_bytes=unit.memory_bytes(),
        footprint_bytes=footprint.total_bytes or None,
        footprint_origin=footprint.origin if footprint.total_bytes else None,
        context=plan.context,
        slots=plan.slots,
        port=unit.model.port,
        busy=len(place.leases) if place is not None else 0,
        queued=len(place.line) if place is not None and place.first else 0,
        since_wall_s=unit.since_wall_s,
        ready_wall_s=unit.ready_wall_s,
        load_ms=unit.load_ms,
        idle_stop_in_s=idle_stop_in_s(unit, place, now),
        restarts=unit.restarts,
        reason=unit.reason,
        warnings=[*plan.warnings, *notes],
        placement=plan.placement,
        degraded=plan.degraded or None,
        expected_wait_s=expected_wait_s if place is not None and place.first and place.line else None,
        waits_for=(place.short_why or None) if place is not None and place.short else None,
        kept=str(place.kept) if place is not None and place.kept is not None else None,
        gpu_bytes=sum(size for device, size in footprint.bytes_by_device.items() if device != "cpu")
        if footprint.total_bytes
        else None,
        held_bytes=sum(held.values()) if held and unit.running is not None else None,
    )


def plan_info(plan: LaunchPlan, preview: Preview) -> PlanInfo:
    footprint, limits = plan.footprint, plan.limits
    return PlanInfo(
        model=plan.model,
        unit=plan.unit,
        engine=plan.engine,
        engine_version=plan.engine_version,
        runner=plan.runner,
        argv=list(plan.argv),
        command=list(preview.argv),
        env=dict(preview.env),
        endpoint=str(plan.endpoint),
        mounts=[MountInfo(str(each.source), each.target, each.read_only) for each in plan.mounts],
        devices=list(plan.devices),
        nodes=list(plan.nodes),
        image=plan.image or None,
        image_id=plan.image_id or None,
        footprint=dict(footprint.bytes_by_device),
        footprint_origin=footprint.origin,
        memory_limit_bytes=limits.memory_bytes or None if limits is not None else None,
        pids_limit=limits.pids if limits is not None else None,
        context=plan.context,
        slots=plan.slots,
        placement=plan.placement,
        degraded=plan.degraded or None,
        warnings=list(plan.warnings),
    )


def idle_stop_in_s(unit: Unit, place: Place | None, now: float) -> float | None:
    if place is None or unit.state is not State.READY or place.leases or place.rest_s == float("inf"):
        return None
    return max(0.0, place.idle_since + place.rest_s - now)


def own_memory_bytes() -> int:
    """This process's resident memory now; the peak where the platform tells no better."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def greet(options: ServeOptions, addresses: list[str], settings: Settings) -> None:
    """Says on standard output that the server is up: for people, or as one line of JSON."""
    if options.json:
        facts = {"listen": addresses, "pid": os.getpid(), "version": __version__, "started_wall_s": clock.wall()}
        print(json.dumps(facts), flush=True)  # noqa: T201 - the greeting is this command's output
        return
    if options.quiet:
        return
    where = ", ".join(a if a.startswith("unix:") else f"http://{a}" for a in addresses)
    models = ", ".join(settings.models) or "none yet"
    source = settings.file if settings.file is not None else "built-in defaults (corral config init writes a file)"
    lines = [f"Corral {__version__} listens on {where}", f"  models: {models}", f"  config: {source}"]
    print("\n".join(lines), flush=True)  # noqa: T201


def ending(why: str, running: int, drain_s: float) -> str:
    """That the server ends, and what it waits for."""
    if not running:
        return f"ending: {why}"
    those = "1 answer still runs" if running == 1 else f"{running} answers still run"
    return f"ending: {why}; {those}, for {show_duration(drain_s)} at most (a second Ctrl-C or signal does not wait)"


def taking_over(pid: int, version: str) -> str:
    """That the server takes the place of another."""
    return f"takes over from process {pid} (version {version})"


def took_over(pid: int, running: Sequence[str], held: Mapping[str, int]) -> str:
    """What it has of the other, and what answers of which models that one still relays."""
    still = f"; {sum(held.values())} answers still run there" if held else ""
    return f"took over from process {pid} with {', '.join(running) or 'no engines'}{still}"
