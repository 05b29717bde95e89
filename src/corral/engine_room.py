"""What serves models here, and what that runs in: adapters by engine, runners by name.

An engine is added by one entry in `ENGINES`, a runner by one in `RUNNERS`. What is behind an entry is loaded when a
model first needs it: a server whose models are GGUF files on plain processes never loads the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines.adapter import Adapter, Start
from corral.engines.confined import Confined
from corral.engines.from_ledger import FromLedger
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Footprint, LaunchPlan
from corral.engines.rooms import Machine
from corral.lazy_dataclass import dataclass
from corral.ledger.ledger import Ledger
from corral.runners.containers.records import folder_of
from corral.runners.process import ProcessRunner
from corral.runners.runner import Runner

if TYPE_CHECKING:
    from corral.engines.executables import Build
    from corral.engines.vllm_builds import VllmBuild
    from corral.runners.containers.containers import Containers


@dataclass(frozen=True, slots=True)
class Needs:
    """What adapters and runners may use of the server. All of it may be called from threads."""

    paths: Paths
    ledger: Ledger
    machine: Callable[[], Machine]  # this machine's memory; blocks
    slots_dir: Callable[[str], Path | None]  # where llama.cpp may save its slots, by model
    process: ProcessRunner
    say: Callable[[str], None] = lambda text: None  # what whoever runs the server should know; on the loop only
    made: dict[str, Any] = field(default_factory=dict)  # what adapters and runners share


def _llamacpp(needs: Needs) -> Adapter:
    def image(model: ModelSettings) -> Build:
        return _containers(needs, model.runner).images.build(model)

    return FromLedger(LlamaCpp(needs.machine, slots_dir=needs.slots_dir, images=image), needs.ledger)


def _detector(needs: Needs) -> Adapter:
    from corral.engines.detector import DetectorAdapter, Library, exporter
    from corral.runners.containers.detecting import DetectorInside

    def make(library: Callable[[str], Library] | None) -> DetectorAdapter:
        cache = needs.paths.cache_dir / "detector"
        return DetectorAdapter(needs.machine, cache, lambda: exporter(needs.paths.data_dir), library=library)

    inside = DetectorInside(make, lambda runner: _containers(needs, runner).images)
    return FromLedger(inside, needs.ledger)


def _vllm(needs: Needs) -> Adapter:
    from corral.engines.vllm import Vllm
    from corral.engines.vllm_builds import installed

    def image(model: ModelSettings) -> VllmBuild:
        return _containers(needs, model.runner).images.vllm(model)

    found = Vllm(needs.machine, lambda: installed(needs.paths.data_dir), needs.paths.cache_dir / "engines", image)
    return FromLedger(found, needs.ledger)


ENGINES: Final[Mapping[str, Callable[[Needs], Adapter]]] = {
    "llama.cpp": _llamacpp,
    "detector": _detector,
    "vllm": _vllm,
}
"""How the adapter of each engine is made, by the value of the `engine` key. `engines.args` has what reads its flags."""


def _process(needs: Needs) -> Runner:
    return needs.process


def _container(needs: Needs, kind: str) -> Runner:
    from corral.runners.containers.runner import ContainerRunner

    return ContainerRunner(_containers(needs, kind), needs.say)


def _containers(needs: Needs, kind: str) -> Containers:
    from corral.runners.containers.containers import ContainersByKind

    found: ContainersByKind = needs.made.setdefault("containers", ContainersByKind(needs.paths))
    return found(kind)


def _server(needs: Needs) -> Runner:
    from corral.runners.server import ServerRunner

    return ServerRunner()


RUNNERS: Final[Mapping[str, Callable[[Needs], Runner]]] = {
    "process": _process,
    "podman": lambda needs: _container(needs, "podman"),
    "docker": lambda needs: _container(needs, "docker"),
    "server": _server,
}
"""How each runner is made, by the value of the `runner` key."""


class ByEngine:
    """The adapter of every model: each is planned by its own engine's. Thread-safe."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._made: dict[str, Adapter] = {}

    def of(self, engine: str) -> Adapter:
        """The adapter of `engine`, made when first asked for."""
        if engine not in self._made:  # made twice by two threads at worst: an adapter holds nothing
            self._made[engine] = Confined(ENGINES[engine](self._needs))
        return self._made[engine]

    def _of(self, model: ModelSettings) -> Adapter:
        if model.runner != "server":
            return self.of(model.engine)
        from corral.engines.elsewhere import Elsewhere

        return Elsewhere()

    def plan(self, start: Start) -> LaunchPlan:
        adapter = self._of(start.model)
        if start.model.runner not in ("process", "server"):
            from corral.runners.containers.contained import Contained

            adapter = Contained(adapter, partial(_containers, self._needs))
        return adapter.plan(start)

    def footprint(self, model: ModelSettings) -> Footprint:
        return self._of(model).footprint(model)

    def has_gpus(self, model: ModelSettings) -> bool:
        return self._of(model).has_gpus(model)


class Runners(Mapping[str, Runner]):
    """Every runner by name, each made when first asked for. It belongs to the event loop."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._made: dict[str, Runner] = {}

    def __getitem__(self, name: str) -> Runner:
        if name not in self._made:
            self._made[name] = RUNNERS[name](self._needs)
        return self._made[name]

    def of_the_past(self) -> Iterator[Runner]:
        """Those which may know engines of an earlier server: a kind of container that none was made with is not even
        loaded."""
        for name in RUNNERS:
            if name == "process" or any(folder_of(self._needs.paths, name).glob("*.json")):
                yield self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(RUNNERS)

    def __len__(self) -> int:
        return len(RUNNERS)

    async def aclose(self) -> None:
        """Lets go of what runs on without this server."""
        for runner in self._made.values():
            await runner.aclose()
