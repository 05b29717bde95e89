"""How much of each device one vLLM server gets: its context, its cache, the share of a GPU that it is granted. Pure.

vLLM takes what it is granted whole, at its start. So it is granted what the configured work needs: its cache holds one
sequence of full length, and so many tokens for each of `max_num_seqs`; less where there is no room for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings, Rung
from corral.engines.placement import Room, Step
from corral.engines.plan import Footprint
from corral.engines.vllm_builds import Variant
from corral.engines.vllm_folder import Folder
from corral.errors import CannotFit
from corral.hardware.devices import CPU
from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import Parts
from corral.models.memory.vllm import MOST, OUTSIDE, VllmRun, predict_vllm
from corral.units import show_bytes

TOKENS_EACH: Final = 512
"""Tokens of cache for each of the sequences computed at once: a usual chat."""

PROGRAM: Final = 3 << 29
"""Bytes of the machine's memory that its processes take beside everything counted (vLLM 0.32, on the processor)."""

PROGRAM_FOR_GPU: Final = 3 << 30
"""The same beside a GPU: drivers and their libraries add to it."""

_SHORTEST: Final = 256
_FEWEST: Final = 8
_CPU_BLOCK: Final = 128  # vLLM's own for the processor
_DEFAULT_CONTEXT: Final = 4096  # where a model does not say what it was made for


@dataclass(frozen=True, slots=True)
class Planned:
    """What one server is granted."""

    context: int
    sequences: int  # computed at once
    cache: int  # bytes for each GPU, or of the machine's memory
    share: float | None  # of each GPU; None on the processor
    gpus: tuple[str, ...]
    footprint: Footprint
    sleep: int
    left: tuple[Rung, ...]
    words: str
    warnings: tuple[str, ...] = ()


def plan_room(model: ModelSettings, folder: Folder, variant: Variant, room: Room, step: Step) -> Planned:
    """What `model` gets of `room`, `step` below the best. Raises CannotFit."""
    gpus = room.gpus if variant != "cpu" else ()
    each = min((room.bytes_by_device[name] for name in gpus), default=None) if gpus else None
    most = each if gpus else room.bytes_by_device.get(CPU)
    outside = OUTSIDE if gpus else PROGRAM
    sequences = max(1, model.max_num_seqs >> step.batch)
    wanted = model.context or folder.context_length or _DEFAULT_CONTEXT
    context = wanted if model.context is not None else max(min(wanted, _SHORTEST), wanted >> step.context)
    weights = math.ceil(folder.weights_bytes(model.quantization) / model.pipeline_parallel)
    run = VllmRun(
        context,
        sequences=max(1, math.ceil(sequences * min(TOKENS_EACH, context) / context)),
        cache_type=model.kv_cache_type,
        gpus=model.tensor_parallel,
        block=VllmRun(1).block if gpus else _CPU_BLOCK,
    )
    run, parts = _fitted(model, folder, weights, run, None if most is None else most - outside)
    warnings = []
    if run.context < context:
        warnings.append(f"the context is {run.context} tokens instead of {context}: more does not fit")
    footprint = _footprint(parts, gpus, outside)
    sleep, asleep, doubt = _asleep(model, parts, gpus, footprint, room)
    warnings += [doubt] if doubt else []
    left: list[Rung] = ["batch"] if sequences > _FEWEST else []
    left += ["context"] if model.context is None and run.context > _SHORTEST else []
    return Planned(
        run.context,
        sequences,
        parts.cache,
        _share(parts, gpus, room, model),
        gpus,
        replace(footprint, asleep=MappingProxyType(asleep)),
        sleep,
        tuple(left),
        _words(parts, gpus),
        tuple(warnings),
    )


def _fitted(
    model: ModelSettings, folder: Folder, weights: int, run: VllmRun, most: int | None
) -> tuple[VllmRun, Parts]:
    """The largest cache up to what is wanted that `most` bytes are enough for. Raises CannotFit."""

    def parts_of(tried: VllmRun) -> Parts:
        found = predict_vllm(weights, folder.config, tried)
        cache = math.ceil(found.cache / model.pipeline_parallel)
        return replace(found, cache=cache)

    if model.kv_cache_bytes is not None:
        one = parts_of(replace(run, sequences=1))
        if model.context is None and one.cache > model.kv_cache_bytes:
            run = replace(run, context=max(1, run.context * model.kv_cache_bytes // one.cache // run.block) * run.block)
            one = parts_of(replace(run, sequences=1))
        if one.cache > model.kv_cache_bytes:
            raise CannotFit(
                f"{model.name}: kv_cache is {show_bytes(model.kv_cache_bytes)}, and one sequence of {run.context} "
                f"tokens takes {show_bytes(one.cache)}",
                hint="raise `kv_cache`, lower `context`, or set kv_cache_type: fp8",
                model=model.name,
            )
        parts = replace(one, cache=model.kv_cache_bytes)
        _check(model, parts, most)
        return run, parts
    parts = parts_of(run)
    if most is None or parts.total <= most:
        return run, parts
    for sequences in _fewer(run.sequences):
        tried = replace(run, sequences=sequences)
        if (parts := parts_of(tried)).total <= most:
            return tried, parts
    run = replace(run, sequences=1)
    while model.context is None and parts.total > most and run.context > _SHORTEST:
        run = replace(run, context=max(_SHORTEST, run.context // 2))
        parts = parts_of(run)
    _check(model, parts, most)
    return run, parts


def _fewer(sequences: int) -> list[int]:
    found = []
    while sequences > 1:
        sequences = max(1, sequences * 3 // 4)
        found.append(sequences)
    return found


def _check(model: ModelSettings, parts: Parts, most: int | None) -> None:
    if most is not None and parts.total > most:
        shorter = "a smaller model or FP8" if model.context is None else "a smaller `context`"
        raise CannotFit(
            f"{model.name} needs {show_bytes(parts.total)} ({show_bytes(parts.weights)} of it weights), "
            f"and {show_bytes(max(0, most))} may be used on each device",
            hint=f"use {shorter}, more GPUs (tensor_parallel), or raise the budget under `memory`",
            model=model.name,
        )


def _footprint(parts: Parts, gpus: tuple[str, ...], outside: int) -> Footprint:
    if not gpus:
        return Footprint(MappingProxyType({CPU: parts.total + outside}), parts=MappingProxyType({CPU: parts}))
    sizes = {CPU: PROGRAM_FOR_GPU, **dict.fromkeys(gpus, parts.total + outside)}
    return Footprint(MappingProxyType(sizes), parts=MappingProxyType(dict.fromkeys(gpus, parts)))


def _asleep(
    model: ModelSettings, parts: Parts, gpus: tuple[str, ...], awake: Footprint, room: Room
) -> tuple[int, Mapping[str, int], str]:
    """At which level it can sleep, what it holds then, and what there is to say about that."""
    if not model.sleep:
        return 0, {}, ""
    if not gpus:
        return model.sleep, dict(awake.bytes_by_device), "vLLM gives no memory back on a processor while it sleeps"
    kept = parts.weights * len(gpus) if model.sleep == 1 else 0
    asleep = {CPU: PROGRAM_FOR_GPU + kept, **dict.fromkeys(gpus, OUTSIDE)}
    if asleep[CPU] > room.bytes_by_device.get(CPU, asleep[CPU]):
        text = f"it cannot sleep at level 1: {show_bytes(kept)} of weights do not fit in the machine's memory"
        return 0, {}, text
    return model.sleep, asleep, ""


def _share(parts: Parts, gpus: tuple[str, ...], room: Room, model: ModelSettings) -> float | None:
    """The part of each GPU's whole memory that it is granted: of the smallest, so that it is enough everywhere."""
    if not gpus:
        return None
    smallest = min(room.totals.get(name, room.bytes_by_device[name]) for name in gpus)
    return min(MOST, math.ceil(100 * (parts.total + OUTSIDE) / smallest) / 100) if smallest > 0 else MOST


def _words(parts: Parts, gpus: tuple[str, ...]) -> str:
    where = f"on {', '.join(gpus)}" if gpus else "on the processor"
    return f"all layers {where}, {show_bytes(parts.cache)} of cache{' each' if len(gpus) > 1 else ''}"
