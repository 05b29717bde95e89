"""An adapter whose plans are for a container where the model says so: what it sees of this machine, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines.adapter import Adapter, Around, Start
from corral.engines.confined import PIDS, SLACK_BYTES, own_folder
from corral.engines.plan import LaunchPlan, Limits, Mount
from corral.errors import EngineError
from corral.models.memory.predict import PROCESSOR
from corral.runners.containers.containers import Containers
from corral.runners.containers.host import Host
from corral.runners.containers.local import readable_by_all
from corral.runners.containers.spec import doubts, identity

PIDS_OF_VLLM: Final = 8192
"""Each of its processes has several pools with a thread for each processor."""


class Contained(Around):
    """Another adapter, for models with `runner: podman` or `docker` too. Thread-safe."""

    def __init__(self, inner: Adapter, containers: Callable[[str], Containers]) -> None:
        super().__init__(inner)
        self._containers = containers

    def plan(self, start: Start) -> LaunchPlan:
        model = start.model
        if model.runner == "process":
            return self._inner.plan(start)
        _check(model)
        plan = self._inner.plan(replace(start, endpoint=own_folder(start.endpoint)))
        if not plan.image:
            raise EngineError(
                f"engine {model.engine} of {model.name} cannot run in a container", hint="set `runner: process`"
            )
        return complete(replace(plan, runner=model.runner), self._containers(model.runner).engine.host())


def complete(plan: LaunchPlan, host: Host) -> LaunchPlan:
    """`plan` with the files that its arguments name, its limits, and what has to be said. Blocks for a moment."""
    seen = {mount.target for mount in plan.mounts}
    named = tuple(Mount(path, str(path)) for path in dict.fromkeys(_named(plan)) if str(path) not in seen)
    mounts = (*plan.mounts, *named)
    own = plan.footprint.bytes_by_device.get(PROCESSOR, 0)
    memory = own + max(SLACK_BYTES, own // 4) if own else 0  # 0: nothing is known, so nothing is bounded
    readable = readable_by_all(mount.source for mount in mounts)
    user, namespace = identity(host, readable=readable, devices=bool(plan.nodes))
    return replace(
        plan,
        mounts=mounts,
        limits=Limits(memory, PIDS if plan.engine != "vllm" else PIDS_OF_VLLM),
        warnings=(*plan.warnings, *doubts(host, user, namespace)),
    )


def _named(plan: LaunchPlan) -> Iterator[Path]:
    """Files in the engine's arguments: projectors, adapters, templates. Whole folders only where the plan has them."""
    for word in plan.argv[1:]:
        value = word.partition("=")[2] if word.startswith("--") else word
        if value.startswith("/") and (path := Path(value)).is_file():
            yield path


def _check(model: ModelSettings) -> None:
    if any(each.partition("=")[0] == "--rpc" for each in model.args):
        raise EngineError(
            f"--rpc of {model.name} reaches other machines, and its container has no network",
            hint="take --rpc out of `args`, or set `runner: process`",
            model=model.name,
        )
