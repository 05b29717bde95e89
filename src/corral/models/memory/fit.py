"""`fit`: where a model goes on devices with so much room, with how many layers, and with how long a context.

The one place where this is decided: the plan of a start and `corral fit` both come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header
from corral.models.memory.predict import PROCESSOR, Prediction, predict
from corral.models.memory.run import CELLS_STEP, Run
from corral.models.memory.shape import layers

Predict = Callable[[Run], Prediction]

PARTLY: Final = 4096
"""Tokens per slot for which as many layers as possible go to GPUs that cannot hold all of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """One way to lay the model out, and how much is missing there for it, by device; nothing where it fits."""

    words: str
    run: Run
    prediction: Prediction
    missing: Mapping[str, int]

    @property
    def fits(self) -> bool:
        return not self.missing

    @property
    def context(self) -> int:
        """Tokens per slot."""
        return self.run.context // self.run.slots


@dataclass(frozen=True, slots=True)
class Fit:
    """The ways that were tried, best first, up to the first that fits, and the largest context that would fit."""

    tried: tuple[Place, ...]
    layers: int  # the model's, the output counted as one
    on_gpus: int  # of them, in the place that was found
    largest_context: int | None  # tokens per slot; None where not even the shortest fits, or nobody asked

    @property
    def place(self) -> Place | None:
        """Where it goes; None where it fits nowhere."""
        return self.tried[-1] if self.tried and self.tried[-1].fits else None

    @property
    def least_bad(self) -> Place:
        """Where it goes, or else where the least is missing."""
        return self.place or min(self.tried, key=lambda each: sum(each.missing.values()))


def fit(
    header: Header,
    run: Run,
    room: Mapping[str, int],
    longest: int | None = None,
    count: Predict | None = None,
    *,
    shortest: int | None = None,
    at: Callable[[int], Run] | None = None,
    shared: Collection[str] = (),
    spread: bool = False,
) -> Fit:
    """The best place for `run` on devices with `room` bytes; `room` has `"cpu"` and the GPUs that can be used.

    The order is: whole on one GPU, whole over all, as many layers as fit, the processor. `run.layers_on_gpus`, where it
    is a number, leaves only one way. With `shortest`, the context may be less than `run`'s, down to that many tokens
    per slot: on GPUs the longest wins that they hold whole, and only where they do not, layers are left out.
    `longest` is the most tokens per slot to look for beyond what was asked; None does not look. `count` predicts a run,
    `at` makes one for so many tokens per slot; the defaults are the header's own prediction, and `run` with another
    context. What GPUs of `shared` take, the processor's room must hold too. With `spread`, one GPU alone is no way
    where there are several. Pure.
    """
    search = _Search(
        room,
        layers(header) + 1,
        count or (lambda one: predict(header, one)),
        at or (lambda context: replace(run, context=context * run.slots)),
        run,
        shared,
        spread,
    )
    asked = run.context // run.slots
    tried = tuple(search.tried(asked) if shortest is None else search.shortened(asked, shortest))
    found = tried[-1] if tried[-1].fits else None
    on_gpus = 0
    if found is not None and found.run.gpus:
        wanted = found.run.layers_on_gpus
        on_gpus = search.blocks if wanted is None else min(wanted, search.blocks)
    return Fit(tried, search.blocks, on_gpus, None if longest is None else search.largest(longest))


@dataclass(frozen=True, slots=True)
class _Search:
    room: Mapping[str, int]
    blocks: int
    predicted: Predict
    at: Callable[[int], Run]
    asked: Run
    shared: Collection[str]
    spread: bool

    @property
    def gpus(self) -> tuple[str, ...]:
        return tuple(name for name in self.room if name != PROCESSOR)

    def tried(self, context: int) -> Iterator[Place]:
        """The ways in their order, up to the first that fits."""
        for make in self._ways():
            if (place := make(context)) is None:
                continue
            yield place
            if place.fits:
                return

    def shortened(self, asked: int, shortest: int) -> Iterator[Place]:
        """The same where the context may be shorter: first each way that is as fast as any at full length, and last
        the place that is taken."""
        mixed = self._auto and bool(self.gpus)
        ways = list(self._whole()) if mixed else list(self._ways())
        for make in ways:
            if (place := make(asked)) is not None:
                yield place
                if place.fits:
                    return
        found = (self._longest(make, shortest, asked) for make in ways)
        best = max((place for place in found if place is not None), key=lambda place: place.context, default=None)
        if best is None and mixed:
            best = self._partly(asked, shortest)
        if best is None and mixed:
            whole = self._on_processor(asked)
            best = whole if whole.fits else self._longest(self._on_processor, shortest, asked)
        last = best or (self._on_processor if mixed else ways[-1])(min(asked, shortest))
        assert last is not None
        for make in ways:  # what that context lacks elsewhere
            if last.context < asked and (other := make(last.context)) is not None and other.words != last.words:
                yield other
        yield last

    @property
    def _auto(self) -> bool:
        return self.asked.layers_on_gpus is None

    def _ways(self) -> Iterator[Callable[[int], Place | None]]:
        gpus = self.gpus
        wanted = self.asked.layers_on_gpus
        if wanted is not None:
            if gpus and wanted:
                yield lambda context: self._some(context, wanted)
                return
        elif gpus:
            yield from self._whole()
            yield self._most
        yield self._on_processor

    def _whole(self) -> Iterator[Callable[[int], Place]]:
        """The ways in which GPUs have all of it."""
        several = len(self.gpus) > 1
        if not (several and self.spread):
            yield self._on_one
        if several:
            yield self._over_all

    def _place(self, words: str, context: int, **changes: object) -> Place:
        one = replace(self.at(context), **changes)  # type: ignore[arg-type]
        found = self.predicted(one)
        takes = {name: parts.total for name, parts in found.devices.items()}
        takes[PROCESSOR] += sum(size for name, size in takes.items() if name in self.shared)
        short = {name: size - self.room.get(name, 0) for name, size in takes.items()}
        used = ", ".join(name for name in one.gpus if found.devices[name].total) or ", ".join(one.gpus)
        return Place(words.format(gpus=used), one, found, {name: size for name, size in short.items() if size > 0})

    def _on_one(self, context: int) -> Place:
        gpu = max(self.gpus, key=lambda name: self.room[name])
        return self._place(f"whole on {gpu}", context, gpus=(gpu,), layers_on_gpus=None, split=())

    def _over_all(self, context: int) -> Place:
        return self._place("split over {gpus}", context, gpus=self.gpus, layers_on_gpus=None, split=self._split())

    def _some(self, context: int, count: int) -> Place:
        count = min(count, self.blocks)
        words = f"{count} of {self.blocks} layers on {{gpus}}"
        return self._place(words, context, gpus=self.gpus, layers_on_gpus=count, split=self._split())

    def _most(self, context: int) -> Place | None:
        """With as many layers as the GPUs hold."""
        best = _last(1, self.blocks - 1, lambda count: not (set(self._some(context, count).missing) - {PROCESSOR}))
        return None if best is None else self._some(context, best)

    def _on_processor(self, context: int) -> Place:
        return self._place("on the processor", context, gpus=(), layers_on_gpus=0, split=())

    def _split(self) -> tuple[float, ...]:
        if self.asked.split and len(self.asked.split) == len(self.gpus):
            return self.asked.split
        return tuple(float(self.room[name]) for name in self.gpus) if len(self.gpus) > 1 else ()

    def _partly(self, asked: int, shortest: int) -> Place | None:
        """Some layers on the GPUs, and the longest context with so many."""
        if not self.gpus:
            return None
        for context in dict.fromkeys((min(asked, max(PARTLY, shortest)), min(asked, shortest))):
            place = self._most(context)
            if place is not None and place.fits:
                count = place.run.layers_on_gpus or 0
                return self._longest(lambda tokens, n=count: self._some(tokens, n), context, asked)  # type: ignore[misc]
        return None

    def _longest(self, make: Callable[[int], Place | None], shortest: int, asked: int) -> Place | None:
        """The place with the longest context that fits, from `shortest` to `asked`."""

        def at(steps: int) -> Place | None:
            return make(min(max(steps * CELLS_STEP, shortest), asked))

        def fits(steps: int) -> bool:
            place = at(steps)
            return place is not None and place.fits

        best = _last(max(1, shortest // CELLS_STEP), max(1, -(-asked // CELLS_STEP)), fits)
        return None if best is None else at(best)

    def largest(self, longest: int) -> int | None:
        """The largest context per slot with which any place has room."""

        def fits(steps: int) -> bool:
            return any(place.fits for place in self.tried(min(steps * CELLS_STEP, longest)))

        best = _last(1, max(1, -(-longest // CELLS_STEP)), fits)
        return None if best is None else min(best * CELLS_STEP, longest)


def _last(first: int, last: int, holds: Callable[[int], bool]) -> int | None:
    """The largest number from `first` to `last` for which `holds`, which holds up to somewhere and no further."""
    if last < first or not holds(first):
        return None
    if holds(last):
        return last
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if holds(middle) else (first, middle)
    return first
