"""Making a stored model of another one, or of a file, with smaller weights: `quantize(store, base, …)`. Blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from corral.artifact import File, build_docker
from corral.artifact.lineage import Lineage
from corral.descriptors import Descriptor
from corral.errors import CallerError, DiskFull, EngineError, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.content import read_content
from corral.models.formats.gguf import Header, read_header
from corral.models.formats.gguf_types import FILE_TYPES
from corral.models.formats.shards import read_model
from corral.models.making.package import gguf_facts, store_built
from corral.models.making.quantizer import Forecast, Quantizer, Refused
from corral.models.unpack import place
from corral.store.blobs import hash_file
from corral.store.store import Store
from corral.units import show_bytes

Say = Callable[[str, int, int | None], None]

_EXACT: Final = ("F64", "F32", "F16", "BF16")
_HEAD_BYTES: Final = 1 << 20
"""What a file has beyond its tensors and its header as it was: alignment and a few fields."""
_FULL_BYTES: Final = 64 << 20
"""With less room than this, a tool that could not write failed for it."""


@dataclass(frozen=True, slots=True)
class Base:
    """What is quantized: a model of the store by its digest, or a file."""

    name: str  # for people, and the lineage
    digest: str | None = None
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class How:
    """With what, and how."""

    tool: Quantizer
    to: str  # in the tool's own spelling
    threads: int | None = None
    imatrix: Path | None = None
    requantize: bool = False


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was made."""

    digest: str
    before_bytes: int
    after_bytes: int
    notes: tuple[str, ...] = ()


def quantize(store: Store, base: Base, name: str, how: How, say: Say) -> Quantized:
    """Names a model of `base`'s weights as `how.to` `name`, with all else that `base` brings. Until the last step
    nothing of it can be seen, and it leaves nothing when it ends before. `say` may raise to end it.

    Raises CallerError, ModelFileError, EngineError, NotInStore, DiskFull.
    """
    if how.imatrix is not None and not how.imatrix.is_file():
        raise CallerError(f"there is no file {how.imatrix}", hint="`llama-imatrix` makes one")
    with contextlib.ExitStack() as held:
        source, others = _source(store, base, held)
        header = read_model(source)
        _check(header, base, how)
        forecast = _forecast(source, base, how)
        notes = forecast.notes
        if forecast.bytes >= _weight_bytes(header) and _is_quantized(header):
            raise CallerError(
                f"{base.name} is {header.quantization} already: as {how.to} it would not be smaller "
                f"({show_bytes(forecast.bytes)} instead of {show_bytes(_weight_bytes(header))})",
                hint="choose a type with fewer bits",
            )
        needed = forecast.bytes + header.file_bytes - _weight_bytes(header) + _HEAD_BYTES
        store.require_room(needed)
        directory = held.enter_context(store.spool())
        target = directory / "model.gguf"
        _write(store, source, target, how, needed, say)
        say("storing the new model", 0, None)
        made = _checked(target, how)
        lineage = _lineage(base, source, how, say)
        added = store.add_file(target, how="move")
        held.enter_context(store.hold(added.digest))
        path = _file_name(header, base, how)
        files = [File("weights", path, Descriptor("", added.digest, added.size)), *others]
        seeing = any(file.role == "mmproj" for file in others)
        built = build_docker(files, gguf_facts(made, seeing=seeing), lineage.annotations())
        store_built(store, built, name, why="quantize")
    return Quantized(built.digest, header.file_bytes, made.file_bytes, notes)


def _source(store: Store, base: Base, held: contextlib.ExitStack) -> tuple[Path, list[File]]:
    """The file to read, and the files of the model that stay as they are."""
    if base.digest is None:
        assert base.file is not None
        return base.file, []
    held.enter_context(store.hold(base.digest))
    artifact = read_content(store, base.digest).artifact
    if artifact.packed:
        raise CallerError(f"{base.name} is in archives", hint="export it, and quantize its file")
    if artifact.format != "gguf":
        raise CallerError(
            f"{base.name} is no GGUF model: llama.cpp's tool quantizes no other",
            hint=f"make one of it first: corral convert {base.name} --to bf16 -t NAME",
        )
    return place(store, base.digest).main, [file for file in artifact.files if file.role not in ("weights", "shard")]


def _check(header: Header, base: Base, how: How) -> None:
    """Raises for what cannot be, before the tool is asked."""
    kind = header.text("general.type") or ("projector" if header.architecture == "clip" else "model")
    if kind != "model":
        raise ModelFileError(f"{base.name} is a {kind} and no model", hint="quantize the model that it belongs to")
    if _is_quantized(header) and not how.requantize:
        raise CallerError(
            f"{base.name} is {header.quantization or 'quantized'} already",
            hint="quantize the F16, BF16 or F32 model that it was made of; --requantize does it anyway, and loses more",
        )


def _is_quantized(header: Header) -> bool:
    return any(len(each.shape) > 1 and each.type not in _EXACT for each in header.tensors)


def _weight_bytes(header: Header) -> int:
    return sum(each.bytes for each in header.tensors)


def _forecast(source: Path, base: Base, how: How) -> Forecast:
    try:
        found = how.tool.forecast(source, how.to, requantize=how.requantize)
    except Refused as refused:
        raise _refusal(refused, base, how) from refused
    if found.needs_imatrix and how.imatrix is None:
        raise CallerError(
            f"{how.to} needs an importance matrix for {base.name}",
            hint="make one with llama.cpp's `llama-imatrix` and give it with --imatrix, or choose Q3_K_S or more bits",
        )
    return found


def _refusal(refused: Refused, base: Base, how: How) -> CallerError:
    return CallerError(
        f"{how.tool.path.name} cannot quantize {base.name}: {refused}",
        hint="a newer llama.cpp may know this model; `corral quantize --list` shows the types of this one",
    )


def _write(store: Store, source: Path, target: Path, how: How, needed: int, say: Say) -> None:
    def step(done: int, total: int) -> None:
        share = int(needed * done / total) if total else 0
        say(f"quantizing to {how.to}, tensor {done} of {total}" if total else "reading the model", share, needed)

    try:
        how.tool.run(source, target, how.to, step, threads=how.threads, imatrix=how.imatrix, requantize=how.requantize)
    except Refused as refused:
        if store.room() < _FULL_BYTES:
            store.require_room(needed)  # says it as everything else does
            raise DiskFull("the disk is full", hint="free some space: `corral prune`, `corral df`") from refused
        raise EngineError(
            f"{how.tool.path.name} failed: {refused}", hint="the model may be damaged: `corral verify` reads all of it"
        ) from refused


def _checked(target: Path, how: How) -> Header:
    """The header of what was made, which must be what was asked for."""
    try:
        made = read_header(target)
    except ModelFileError as error:
        raise EngineError(f"{how.tool.path.name} wrote no whole model: {error.message}", hint="try again") from error
    if how.to in FILE_TYPES.values() and made.quantization != how.to:
        raise EngineError(f"{how.tool.path.name} wrote {made.quantization} instead of {how.to}", hint="try again")
    return made


def _lineage(base: Base, source: Path, how: How, say: Say) -> Lineage:
    return Lineage(
        "quantized",
        how.to,
        str(how.tool),
        base.name,
        base.digest or "",
        "" if base.digest is not None else file_digest(source, lambda: say("hashing the file", 0, None)),
        file_digest(how.imatrix, lambda: None) if how.imatrix is not None else "",
    )


def file_digest(path: Path, say: Callable[[], None]) -> str:
    """The digest of a file of no store."""
    say()
    with path.open("rb", buffering=0) as file:
        return hash_file(file)[0]


def _file_name(header: Header, base: Base, how: How) -> str:
    """`<what it was called>-Q4_K_M.gguf`, without the type that it had."""
    stem = base.file.name if base.file is not None else base.name.rpartition("/")[2].partition(":")[0]
    stem = stem.removesuffix(".gguf")
    for old in (header.quantization, header.quantization.lower()):
        if old and stem.endswith((f"-{old}", f".{old}")):
            stem = stem[: -len(old) - 1]
    safe = "".join(each if each.isalnum() or each in "._-" else "-" for each in stem).strip(".-")
    return f"{safe or 'model'}-{how.to}.gguf"
