"""What a server does by itself once it answers: it looks its engines up, and starts what is to be preloaded."""

from __future__ import annotations

from contextlib import suppress

from corral.config.settings import Settings
from corral.control_plane import ControlPlane
from corral.errors import CorralError
from corral.facts import Adapters


def warm(adapters: Adapters, settings: Settings) -> None:
    """Has each engine looked for and asked for its version now, so that no first request waits for it."""
    for model in {(each.engine, each.executable): each for each in settings.models.values()}.values():
        with suppress(Exception):  # whoever asks for the model will hear of it
            adapters[model.engine].footprint(model)


async def preload(plane: ControlPlane, name: str) -> None:
    try:
        await plane.start(name)
    except CorralError as error:
        plane.events.post("unit.warning", f"{name} is not preloaded: {error.message}", model=name)
