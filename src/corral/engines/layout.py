"""`lay_out`: where a model's layers go, how long its context is, and what can be made smaller: from room and step."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Final

from corral.config.settings import ModelSettings, Rung
from corral.engines import flags, prediction, purpose
from corral.engines.placement import TOP, Room, Step
from corral.engines.plan import Footprint
from corral.errors import CannotFit
from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header
from corral.models.memory.fit import Fit, Place, fit
from corral.models.memory.predict import PROCESSOR, Prediction
from corral.models.memory.run import CELLS_STEP, Run
from corral.models.memory.shape import layers
from corral.units import show_bytes

FALLBACK_CONTEXT: Final = 4096
"""Tokens per slot where neither the settings nor the model say."""

SHORTEST: Final = 2048
"""Tokens per slot below which a context that is chosen here never goes."""

SMALL_BATCH: Final = 128
"""Tokens computed at once after the step down to a smaller batch."""

_LAYER_STEPS: Final = 3
"""Steps of a quarter of the layers each, before the processor."""

_OWN_LAYOUT: Final = (
    "--tensor-split", "--split-mode", "--main-gpu", "--override-tensor", "--cpu-moe", "--n-cpu-moe", "--n-cpu-ffn",
    "--fit", "--fit-target", "--fit-ctx",
)  # fmt: skip
_FURTHER_FILES: Final = ("--mmproj", "--model-draft", "--lora", "--lora-scaled")
_OWN_DEVICES: Final = frozenset({"--device", "-dev"})


@dataclass(frozen=True, slots=True)
class Layout:
    """One start's layout. `run` and `prediction` belong together; without `placed`, layers are the engine's affair."""

    context: int  # tokens per slot
    run: Run
    prediction: Prediction
    layers: int  # the model's, the output counted as one
    placed: bool = False
    words: str = ""
    on_gpus: int | None = None  # layers, where only some of them are there; None = all, or there are no GPUs
    batch: int | None = None  # tokens at once, where a step made them fewer
    warnings: tuple[str, ...] = ()
    left: tuple[Rung, ...] = ()  # what could still be made smaller

    @property
    def footprint(self) -> Footprint:
        return prediction.as_footprint(self.prediction)

    @property
    def devices(self) -> tuple[str, ...]:
        if not self.run.gpus:
            return (PROCESSOR,)
        used = tuple(name for name in self.run.gpus if self.prediction.devices[name].total) or self.run.gpus
        return used if self.on_gpus is None else (*used, PROCESSOR)


def own_layout(model: ModelSettings) -> bool:
    """Whether `args` say themselves how GPUs are used, so that nothing is to be planned."""
    written = [flags.canonical(each) for each in model.args]
    return any(flags.has(model.args, name) for name in _OWN_LAYOUT) or any(each in _OWN_DEVICES for each in written)


def spread(model: ModelSettings) -> bool:
    """Whether it is to be on all of its GPUs, even where one would hold it."""
    return model.split in ("layer", "row") or (bool(model.tensor_split) and model.split is None)


def wanted_context(model: ModelSettings, header: Header) -> tuple[int, tuple[str, ...]]:
    """Tokens per slot that are asked for, and a warning when that is not what the model was made for."""
    trained = header.context_length
    if model.context is None:
        if trained is not None:
            return trained, ()
        return FALLBACK_CONTEXT, (f"the model does not say how long its context is; {FALLBACK_CONTEXT} tokens assumed",)
    if trained is not None and model.context > trained:
        said = f"context {model.context} is longer than the {trained} tokens the model was made for"
        return model.context, (said,)
    return model.context, ()


def best(model: ModelSettings, header: Header, room: Room, *, longest: int | None = None) -> Fit:
    """The best place for `model` in `room`, with as much of an `auto` context as fits. Reads headers of LoRA files."""
    key = _key(model, header, room, longest)
    if key is not None and (known := _known.get(key)) is not None:
        return known
    asked, _ = wanted_context(model, header)
    made = prediction.run_of(model, header, asked, ())
    found = fit(
        header,
        made,
        room.bytes_by_device,
        longest,
        lambda run: prediction.predict_parts(model, header, run),
        shortest=min(asked, SHORTEST) if model.context is None else None,
        at=lambda context: prediction.resized(model, header, made, context),
        shared=room.shared,
        spread=spread(model),
    )
    if key is not None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = found
    return found


_MOST_KNOWN: Final = 64
_LONG: Final = 1024
_known: dict[tuple[object, ...], Fit] = {}
"""A search for what fits takes a tenth of a second, and the same one is made for each start."""


def _key(model: ModelSettings, header: Header, room: Room, longest: int | None) -> tuple[object, ...] | None:
    """What `best` depends on; None where further files have a say."""
    if any(flags.has(model.args, name) for name in _FURTHER_FILES):
        return None
    asked = (model.context, model.gpu_layers, model.parallel, model.args, model.split, model.tensor_split, longest)
    told = tuple((name, _brief(value)) for name, value in header.metadata.items())
    return header.architecture, header.tensors, told, asked, tuple(room.bytes_by_device.items()), room.shared


def _brief(value: object) -> object:
    """A value, or how long it is where it is too long to count for more."""
    if not isinstance(value, Sized):
        return value
    return repr(value) if len(value) <= _LONG else len(value)


def lay_out(model: ModelSettings, header: Header, room: Room, step: Step) -> Layout:
    """`model` in `room`, `step` below the best. The same arguments and files give the same layout.

    Raises CannotFit when not even the shortest context fits and none is configured.
    """
    asked, doubts = wanted_context(model, header)
    found = best(model, header, room)
    place = found.least_bad
    if model.context is None and not place.fits and not _from_file(model, place):
        raise _nowhere(model, place)
    on_gpus = place.run.layers_on_gpus if place.run.gpus else None
    layout = Layout(
        context=place.context,
        run=place.run,
        prediction=place.prediction,
        layers=found.layers,
        placed=True,
        words=place.words,
        on_gpus=None if on_gpus is not None and on_gpus >= found.layers else on_gpus,
        warnings=(*doubts, *_told(found, place, asked, room, model)),
    )
    return _finished(layout, model, header, asked, step)


def predicted(model: ModelSettings, header: Header, room: Room, gpus: Sequence[str]) -> Footprint:
    """What the best start of `model` takes, or would, were there room. `gpus` count where the room is not known."""
    if room:
        return prediction.as_footprint(best(model, header, room).least_bad.prediction)
    return left_to_engine(model, header, gpus, TOP).footprint


def left_to_engine(model: ModelSettings, header: Header, gpus: Sequence[str], step: Step) -> Layout:
    """A layout that the engine decides for itself, as far as settings do not; `gpus` are those it finds."""
    asked, doubts = wanted_context(model, header)
    run = prediction.run_of(model, header, asked, gpus)
    found = prediction.predict_parts(model, header, run)
    return _finished(Layout(asked, run, found, layers(header) + 1, warnings=doubts), model, header, asked, step)


def _finished(layout: Layout, model: ModelSettings, header: Header, asked: int, step: Step) -> Layout:
    layout = _stepped(layout, model, header, asked, step)
    return replace(layout, left=_left(layout, model, header, asked, step))


def _told(found: Fit, place: Place, asked: int, room: Room, model: ModelSettings) -> list[str]:
    """Each way in which the place is less than the best, in words."""
    said = []
    gpus = ", ".join(name for name in place.run.gpus if place.prediction.devices[name].total)
    if place.context < asked:
        said.append(f"context {place.context} of {asked}: more does not fit {f'on {gpus}' if gpus else 'in memory'}")
    if not place.fits:
        lacks = ", ".join(f"{show_bytes(size)} on {name}" for name, size in place.missing.items())
        said.append(f"{place.words}, where it does not fit: {lacks} are missing")
    elif model.gpu_layers == "auto" and room.gpus:
        better = [each for each in found.tried if each.context == place.context and each.words != place.words]
        lacks = (
            show_bytes(sum(size for name, size in better[-1].missing.items() if name != PROCESSOR)) if better else ""
        )
        if not gpus:
            said.append(f"{place.words}: no layer fits on {', '.join(room.gpus)}")
        elif place.run.layers_on_gpus is not None:
            said.append(f"{place.words}: {lacks} are missing for all")
        elif better:
            said.append(f"{place.words}: {lacks} are missing on {better[-1].run.gpus[0]} alone")
    return said


def _from_file(model: ModelSettings, place: Place) -> bool:
    """Whether all that is missing is the machine's memory for weights, which can be read again from their file."""
    mapped = prediction.mapped(model, prediction.as_footprint(place.prediction)).mapped
    return set(place.missing) == {PROCESSOR} and place.missing[PROCESSOR] <= mapped


def _nowhere(model: ModelSettings, place: Place) -> CannotFit:
    lacks = ", ".join(f"{show_bytes(size)} on {name}" for name, size in place.missing.items())
    weights = show_bytes(place.prediction.weights)
    return CannotFit(
        f"{model.name} does not fit: {lacks} are missing even for a context of {place.context} tokens",
        hint=f"its weights alone are {weights}: use a smaller quantization or fewer slots, or raise `memory`; "
        f"`corral fit {model.name}` says more",
        model=model.name,
        missing=dict(place.missing),
    )


def _stepped(layout: Layout, model: ModelSettings, header: Header, asked: int, step: Step) -> Layout:
    """`layout` made smaller by `step`, with a word on each way in which it is."""
    context, on_gpus, batch, words = layout.context, layout.on_gpus, layout.batch, layout.words
    said, kept = [], list(layout.warnings)
    gpus = ", ".join(each for each in layout.devices if each != PROCESSOR)
    if step.context:
        context = max(_floor(asked), (context >> step.context) // CELLS_STEP * CELLS_STEP)
        kept = [each for each in kept if not each.startswith(f"context {layout.context} of")]
        said.append(f"context {context} of {asked}: memory was not enough for more")
    if step.layers and gpus:
        whole = layout.layers if on_gpus is None else on_gpus
        on_gpus = max(1, whole * (_LAYER_STEPS + 1 - step.layers) // (_LAYER_STEPS + 1))
        kept = [each for each in kept if not words or not each.startswith(words)]
        words = f"{on_gpus} of {layout.layers} layers on {gpus}"
        said.append(f"{words}: memory was not enough for more")
    if step.batch:
        batch = min(SMALL_BATCH, layout.run.ubatch)
        said.append(f"batch {batch} instead of {layout.run.ubatch}: memory was not enough for more")
    if not said:
        return layout
    run = prediction.resized(model, header, layout.run, context)
    if step.layers and gpus:
        run = replace(run, layers_on_gpus=on_gpus)
    if batch is not None:
        run = replace(run, batch=batch, ubatch=batch)
    found = prediction.predict_parts(model, header, run)
    warnings = (*kept, *said)
    return Layout(context, run, found, layout.layers, layout.placed, words, on_gpus, batch, warnings)


def _left(layout: Layout, model: ModelSettings, header: Header, asked: int, step: Step) -> tuple[Rung, ...]:
    """What could still be made smaller."""
    left: list[Rung] = []
    text = (purpose.asked(model.args) or purpose.purpose(header)) == "text"
    if text and layout.run.ubatch > SMALL_BATCH:  # what does not generate must see its input at once
        left.append("batch")
    may_shorten = model.context is None or "context" in (model.on_out_of_memory or ())
    if may_shorten and layout.context > _floor(asked):
        left.append("context")
    if layout.run.gpus:
        if step.layers < _LAYER_STEPS and layout.on_gpus != 1:
            left.append("layers")
        left.append("cpu")
    return tuple(left)


def _floor(asked: int) -> int:
    return min(asked, SHORTEST)
