"""From the configuration to what the scheduler decides by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from corral.config.settings import ModelSettings, Settings
from corral.engines.adapter import Adapter
from corral.scheduler.state import Policy, Spec

Adapters = Mapping[str, Adapter]
"""Engine adapters by the value of the `engine` key."""


async def specs(settings: Settings, adapters: Adapters) -> dict[str, Spec]:
    """Scheduling facts by model. Footprints are read only where a budget makes them matter."""
    if not settings.memory:
        return {name: spec(model, {}) for name, model in settings.models.items()}
    return await asyncio.to_thread(_with_footprints, settings, adapters)


def _with_footprints(settings: Settings, adapters: Adapters) -> dict[str, Spec]:
    made: dict[str, Spec] = {}
    for name, model in settings.models.items():
        try:
            footprint = dict(adapters[model.engine].footprint(model).bytes_by_device)
        except Exception:  # noqa: BLE001 - the model cannot start either, and will say why when it is asked to
            footprint = {}
        made[name] = spec(model, footprint)
    return made


async def one_spec(model: ModelSettings, settings: Settings, adapters: Adapters) -> Spec:
    """The same for one model."""
    return (await specs(replace(settings, models={model.name: model}), adapters))[model.name]


def spec(model: ModelSettings, footprint: dict[str, int]) -> Spec:
    """`model` as the scheduler sees it."""
    return Spec(
        name=model.name,
        slots=model.parallel,
        idle_timeout_s=model.idle_timeout_s,
        pin=model.pin,
        priority=model.priority,
        exclusive=model.exclusive,
        group=model.group,
        footprint=footprint,
        replicas=model.replicas,
        sleeps=model.engine == "vllm" and model.sleep > 0,
        schedule=model.schedule,
        elsewhere=model.runner == "server",
    )


def policy(settings: Settings) -> Policy:
    return Policy(
        max_active=settings.max_active,
        budgets=dict(settings.memory),
        headroom=settings.headroom,
        max_queue=settings.max_queue,
        max_wait_s=settings.max_wait_s,
        min_residency_s=settings.min_residency_s,
        default_model=_default(settings),
        return_s=settings.return_to_default_s,
        drain_s=settings.timeouts.drain_s,
    )


def _default(settings: Settings) -> str | None:
    """The default model by its own name."""
    wanted = settings.default_model
    return next((model.name for model in settings.models.values() if wanted in (model.name, *model.aliases)), None)
