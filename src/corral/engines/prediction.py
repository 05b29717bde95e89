"""How much memory one start of llama.cpp will take, and where: from the settings to a `Run`, and what that comes to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import flags, further_files, purpose
from corral.engines.plan import Footprint, Origin
from corral.errors import ModelFileError
from corral.models.formats.gguf import Header, read_header
from corral.models.formats.shards import read_model
from corral.models.memory.predict import PROCESSOR, Parts, Prediction, predict
from corral.models.memory.projector import predict_projector
from corral.models.memory.run import CACHE_BITS, Run

_UBATCH: Final = 512  # llama.cpp's defaults
_BATCH: Final = 2048
_OFF: Final = frozenset({"off", "disabled", "false", "0"})
_ON: Final = frozenset({"on", "enabled", "true", "1"})


def footprint_of(model: ModelSettings, header: Header, context: int, gpus: Sequence[str]) -> Footprint:
    """The memory of `model` with `context` tokens per slot, by device; `gpus` are those its engine finds."""
    return as_footprint(predict_parts(model, header, run_of(model, header, context, gpus)))


def as_footprint(found: Prediction, origin: Origin = "estimated") -> Footprint:
    """The same as bytes by device."""
    totals = {name: parts.total for name, parts in found.devices.items()}
    return Footprint(MappingProxyType(totals), origin, found.devices)


def mapped(model: ModelSettings, footprint: Footprint) -> Footprint:
    """`footprint` with what of it lies in the model's file, where that is mapped and not locked or read."""
    if flags.has(model.args, "--load-mode") or any(each in ("--mlock", "--no-mmap") for each in model.args):
        return footprint
    parts = footprint.parts.get(PROCESSOR)
    return footprint if parts is None else replace(footprint, mapped=parts.weights)


def predict_parts(model: ModelSettings, header: Header, run: Run) -> Prediction:
    """The same by device and component, with the further files that `model`'s args load: projector, adapter, draft.

    Reads those files' headers; one that cannot be read counts as its size, or nothing: the engine will say so.
    """
    found = predict(header, run)
    if (path := flags.last_value(model.args, "--mmproj")) is not None:
        found += _projector(path, model, run)
    if (path := flags.last_value(model.args, "--model-draft")) is not None:
        found += _draft(path, model, run)
    return found


def run_of(model: ModelSettings, header: Header, context: int, gpus: Sequence[str]) -> Run:
    """What of `model`'s settings decides about memory. Reads the headers of LoRA files."""
    args = model.args
    kind = purpose.asked(args) or purpose.purpose(header)
    ubatch, batch = _count(args, "--ubatch-size"), _count(args, "--batch-size")
    size = purpose.batch(header, args, context)
    flash = flags.last_value(args, "--flash-attn")
    return Run(
        context=context * model.parallel,
        slots=model.parallel,
        unified=flags.has(args, "--kv-unified"),
        batch=batch or size or _BATCH,
        ubatch=ubatch or size or _UBATCH,
        type_k=_cache_type(args, "--cache-type-k"),
        type_v=_cache_type(args, "--cache-type-v"),
        flash=False if flash in _OFF else True if flash in _ON else None,
        swa_full=flags.has(args, "--swa-full"),
        embedding=kind != "text",
        pooling=flags.last_value(args, "--pooling") or ("rank" if kind == "rerank" else ""),
        gpus=tuple(gpus),
        layers_on_gpus=None if model.gpu_layers == "auto" else model.gpu_layers,
        split=_split(flags.last_value(args, "--tensor-split")) or model.tensor_split,
        cache_on_gpus=not _switched_off(args, "--kv-offload"),
        adapters=tuple(_adapters(args)),
    )


def resized(model: ModelSettings, header: Header, run: Run, context: int) -> Run:
    """`run` with so many tokens per slot, and what follows from that."""
    size = purpose.batch(header, model.args, context)
    run = replace(run, context=context * run.slots)
    return run if size is None else replace(run, batch=size, ubatch=size)


def _projector(path: str, model: ModelSettings, run: Run) -> Prediction:
    device = PROCESSOR if not run.gpus or _switched_off(model.args, "--mmproj-offload") else run.gpus[0]
    try:
        parts = predict_projector(read_header(Path(path)))
    except (ModelFileError, OSError):
        parts = Parts(weights=_size(path))
    return Prediction(MappingProxyType({device: parts}))


def _draft(path: str, model: ModelSettings, run: Run) -> Prediction:
    try:
        header = read_model(Path(path))
    except (ModelFileError, OSError):
        return Prediction(MappingProxyType({PROCESSOR: Parts(weights=_size(path))}))
    layers = flags.last_value(model.args, "--gpu-layers-draft")
    return predict(
        header,
        replace(
            run,
            type_k=_cache_type(model.args, "--cache-type-k-draft"),
            type_v=_cache_type(model.args, "--cache-type-v-draft"),
            layers_on_gpus=int(layers) if layers is not None and layers.isdecimal() else None,
            adapters=(),
            embedding=False,
            pooling="",
        ),
    )


def _adapters(args: Sequence[str]) -> list[Header]:
    found = []
    for path in further_files.adapters(args):
        with suppress(ModelFileError, OSError):  # planning a start will say what is wrong with it
            found.append(read_header(path))
    return found


def _switched_off(args: Sequence[str], name: str) -> bool:
    flag = flags.BY_NAME[name][0]
    said = [found[1] for each in args if (found := flags.BY_NAME.get(flags.canonical(each))) and found[0] is flag]
    return bool(said) and not said[-1]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _cache_type(args: Sequence[str], name: str) -> str:
    written = (flags.last_value(args, name) or "f16").upper()
    return written if written in CACHE_BITS else "F16"


def _count(args: Sequence[str], name: str) -> int | None:
    written = flags.last_value(args, name)
    return max(1, int(written)) if written is not None and written.isdecimal() else None


def _split(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in (text or "").replace("/", ",").split(",") if part)
    except ValueError:
        return ()
