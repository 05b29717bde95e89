"""What is known of a model's way to talk before it runs: its template and architecture, read once."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

from corral import clock
from corral.config.settings import ModelSettings
from corral.errors import CorralError
from corral.gateway.dialects.reasoning.style import Style, style_of
from corral.gateway.models_host import ModelsHost
from corral.models.formats.shards import read_model

AGAIN_S = 60.0
"""After so long, what is in the store, or could not be read, is looked at anew: it may have been changed or mended."""


class Traits:
    """The style of each model. Read from its file or the store when first asked for; again when its settings change."""

    def __init__(self, models: ModelsHost | None = None) -> None:
        self._models = models
        self._known: dict[str, tuple[ModelSettings, Style, float]] = {}

    def known(self, model: ModelSettings) -> Style | None:
        """What is known already."""
        return self.until(model)[0]

    def until(self, model: ModelSettings) -> tuple[Style | None, float]:
        """The same, and until when it is taken for right."""
        found = self._known.get(model.name)
        if found is None or found[0] is not model or found[2] < clock.monotonic():
            return None, 0.0
        return found[1:]

    async def of(self, model: ModelSettings) -> Style:
        """Never raises: a model of which nothing can be read is one that does not think."""
        if (known := self.known(model)) is not None:
            return known
        template, architecture, until = "", "", math.inf
        try:
            if model.endpoint is not None and model.source == Path(model.endpoint):
                pass  # its files are somewhere else
            elif model.engine == "vllm" and model.ref is None:
                template, architecture = await asyncio.to_thread(_of_folder, model.source)
            elif model.ref is None:
                header = await asyncio.to_thread(read_model, model.source)
                template, architecture = header.chat_template or "", header.architecture
            elif self._models is not None:
                until = clock.monotonic() + AGAIN_S
                card = await self._models.show(model.name)
                template, architecture = card.template_text or "", card.architecture
            template = await asyncio.to_thread(_own, model) or template
        except (CorralError, OSError):
            until = clock.monotonic() + AGAIN_S
        style = style_of(template, architecture, model.args, model.reasoning)
        self._known[model.name] = (model, style, until)
        return style


def _of_folder(folder: Path) -> tuple[str, str]:
    """Template and architecture of a model in Hugging Face's layout. Raises OSError."""
    family = _json(folder / "config.json").get("model_type")
    return template_of(folder), family if isinstance(family, str) else ""


def template_of(folder: Path) -> str:
    """The chat template of a model in Hugging Face's layout; "" where there is none. Raises OSError."""
    jinja = folder / "chat_template.jinja"
    template = jinja.read_text(encoding="utf-8", errors="replace") if jinja.is_file() else None
    if template is None and (folder / "tokenizer_config.json").is_file():
        template = _json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _own(model: ModelSettings) -> str:
    """The template that the model's flags name; empty when they name none, or one of the engine's own by its name."""
    args = model.args
    for at, flag in enumerate(args):
        name, equals, value = flag.partition("=")
        value = value if equals else "".join(args[at + 1 : at + 2])
        if name == "--chat-template" and "{" in value:
            return value
        if name == "--chat-template-file":
            return Path(value).expanduser().read_text(encoding="utf-8", errors="replace")
    return ""
