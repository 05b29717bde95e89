"""Docker's view of the models: what a text names, and the facts of each. Files of models.yaml count as models too."""

from __future__ import annotations

from corral.config.settings import ModelSettings
from corral.errors import CallerError, UnknownModel
from corral.gateway.api.ollama_models import OllamaModels
from corral.gateway.dialects.docker.names import Wanted, full, wanted
from corral.gateway.dialects.docker.shapes import Entry
from corral.gateway.dialects.ollama.facts import Facts
from corral.gateway.gate import Caller, may_not
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost


class DockerModels:
    """Over one host and one store, which may be missing."""

    def __init__(self, host: Host, models: ModelsHost | None) -> None:
        self._host, self._models = host, models
        self._facts = OllamaModels(host, models)

    async def entries(self, caller: Caller | None = None) -> list[Entry]:
        """Every model that is here and that `caller` may have, once, by all its names; the newest first."""
        found: dict[str, tuple[list[str], Facts]] = {}
        for name, facts in await self._facts.all(caller):
            found.setdefault(facts.digest, ([], facts))[0].append(name)
        entries = [_entry(tuple(names), facts) for names, facts in found.values()]
        return sorted(entries, key=lambda each: -each.created_s)

    async def locate(self, text: str, caller: Caller | None = None) -> tuple[Entry, str]:
        """The model that `text` means, and which of its names that is; empty for an id.

        Raises UnknownModel, CallerError for an id that several have, and Forbidden for a name that `caller` may not
        have, be there such a model or not.
        """
        entries, asked = await self.entries(caller), wanted(text)
        for each in asked.names:
            for entry in entries:
                for name in entry.names:
                    if name.casefold() == each.casefold():
                        return entry, name
        if asked.digest:
            near = [entry for entry in entries if entry.digest.startswith(asked.digest)]
            if len(near) > 1:
                raise CallerError(f"the id {text[:80]!r} may mean several models", hint="give more of its digits")
            if near:
                return near[0], ""
        if caller is not None and not caller.may_use(asked.names):
            raise may_not(text)
        raise _unknown(text, asked)

    async def find(
        self, text: str | None, listener_default: str | None = None, caller: Caller | None = None
    ) -> ModelSettings:
        """The model that a request means; where the configuration allows it, one is fetched.

        Raises Forbidden, UnknownModel, MissingModel, CallerError, and what a pull raises.
        """
        if not text:
            return await self._host.find(text, listener_default, caller)
        for each in wanted(text).names:  # most requests end here, without a look at the store
            if each in self._host.settings.models:
                return await self._host.find(each, listener_default, caller)
        try:
            entry, name = await self.locate(text, caller)
        except UnknownModel as unknown:
            asked = wanted(text)
            if asked.digest or len(asked.names) < 2:
                raise
            try:
                return await self._host.find(asked.names[-1], listener_default, caller)
            except UnknownModel:
                raise unknown from None
        return await self._host.find(name or entry.names[0], listener_default, caller)

    async def in_store(self, text: str) -> tuple[Entry, str]:
        """As `locate`, for a model of the store. Raises CallerError for a file of models.yaml."""
        entry, name = await self.locate(text)
        stored = {row.name for row in await self._models.stored()} if self._models is not None else set()
        name = name or next((each for each in entry.names if each in stored), entry.names[0])
        if name not in stored:
            raise CallerError(
                f"{name} is a file that models.yaml names, not a model of the store",
                hint="change models.yaml, or bring the file in with: corral package FILE -t NAME",
            )
        return entry, name

    async def of(self, model: ModelSettings) -> Entry:
        """What is known of a model that is served. Raises CorralError, OSError."""
        return _entry((model.name, *model.aliases), await self._facts.facts(model))


def _entry(names: tuple[str, ...], facts: Facts) -> Entry:
    return Entry(
        facts.digest, names, facts.size, facts.modified_s, facts.format, facts.family, facts.parameters,
        facts.quantization, facts.context_length, facts.capabilities, facts.metadata,
    )  # fmt: skip


def _unknown(text: str, asked: Wanted) -> UnknownModel:
    shown = text if len(text) <= 200 else text[:200] + "…"
    try:
        hint = f"fetch it with: docker model pull {shown}, or corral pull {full(text)}" if not asked.digest else ""
    except CallerError:
        hint = ""
    return UnknownModel(f"model not found: {shown}", hint=hint or "GET /models lists the models there are", model=shown)
