"""Engines, devices and clients in virtual time, and the schedulers that are compared in it."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from corral.scheduler.decide import step
from corral.scheduler.messages import (
    Asked,
    BecameReady,
    Configured,
    Ended,
    Event,
    Grant,
    Look,
    MemorySeen,
    Reject,
    Returned,
    Start,
    Stop,
    Ticked,
    WakeAt,
)
from corral.scheduler.state import INFINITY, Policy, Scheduling, Spec

GIB = 1 << 30
STOP_S = 0.3
LOAD_S, LOAD_PER_GIB_S = 1.0, 0.5


@dataclass(frozen=True)
class Model:
    name: str
    device: str
    size: int
    slots: int = 2

    @property
    def load_s(self) -> float:
        return LOAD_S + LOAD_PER_GIB_S * self.size / GIB


@dataclass
class Request:
    """One request; `then` is called when it is answered."""

    id: int
    model: str
    hold_s: float
    key: str
    asked_at: float
    then: Callable[[float], None] | None = None
    began_at: float = -1.0

    @property
    def wait_s(self) -> float:
        return self.began_at - self.asked_at


class Deciding(Protocol):
    """A scheduler: it hears what happens and calls the world's `start`, `stop` and `give`."""

    def asked(self, request: Request) -> None: ...

    def done(self, request: Request) -> None: ...

    def ready(self, model: str) -> None: ...

    def gone(self, model: str) -> None: ...


@dataclass
class Engine:
    ready: bool = False
    stopping: bool = False
    active: set[int] = field(default_factory=set)  # requests in a slot
    queue: deque[Request] = field(default_factory=deque)  # given, and waiting inside the engine


class World:
    """Engines load and stop as long as they do; requests hold a slot for as long as they do."""

    def __init__(self, models: Iterable[Model], memory: dict[str, int], make: Callable[[World], Deciding]) -> None:
        self.models = {model.name: model for model in models}
        self.memory = memory
        self.now, self.starts = 0.0, 0
        self.engines: dict[str, Engine] = {}
        self.requests: list[Request] = []
        self.busy_s = dict.fromkeys(memory, 0.0)  # with at least one request in a slot
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.decides = make(self)

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, what))

    def ask(self, model: str, hold_s: float, key: str = "", then: Callable[[float], None] | None = None) -> None:
        request = Request(len(self.requests), model, hold_s, key, self.now, then)
        self.requests.append(request)
        self.decides.asked(request)

    def run(self) -> None:
        while self._heap:
            when, _, what = heapq.heappop(self._heap)
            busy = {self.models[name].device for name, engine in self.engines.items() if engine.active}
            for device in busy:
                self.busy_s[device] += when - self.now
            self.now = when
            what()

    def start(self, model: str) -> None:
        self.starts += 1
        self.engines[model] = Engine()
        used = dict.fromkeys(self.memory, 0)
        for name in self.engines:
            used[self.models[name].device] += self.models[name].size
        assert all(used[device] <= size for device, size in self.memory.items()), "nobody may use more than there is"
        self.at(self.now + self.models[model].load_s, lambda: self._ready(model))

    def _ready(self, model: str) -> None:
        self.engines[model].ready = True
        self.decides.ready(model)

    def stop(self, model: str) -> None:
        engine = self.engines[model]
        assert not engine.active and not engine.queue
        engine.stopping = True
        self.at(self.now + STOP_S, lambda: self._gone(model))

    def _gone(self, model: str) -> None:
        del self.engines[model]
        self.decides.gone(model)

    def give(self, request: Request) -> None:
        self.engines[request.model].queue.append(request)
        self._serve(request.model)

    def _serve(self, model: str) -> None:
        engine = self.engines[model]
        while engine.queue and len(engine.active) < self.models[model].slots:
            request = engine.queue.popleft()
            request.began_at = self.now
            engine.active.add(request.id)
            self.at(self.now + request.hold_s, lambda request=request: self._done(request))  # type: ignore[misc]

    def _done(self, request: Request) -> None:
        self.engines[request.model].active.discard(request.id)
        self._serve(request.model)
        self.decides.done(request)
        if request.then is not None:
            request.then(self.now)


class Corral:
    """The real `decide.step`, with looks at the memory that take two milliseconds."""

    def __init__(self, world: World) -> None:
        self.world = world
        specs = {m.name: Spec(m.name, m.slots, None, footprint={m.device: m.size}) for m in world.models.values()}
        self.state = Scheduling(Policy(headroom=0, max_queue=1 << 20), looks=True)
        self.generation: dict[str, int] = {}
        self.waiting: dict[int, Request] = {}
        self.wake = INFINITY
        self.post(Configured(specs, self.state.policy))

    def asked(self, request: Request) -> None:
        self.waiting[request.id] = request
        self.post(Asked(request.id, request.model, INFINITY, key=request.key))

    def done(self, request: Request) -> None:
        self.post(Returned(request.id, request.model))

    def ready(self, model: str) -> None:
        self.post(BecameReady(model, self.generation[model]))

    def gone(self, model: str) -> None:
        self.post(Ended(model, self.generation[model]))

    def post(self, event: Event) -> None:
        world = self.world
        for command in step(self.state, event, world.now):
            match command:
                case Start(model, generation):
                    self.generation[model] = generation
                    world.start(model)
                case Stop(model):
                    world.stop(model)
                case Grant(waiter):
                    world.give(self.waiting.pop(waiter))
                case Look():
                    world.at(world.now + 0.002, self._look)
                case WakeAt(at) if at < self.wake or self.wake <= world.now:
                    self.wake = at
                    world.at(max(at, world.now), self._tick)
                case Reject(_, error):
                    raise AssertionError(f"nobody is to be refused here: {error}")

    def _tick(self) -> None:
        self.wake = INFINITY
        self.post(Ticked())

    def _look(self) -> None:
        world = self.world
        free = dict(world.memory)
        for name in world.engines:
            free[world.models[name].device] -= world.models[name].size
        # What still loads has taken all of it here, and is said to.
        taken = {name: {world.models[name].device: world.models[name].size} for name in world.engines}
        self.post(MemorySeen(free, world.memory, world.now, taken))


class _Plain(ABC):
    """What the two simple schedulers share: the least recently used idle unit makes room, one load at a time for each
    device."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: dict[int, Request] = {}
        self.given: dict[str, int] = {}
        self.used_at: dict[str, float] = {}

    def asked(self, request: Request) -> None:
        self.waiting[request.id] = request
        self.look()

    def done(self, request: Request) -> None:
        self.given[request.model] -= 1
        self.used_at[request.model] = self.world.now
        self.look()

    def ready(self, model: str) -> None:
        self.used_at[model] = self.world.now
        self.look()

    def gone(self, model: str) -> None:
        self.look()

    @abstractmethod
    def look(self) -> None:
        """Gives what can be given, and starts and stops what that needs."""

    def give(self, request: Request) -> bool:
        """Whether it could be given at once."""
        engine, model = self.world.engines.get(request.model), self.world.models[request.model]
        if engine is None or not engine.ready or engine.stopping or self.given.get(model.name, 0) >= model.slots + 2:
            return False
        self.given[model.name] = self.given.get(model.name, 0) + 1
        del self.waiting[request.id]
        self.world.give(request)
        return True

    def bring(self, name: str) -> None:
        """Starts the model, or begins to make room for it, as far as that is possible now."""
        world, model = self.world, self.world.models[name]
        if name in world.engines:
            return
        here = [each for each in world.engines if world.models[each].device == model.device]
        free = world.memory[model.device] - sum(world.models[each].size for each in here)
        if model.size <= free:
            world.start(name)
            return
        free += sum(world.models[each].size for each in here if world.engines[each].stopping)
        idle = [e for e in here if world.engines[e].ready and not world.engines[e].stopping and not self.given.get(e)]
        for each in sorted(idle, key=lambda e: self.used_at[e]):
            if model.size <= free:
                break
            free += world.models[each].size
            world.stop(each)


class Fifo(_Plain):
    """Strictly in order of arrival: nobody is served before the one who came first."""

    def look(self) -> None:
        while self.waiting:
            first = next(iter(self.waiting.values()))
            if not self.give(first):
                self.bring(first.model)
                return


class Lru(_Plain):
    """Whoever's model is there is served; others get theirs once something is idle."""

    def look(self) -> None:
        stuck = dict[str, None]()
        for request in list(self.waiting.values()):
            if request.model not in stuck and not self.give(request):
                stuck[request.model] = None
        for model in stuck:
            self.bring(model)
