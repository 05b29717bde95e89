"""An adapter whose plans are shut in and bounded as models want it: bubblewrap and cgroups around plain processes.

Where they cannot be had, that is an error or a warning, never silence.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import corral
from corral.config.settings import ModelSettings
from corral.engines import bubblewrap, embedded_host, executables
from corral.engines.adapter import Around, Start
from corral.engines.plan import Endpoint, LaunchPlan, Limits
from corral.errors import EngineMissing
from corral.hardware import cgroups, confinement
from corral.hardware.confinement import NoSandbox
from corral.models.memory.predict import PROCESSOR

PIDS: Final = 1024
"""Threads included: llama.cpp has one or two for each processor and connection."""
SLACK_BYTES: Final = 512 << 20
"""What an engine may take beyond its footprint before it is ended; a quarter of the footprint where that is more."""
SOCKET: Final = "s.sock"


class Confined(Around):
    """Another adapter, whose plans run as `sandbox` and `limits` of their models say. Thread-safe."""

    def plan(self, start: Start) -> LaunchPlan:
        model = start.model
        boxed, warnings = False, []
        if model.runner == "process" and model.sandbox != "off":
            try:
                _check(model, start.endpoint)
                boxed, start = True, replace(start, endpoint=own_folder(start.endpoint))
            except NoSandbox as why:
                warnings.append(_without(model, why))
        plan = self._inner.plan(start)
        if plan.runner == "process" and model.limits:
            plan = limited(plan)
        if boxed:
            try:
                plan = sandboxed(plan)
            except NoSandbox as why:
                warnings.append(_without(model, why))
        return replace(plan, warnings=(*plan.warnings, *warnings)) if warnings else plan


def own_folder(endpoint: Endpoint) -> Endpoint:
    """An endpoint in a folder of its own, beside which the sockets of others are not: `a.1.sock` → `a.1/s.sock`."""
    socket = endpoint.socket
    if socket is None or socket.name == SOCKET:
        return endpoint
    return Endpoint(socket=socket.with_name(socket.name.removesuffix(".sock")) / SOCKET)


def sandboxed(plan: LaunchPlan) -> LaunchPlan:
    """`plan` in bubblewrap. Blocks. Raises NoSandbox."""
    bwrap, env = confinement.find_bwrap()
    confinement.check(bwrap, env)
    host = bubblewrap.Host(bwrap, env, confinement.APART, tuple(dict.fromkeys(_programs(plan))))
    return bubblewrap.wrap(plan, host, {**os.environ, **plan.env})


def limited(plan: LaunchPlan) -> LaunchPlan:
    """`plan` with its limits, or a warning that says why there are none. Blocks for a moment."""
    try:
        cgroups.find()
    except cgroups.NotPermitted as why:
        return replace(plan, warnings=(*plan.warnings, f"limits not enforced ({why})"))
    own = plan.footprint.bytes_by_device.get(PROCESSOR, 0)
    return replace(plan, limits=Limits(own + max(SLACK_BYTES, own // 4), PIDS))


def _check(model: ModelSettings, endpoint: Endpoint) -> None:
    if model.engine != "llama.cpp":
        raise NoSandbox(f"engine {model.engine} is not made for one", "set `sandbox: off`, or run it in a container")
    if endpoint.socket is None:
        raise NoSandbox("its engine listens on TCP, and a sandbox has no network", "set `sandbox: off`")
    if any(each.partition("=")[0] == "--rpc" for each in model.args):
        raise NoSandbox("--rpc reaches other machines, and a sandbox has no network", "take --rpc out of `args`")
    confinement.check(*confinement.find_bwrap())


def _without(model: ModelSettings, why: NoSandbox) -> str:
    """The warning for going without. Raises EngineMissing where the sandbox is a must."""
    if model.sandbox == "bubblewrap":
        raise EngineMissing(f"{model.name} cannot be sandboxed: {why}", hint=why.hint, model=model.name) from why
    return f"not sandboxed: {why}"


def _programs(plan: LaunchPlan) -> Iterator[Path]:
    """The folders that the engine's program and libraries are in. Raises NoSandbox."""
    own = embedded_host.command()
    if plan.argv[: len(own)] == own:
        yield from (Path(each) for each in (sys.prefix, sys.base_prefix, sys.base_exec_prefix))
        yield from (Path(sysconfig.get_path("stdlib")), Path(os.path.realpath(sys.executable)).parent)
        yield Path(corral.__path__[0]).absolute()
        yield executables.embedded().path.parent
        return
    program = Path(plan.argv[0])
    home = Path.home()
    folders = [program.parent, *(each.parent for each in executables.llama_server(str(program)).libraries)]
    for folder in folders:
        if folder == home or folder in home.parents:
            raise NoSandbox(
                f"{program} lies in {folder}, which has more in it", "move the engine to a folder of its own"
            )
        yield folder
