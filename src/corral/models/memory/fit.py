"""`fit`: where a model goes on devices with so much room, with how many layers, and up to which context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from corral.models.gguf import Header
from corral.models.memory.predict import PROCESSOR, Prediction, predict
from corral.models.memory.run import CELLS_STEP, Run
from corral.models.memory.shape import layers

Predict = Callable[[Run], Prediction]


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


@dataclass(frozen=True, slots=True)
class Fit:
    """The ways that were tried, best first, up to the first that fits, and the largest context that would fit."""

    tried: tuple[Place, ...]
    layers: int  # the model's, the output counted as one
    on_gpus: int  # of them, in the place that was found
    largest_context: int | None  # tokens per slot; None where not even the shortest fits

    @property
    def place(self) -> Place | None:
        """Where it goes; None where it fits nowhere."""
        return self.tried[-1] if self.tried and self.tried[-1].fits else None


def fit(header: Header, run: Run, room: Mapping[str, int], longest: int, count: Predict | None = None) -> Fit:
    """The best place for `run` on devices with `room` bytes; `room` has `"cpu"` and the GPUs that can be used.

    The order is: whole on one GPU, whole over all, as many layers as fit, the processor. `longest` is the most tokens
    per slot to look for. `count` predicts a run; the default is the header's own prediction. Pure.
    """
    predicted = count or (lambda one: predict(header, one))
    blocks = layers(header) + 1
    tried = []
    for place in _places(run, room, blocks, predicted):
        tried.append(place)
        if place.fits:
            break
    found = tried[-1] if tried[-1].fits else None
    on_gpus = 0
    if found is not None and found.run.gpus:
        asked = found.run.layers_on_gpus
        on_gpus = blocks if asked is None else min(asked, blocks)
    return Fit(tuple(tried), blocks, on_gpus, _largest(run, room, blocks, predicted, longest))


def _places(run: Run, room: Mapping[str, int], blocks: int, predicted: Predict) -> Iterator[Place]:
    gpus = sorted((name for name in room if name != PROCESSOR), key=lambda name: -room[name])

    def place(words: str, **changes: object) -> Place:
        one = replace(run, **changes)  # type: ignore[arg-type]
        found = predicted(one)
        short = {name: parts.total - room.get(name, 0) for name, parts in found.devices.items()}
        return Place(words, one, found, {name: size for name, size in short.items() if size > 0})

    if gpus:
        yield place(f"whole on {gpus[0]}", gpus=(gpus[0],), layers_on_gpus=None, split=())
    if len(gpus) > 1:
        every = tuple(name for name in room if name != PROCESSOR)
        split = tuple(float(room[name]) for name in every)
        yield place(f"split over {', '.join(every)}", gpus=every, layers_on_gpus=None, split=split)
    if gpus:
        every = tuple(name for name in room if name != PROCESSOR)
        split = tuple(float(room[name]) for name in every)

        def some(count: int) -> Place:
            words = f"{count} of {blocks} layers on {', '.join(every)}"
            return place(words, gpus=every, layers_on_gpus=count, split=split)

        best = _last(1, blocks - 1, lambda count: not (set(some(count).missing) - {PROCESSOR}))
        if best is not None:
            yield some(best)
    yield place("on the processor", gpus=(), layers_on_gpus=0, split=())


def _largest(run: Run, room: Mapping[str, int], blocks: int, predicted: Predict, longest: int) -> int | None:
    """The largest context per slot with which any place has room."""

    def fits(steps: int) -> bool:
        context = min(steps * CELLS_STEP, longest) * run.slots
        return any(place.fits for place in _places(replace(run, context=context), room, blocks, predicted))

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
