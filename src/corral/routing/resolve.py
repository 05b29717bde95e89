"""From the name a client wrote to the model that answers. Pure."""

from __future__ import annotations

import difflib

from corral.config.settings import ModelSettings, Settings
from corral.errors import MissingModel, UnknownModel


def resolve(settings: Settings, name: str | None, listener_default: str | None = None) -> ModelSettings:
    """The model called `name`, by name first and by alias second.

    Without a name: the listener's own model, else `default_model`.

    Raises UnknownModel with the nearest known name, or MissingModel when none was named and none is the default.
    """
    if name is None or name == "":
        chosen = listener_default or settings.default_model
        if chosen is None:
            raise MissingModel(
                "the request names no model",
                hint='add "model" to the request, or set default_model in models.yaml',
            )
        name = chosen
    found = settings.models.get(name)
    if found is not None:
        return found
    for model in settings.models.values():
        if name in model.aliases:
            return model
    raise unknown(settings, name)


def unknown(settings: Settings, name: str) -> UnknownModel:
    """The error for a name nobody answers to, with the nearest one that somebody does."""
    known = [alias for model in settings.models.values() for alias in (model.name, *model.aliases)]
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    shown = name if len(name) <= 200 else name[:200] + "…"
    if near:
        return UnknownModel(
            f"no model is called {shown!r}",
            hint=f"did you mean {folded[near[0]]!r}? `corral list` shows all",
            model=shown,
            nearest=folded[near[0]],
        )
    return UnknownModel(f"no model is called {shown!r}", hint="`corral list` shows the models there are", model=shown)
