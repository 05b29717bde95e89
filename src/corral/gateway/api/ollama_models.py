"""Ollama's view of the models: what a name means, and the facts of each; looked up once for each file."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from corral import clock
from corral.config.settings import ModelSettings
from corral.errors import CallerError, CorralError, NotInStore, UnknownModel
from corral.gateway.dialects.ollama import names
from corral.gateway.dialects.ollama.facts import Facts, Running, identity
from corral.gateway.gate import Caller
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.models.formats.capabilities import capabilities
from corral.models.formats.gguf import LongArray
from corral.models.formats.shards import read_model

if TYPE_CHECKING:
    from corral.api import UnitInfo
    from corral.api_store import ModelCard, StoredModel

_REMEMBERED = 4096
_ABLE_S = 5.0


class OllamaModels:
    """Over one host and one store, which may be missing."""

    def __init__(self, host: Host, models: ModelsHost | None) -> None:
        self._host, self._models = host, models
        self._known: dict[str, Facts] = {}
        self._able: dict[str, tuple[ModelSettings, float, tuple[str, ...]]] = {}

    async def find(self, name: str, listener_default: str | None = None, caller: Caller | None = None) -> ModelSettings:
        """The model that a request means; where the configuration allows it, one is fetched.

        Raises UnknownModel in Ollama's words, CallerError, and what a pull raises.
        """
        if not name:
            if listener_default is None and self._host.settings.default_model is None:
                raise CallerError("model is required", hint="GET /api/tags lists the models", param="model")
            return await self._host.find(None, listener_default, caller)
        if (known := self._configured(name) or await self._of_store(name)) is not None:
            return await self._host.find(known, None, caller)  # it may have to be made ready first
        try:
            return await self._host.find(names.reference(name), None, caller)
        except (UnknownModel, NotInStore) as exc:
            hint = f"fetch it with POST /api/pull, or: corral pull {names.reference(name)}"
            details = {key: value for key, value in exc.details.items() if key != "hint"}
            raise UnknownModel(f"model '{name}' not found", hint=hint, **details) from exc

    def _configured(self, name: str) -> str | None:
        settings = self._host.settings
        listed = {each: model.name for model in settings.models.values() for each in (*model.aliases, model.name)}
        folded = {each.casefold(): known for each, known in listed.items()}
        tried = names.candidates(name)
        return next(
            (listed[each] for each in tried if each in listed),
            next((folded[each.casefold()] for each in tried if each.casefold() in folded), None),
        )

    async def _of_store(self, name: str) -> str | None:
        stored = {each: each for each, _ in await self._host.stored_names()}
        folded = {each.casefold(): each for each in stored}
        tried = names.candidates(name)
        return next(
            (stored[each] for each in tried if each in stored),
            next((folded[each.casefold()] for each in tried if each.casefold() in folded), None),
        )

    async def in_store(self, name: str) -> str:
        """The store's own name of the model that `name` means. Raises UnknownModel in Ollama's words, CallerError."""
        if not name:
            raise CallerError("model is required", hint="GET /api/tags lists the models", param="model")
        rows = {row.name: row for row in await self._stored()}
        folded = {each.casefold(): each for each in rows}
        for each in names.candidates(name):
            if each.casefold() in folded:
                return folded[each.casefold()]
        endings = tuple(f"/{name}{tag}" for tag in ("", names.TAG))
        near = [each for each in rows if each.endswith(endings)]
        if len(near) == 1:
            return near[0]
        configured = self._configured(name)
        if configured is not None and self._host.settings.models[configured].ref is None:
            raise CallerError(
                f"{configured} is a file that models.yaml names, not a model of the store",
                hint="change models.yaml, or bring the file in with: corral package FILE -t NAME",
            )
        raise UnknownModel(f"model '{name}' not found", hint="GET /api/tags lists the models", model=name)

    async def look(self, name: str, listener_default: str | None = None) -> tuple[str, Facts]:
        """What a request for a model's card means; nothing is fetched or begun. Raises UnknownModel, CallerError."""
        if not name or (configured := self._configured(name)) is not None:
            model = self._host.resolve(configured if name else None, listener_default)
            return model.name, await self.facts(model)
        stored = await self.in_store(name)
        row = next(row for row in await self._stored() if row.name == stored)
        return stored, await self._of_row(row)

    async def _stored(self) -> list[StoredModel]:
        return await self._models.stored() if self._models is not None else []

    def allows(self, caller: Caller | None, name: str) -> bool:
        """Whether `caller` may know of the model called `name`."""
        if caller is None:
            return True
        model = self._host.settings.models.get(name)
        return caller.may_use((name,) if model is None else (model.name, *model.aliases))

    async def all(self, caller: Caller | None = None) -> list[tuple[str, Facts]]:
        """Every model that is here and that `caller` may use, by each of its names."""
        found = []
        for model in list(self._host.settings.models.values()):
            if not self.allows(caller, model.name):
                continue
            with suppress(CorralError, OSError):  # a model that is not here, or cannot be read, is not offered
                facts = await self.facts(model)
                found += [(name, facts) for name in (model.name, *model.aliases)]
        listed = {name for model in self._host.settings.models.values() for name in (model.name, *model.aliases)}
        for row in await self._stored():
            if row.name not in listed and not row.problem and self.allows(caller, row.name):
                with suppress(CorralError, OSError):
                    found.append((row.name, await self._of_row(row)))
        return found

    async def able(self, model: ModelSettings) -> tuple[str, ...]:
        """What `model` can do; empty where nothing can be read of it. Looked up again after some seconds."""
        seen, until, able = self._able.get(model.name, (None, 0.0, ()))
        if seen is not model or until < clock.monotonic():
            with suppress(CorralError, OSError):
                able = (await self.facts(model)).capabilities
            self._able[model.name] = (model, clock.monotonic() + _ABLE_S, able)
        return able

    async def facts(self, model: ModelSettings) -> Facts:
        """Raises CorralError, OSError."""
        if model.ref is None:
            return await asyncio.to_thread(self._of_file, model)
        assert self._models is not None, "models of a store come from one"
        return await self._of_card(model.ref.name if model.ref.digest is None else str(model.ref))

    def _of_file(self, model: ModelSettings) -> Facts:
        path = model.source
        if model.engine == "vllm":
            from corral.gateway.api import folder_facts  # loaded by those who have such models

            key = folder_facts.stamp(path)
            return self._known.get(key) or self._remember(key, folder_facts.read_facts(path, key))
        seen = path.stat()
        digest = identity(path.resolve(), seen.st_size, seen.st_mtime_ns)
        projector = _projector(model)
        key = f"{digest}\0{projector}"
        if (known := self._known.get(key)) is None:
            known = self._remember(key, _read(path, digest, seen.st_mtime, vision=projector is not None))
        return known

    async def _of_row(self, row: StoredModel) -> Facts:
        if row.place is not None:
            return await asyncio.to_thread(self._of_file, ModelSettings(row.name, Path(row.place)))
        return await self._of_card(row.name)

    async def _of_card(self, name: str) -> Facts:
        assert self._models is not None
        row = next((each for each in await self._stored() if each.name == name), None)
        at = (row.at_wall_s or 0.0) if row is not None else 0.0
        key = f"{row.digest}\0{at}" if row is not None else ""
        if (known := self._known.get(key)) is None:
            known = self._remember(key, _of_card(await self._models.show(name), at))
        return known

    def _remember(self, key: str, facts: Facts) -> Facts:
        if key:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = facts
        return facts

    async def running(self, caller: Caller | None = None) -> list[Running]:
        """Every model that is loaded; one with several engines once, with what they all take."""
        found: dict[str, Running] = {}
        for unit in self._host.units():
            if unit.state not in ("ready", "sleeping", "draining") or not self.allows(caller, unit.model):
                continue
            name = unit.model
            model = self._host.settings.models.get(name)
            facts = None
            with suppress(CorralError, OSError):
                facts = await self.facts(model) if model is not None else None
            size = unit.footprint_bytes or unit.memory_bytes or 0
            more = Running(name, facts, size, _on_gpus(unit, size), unit.context, _left_s(unit, model))
            found[name] = _together(found[name], more) if name in found else more
        return list(found.values())


def _left_s(unit: UnitInfo, model: ModelSettings | None) -> float | None:
    """Seconds until it is unloaded, None for never. One that is busy has all of its idle time before it."""
    if unit.idle_stop_in_s is not None:
        return unit.idle_stop_in_s
    if unit.busy and unit.kept != "pin" and model is not None and not model.pin:
        return model.idle_timeout_s
    return None


def _on_gpus(unit: UnitInfo, size: int) -> int:
    """What of `size` is on GPUs."""
    if unit.gpu_bytes is not None:
        return min(size, unit.gpu_bytes)
    return size if "gpu" in unit.device else 0


def _together(one: Running, other: Running) -> Running:
    lefts = (one.left_s, other.left_s)
    left = None if None in lefts else max(each for each in lefts if each is not None)
    return Running(one.name, one.facts, one.size + other.size, one.vram + other.vram, one.context, left)


def _projector(model: ModelSettings) -> str | None:
    words = [word.partition("=")[0] for word in model.args]
    return "given" if {"--mmproj", "-mm", "--mmproj-url"} & set(words) else None


def _read(path: Path, digest: str, modified_s: float, *, vision: bool) -> Facts:
    header = read_model(path)
    return Facts(
        digest,
        header.file_bytes,
        modified_s,
        family=header.architecture,
        parameters=header.parameters,
        quantization=header.quantization,
        context_length=header.context_length,
        embedding_length=header.integer("{arch}.embedding_length"),
        capabilities=capabilities(header, vision=vision),
        template=header.chat_template or "",
        license=header.text("general.license") or "",
        metadata={
            key: [] if isinstance(value, LongArray) else value
            for key, value in header.metadata.items()
            if key != "tokenizer.chat_template"
        },
        tensors=tuple((tensor.name, str(tensor.type), tensor.shape) for tensor in header.tensors),
    )


def _of_card(card: ModelCard, at_wall_s: float) -> Facts:
    length = card.metadata.get(f"{card.architecture}.embedding_length")
    return Facts(
        card.digest.removeprefix("sha256:"),
        card.size_bytes,
        at_wall_s,
        format=card.format,
        family=card.architecture,
        parameters=card.parameters,
        quantization=card.quantization,
        context_length=card.context_length,
        embedding_length=length if isinstance(length, int) else None,
        capabilities=tuple(card.capabilities),
        template=card.template_text or "",
        system=card.system or "",
        license=card.license_text or "\n".join(card.licenses),
        params=card.params,
        metadata={key: value for key, value in card.metadata.items() if not _is_measured(value)},
    )


def _is_measured(value: object) -> bool:
    """The card's word for an array that it does not have."""
    return isinstance(value, str) and " of " in value and value.partition(" of ")[0].replace(",", "").isdigit()
