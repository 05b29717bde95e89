"""An adapter for models of the store: they are placed and held first, and then planned like any file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from corral.config.settings import ModelSettings
from corral.engines.adapter import Adapter, Start
from corral.engines.plan import Footprint, LaunchPlan
from corral.refs import Ref

if TYPE_CHECKING:
    from corral.engines.defaults import Wanted
    from corral.models.library import Ready
    from corral.store.holds import Hold


class FromStore:
    """Another adapter, for models with a `ref` too. Thread-safe.

    What it plans stays held, so that no removal takes it away, until `release`.
    """

    def __init__(self, inner: Adapter, ready: Callable[[Ref], Ready], templates: Path) -> None:
        self._inner, self._ready, self._templates = inner, ready, templates
        self._held: dict[str, tuple[str, Hold]] = {}
        self._lock = threading.Lock()

    def plan(self, start: Start) -> LaunchPlan:
        model = start.model
        if model.ref is None:
            return self._inner.plan(start)
        ready = self._ready(model.ref)
        try:
            wanted = self._wanted(model, ready)
            plan = self._inner.plan(replace(start, model=wanted.model))
        except BaseException:
            ready.hold.release()
            raise
        self._keep(model.name, ready.stored.digest, ready.hold)
        return replace(plan, warnings=(*plan.warnings, *wanted.warnings))

    def preview(self) -> Adapter:
        """The same for plans that nobody carries out: nothing is held for them."""
        return _Preview(self)

    def plan_unheld(self, start: Start) -> LaunchPlan:
        """As `plan`, but the model is held only while it is planned."""
        model = start.model
        if model.ref is None:
            return self._inner.plan(start)
        ready = self._ready(model.ref)
        with ready.hold:
            wanted = self._wanted(model, ready)
            plan = self._inner.plan(replace(start, model=wanted.model))
            return replace(plan, warnings=(*plan.warnings, *wanted.warnings))

    def footprint(self, model: ModelSettings) -> Footprint:
        if model.ref is None:
            return self._inner.footprint(model)
        ready = self._ready(model.ref)
        with ready.hold:
            wanted = self._wanted(model, ready)
            return self._inner.footprint(wanted.model)

    def has_gpus(self, model: ModelSettings) -> bool:
        if model.ref is None:
            return self._inner.has_gpus(model)
        ready = self._ready(model.ref)
        with ready.hold:
            return self._inner.has_gpus(self._wanted(model, ready).model)

    def _wanted(self, model: ModelSettings, ready: Ready) -> Wanted:
        from corral.engines import defaults  # loaded by those who have stored models

        apply = defaults.apply if model.engine == "llama.cpp" else defaults.apply_folder
        return apply(model, ready.placed, ready.content, self._templates)

    def _keep(self, model: str, digest: str, hold: Hold) -> None:
        with self._lock:
            old = self._held.get(model)
            self._held[model] = (digest, hold)
        if old is not None:
            old[1].release()

    def release(self, model: str) -> None:
        """The model's engine has ended. Nothing where none was planned."""
        with self._lock:
            old = self._held.pop(model, None)
        if old is not None:
            old[1].release()

    def held(self) -> dict[str, str]:
        """The digests that engines use, by model."""
        with self._lock:
            return {model: digest for model, (digest, _) in self._held.items()}


class _Preview:
    def __init__(self, of: FromStore) -> None:
        self._of = of

    def plan(self, start: Start) -> LaunchPlan:
        return self._of.plan_unheld(start)

    def footprint(self, model: ModelSettings) -> Footprint:
        return self._of.footprint(model)

    def has_gpus(self, model: ModelSettings) -> bool:
        return self._of.has_gpus(model)
