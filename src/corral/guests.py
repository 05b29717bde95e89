"""Guests: stored models, and those of read-only roots, that nothing configures, served because somebody named them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import MappingProxyType

from corral.config.settings import ModelSettings, Settings
from corral.errors import BadReference, CallerError, ConfigError, CorralError, ModelFileError, UnknownModel
from corral.models.library import Library, Stored
from corral.refs import Ref
from corral.scheduler.state import Spec


class Guests:
    """The guests there are, and the scheduling facts of every model. Those methods that look into the store block."""

    def __init__(self, library: Library, specs: dict[str, Spec]) -> None:
        self._library = library
        self._models: dict[str, ModelSettings] = {}
        self.specs = dict(specs)

    def add(self, model: ModelSettings, spec: Spec) -> None:
        self._models[model.name] = model
        self.specs[model.name] = spec

    def among(self, configured: Settings) -> Settings:
        """`configured` and the guests; a configured name wins."""
        taken = {name for model in configured.models.values() for name in (model.name, *model.aliases)}
        own = {name: model for name, model in self._models.items() if name not in taken}
        return replace(configured, models=MappingProxyType({**configured.models, **own})) if own else configured

    def specs_for(self, settings: Settings) -> dict[str, Spec]:
        """Those of the models in `settings`; others are forgotten."""
        self.specs = {name: spec for name, spec in self.specs.items() if name in settings.models}
        return dict(self.specs)

    def among_those(self, names: Collection[str]) -> set[str]:
        """Those of `names` that are guests of the store."""
        return {name for name, model in self._models.items() if name in names and model.ref is not None}

    def drop_gone(self, running: Collection[str]) -> bool:
        """Forgets guests that are no longer in the store, and those of read-only roots that are not there and do not
        run; whether there were any."""
        gone = [
            name
            for name, model in self._models.items()
            if not (
                self._library.is_here(model.ref) if model.ref is not None else name in running or model.source.exists()
            )
        ]
        for name in gone:
            del self._models[name]
        return bool(gone)

    def look(self, name: str) -> Stored | None:
        """The stored model that `name` means. Raises CallerError when it may mean several."""
        try:
            return self._library.find(name)
        except UnknownModel:
            return None

    def look_in_roots(self, name: str) -> ModelSettings | None:
        """The model of a read-only root that `name` means, to be served as it lies there."""
        if not (roots := self._library.settings.model_roots):
            return None
        from corral.models.roots import list_roots

        models = list_roots(roots)
        wanted = {name, self._full(name)}
        found = next((each for each in models if wanted & {each.name, each.label}), None)
        if found is None or found.main is None:
            return None
        if found.problem:
            raise ModelFileError(f"{found.label} cannot be served: {found.problem}", hint="corral import can help")
        args = ("--mmproj", str(found.projector)) if found.projector is not None else ()
        return replace(self._library.settings.guest(found.name, found.main), args=args, roots=roots)

    def names(self) -> list[tuple[str, float]]:
        """Every name of the store, and since when it is there."""
        return [(each.name, each.at_wall_s) for each in self._library.store.names()]

    def fetchable(self, name: str) -> Ref | None:
        """What a request for `name` may fetch: a whole reference or a short name, and never a mere word."""
        try:
            if not self._says_where(name):
                return None
            ref = self._library.ref(name)
        except (BadReference, ConfigError):
            return None
        return ref if ref.kind != "file" and self._library.may_auto_pull(ref) else None

    def explained(self, name: str, unknown: UnknownModel) -> CorralError:
        """`unknown`, with how the model can be had where `name` says that."""
        try:
            if not self._says_where(name):
                return unknown
            ref = self._library.ref(name)
        except (CallerError, ConfigError):
            return unknown
        if ref.kind == "file":
            return unknown
        near = f"; or did you mean {unknown.details['nearest']!r}?" if "nearest" in unknown.details else ""
        hint = f"fetch it with: corral pull {name}{near}"
        return UnknownModel(unknown.message, hint=hint, **unknown.details)

    def called(self, name: str) -> tuple[str, ...]:
        """What a model that somebody calls `name` is called: that, and its full name."""
        return tuple({name, self._full(name)})

    def _full(self, name: str) -> str:
        try:
            return self._library.ref(name).name
        except (CallerError, ConfigError):
            return name

    def _says_where(self, name: str) -> bool:
        return "/" in name or name.partition(":")[0].lower() in self._library.short_names()
