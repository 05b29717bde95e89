"""`look`: will a model fit on this machine, where, with how many layers, up to which context, and why.

Reads files itself and asks no server. It decides as the plan of a start does, by the same code; what it says of the
model is predicted, or asked of the engine without loading.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corral.config.load import load
from corral.config.nearest import nearest
from corral.config.paths import Paths
from corral.config.settings import HEADROOM as HEADROOM
from corral.config.settings import ModelSettings, Settings
from corral.engines import layout
from corral.engines.adapter import Start
from corral.engines.from_ledger import key_of
from corral.engines.llamacpp import LlamaCpp
from corral.engines.placement import Room
from corral.engines.plan import Endpoint
from corral.engines.probing import probed
from corral.engines.rooms import Machine, room_of
from corral.errors import CallerError, CorralError, EngineError, ModelFileError, UnknownModel
from corral.hardware.probe import Hardware, probe
from corral.lazy_dataclass import dataclass
from corral.ledger.figures import Figures
from corral.ledger.ledger import read_ledger
from corral.models.content import read_content, read_stored_header
from corral.models.formats.gguf import Header
from corral.models.formats.shards import read_model
from corral.models.library import Library, missing
from corral.models.memory.fit import Fit
from corral.routing.resolve import resolve
from corral.runners.resident import held_now
from corral.units import show_bytes, show_duration


@dataclass(frozen=True, slots=True)
class Device:
    """Memory as it is now, and what of it one model may use once the others of Corral are gone."""

    name: str
    total_bytes: int | None
    free_bytes: int | None
    room_bytes: int
    left_alone_bytes: int
    origin: str = "measured"


@dataclass(frozen=True, slots=True)
class Share:
    """What the model takes on one device in the place that was found, or in the last that was tried."""

    device: str
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    total_bytes: int  # where it was measured, with what the engine takes beside the three
    origin: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One place, and what is missing there by device."""

    place: str
    fits: bool
    missing_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """All that `corral fit` says."""

    model: str
    file: str
    architecture: str
    context: int  # tokens per slot: what was asked, or as much as fits
    slots: int
    model_context: int | None  # what the model was made for
    fits: bool
    place: str | None
    layers: int  # the output counted as one
    layers_on_gpus: int
    largest_context: int | None  # per slot, with which it would fit somewhere
    shares: tuple[Share, ...]
    tried: tuple[Tried, ...]
    devices: tuple[Device, ...]
    notes: tuple[str, ...]


def look(
    name: str,
    paths: Paths,
    *,
    context: int | None = None,
    slots: int | None = None,
    ask_engine: bool = False,
    hardware: Hardware | None = None,
) -> Answer:
    """The answer for a configured model, a stored one or a file. Blocks for file reads, probes and, with
    `ask_engine`, a child process of the engine's.

    Raises CallerError when `name` means nothing here, and what reading the configuration or the file raises.
    """  # fmt: skip
    settings = load(paths=paths).settings
    model, header = _find(name, paths, settings)
    model = replace(model, context=context or model.context, parallel=slots or model.parallel)
    notes: list[str] = []
    seen = hardware or probe()
    machine = Machine(seen.devices, settings.memory, settings.headroom, held_now(paths.warden_dir))
    room = _room(model, header, machine, seen, notes)
    wanted, doubts = layout.wanted_context(model, header)
    found = layout.best(model, header, room, longest=max(wanted, header.context_length or wanted))
    notes += doubts
    known = None if ask_engine or found.place is None else _remembered(model, room, paths)
    devices = _devices(room, machine)
    return _answer(name, model, header, wanted, room, devices, found, known, notes, ask_engine=ask_engine)


def _answer(
    name: str, model: ModelSettings, header: Header, wanted: int, room: Room, devices: list[Device], found: Fit,
    known: Figures | None, notes: list[str], *, ask_engine: bool,
) -> Answer:  # fmt: skip
    last = found.least_bad
    predicted, origin = last.prediction, "estimated"
    if ask_engine:
        try:
            predicted, origin = probed(model, last.context, last.run, predicted, room), "probed"
        except EngineError as error:
            notes.append(f"the engine could not be asked: {error.message}")
    shares = tuple(
        Share(device, parts.weights, parts.cache, parts.compute, parts.total, origin)
        for device, parts in predicted.devices.items()
        if parts.total
    )
    if known is not None:
        shares = _measured(shares, known)
        took = f", the last time in {show_duration(known.load_s)}" if known.load_s is not None else ""
        often = "once" if known.loads == 1 else f"{known.loads} times"
        notes.append(f"it was loaded so {often}{took}")
    if last.context < wanted:
        notes.append(f"a longer context than {last.context} tokens does not fit; the model was made for {wanted}")
    notes += _now(shares, devices) if found.place is not None else []
    return Answer(
        model=name,
        file=str(model.source),
        architecture=header.architecture,
        context=last.context,
        slots=model.parallel,
        model_context=header.context_length,
        fits=found.place is not None,
        place=found.place.words if found.place is not None else None,
        layers=found.layers,
        layers_on_gpus=found.on_gpus,
        largest_context=found.largest_context,
        shares=shares,
        tried=tuple(Tried(each.words, each.fits, dict(each.missing)) for each in found.tried),
        devices=tuple(devices),
        notes=tuple(notes),
    )


def _remembered(model: ModelSettings, room: Room, paths: Paths) -> Figures | None:
    """What such a start of it took, as servers here have measured it."""
    try:
        plan = LlamaCpp().plan(Start(model, generation=0, endpoint=Endpoint(socket=Path("fit.sock")), room=room))
    except CorralError:
        return None
    return read_ledger(paths.state_dir).get(key_of(plan))


def _measured(shares: tuple[Share, ...], known: Figures) -> tuple[Share, ...]:
    predicted = {share.device: share for share in shares}
    found = []
    for device, parts in known.devices.items():
        weights, cache, compute = (parts.get(part, 0) for part in ("weights", "cache", "compute"))
        found.append(Share(device, weights, cache, compute, sum(parts.values()), "measured"))
    return (*found, *(share for name, share in predicted.items() if name not in known.devices))


def _find(name: str, paths: Paths, settings: Settings) -> tuple[ModelSettings, Header]:
    """What `name` means: a name of models.yaml, a path, a model of the store, in this order."""
    try:
        model = resolve(settings, name)
    except UnknownModel:
        model = None
    if model is not None and model.endpoint is not None:
        hint = "what it holds counts as what other programs use"
        raise CallerError(
            f"{name} is a server that runs already, at {model.endpoint}: it takes no place here", hint=hint
        )
    if model is not None and model.ref is None:
        return model, read_model(model.source)
    if model is None and (name.endswith(".gguf") or Path(name).is_file()):
        path = Path(name).expanduser().absolute()
        return ModelSettings(name=path.stem, source=path), read_model(path)
    library = Library(paths, settings, listener=lambda *_: None)
    asked = name if model is None else str(model.ref)
    try:
        here = (paths.store_dir / "index.json").exists()  # else there is no store yet, and looking makes none
        try:
            if not here:
                raise missing(str(library.ref(asked)), asked)
            stored = library.find(asked)
        except UnknownModel as unknown:
            raise (
                unknown if model is not None else _nearer(name, unknown, library if here else None, settings)
            ) from None
        content = read_content(library.store, stored.digest)
        header = read_stored_header(library.store, content.artifact)
        file = next((each for each in content.artifact.of("weights", "shard")), None)
        if header is None or file is None:
            raise ModelFileError(
                f"the memory of {stored.name} is not known: it is no GGUF model, or still packed",
                hint=f"start it once: corral start {name}",
            )
        base = model or ModelSettings(name=name, source=library.store.blob(file.descriptor.digest).path)
        beside = [
            (flag, library.store.blob(each.descriptor.digest).path)
            for flag, files in (
                ("--mmproj", content.artifact.of("mmproj")),
                ("--lora", content.artifact.of("adapter")),
                ("--model-draft", content.artifact.of("draft")),
            )
            for each in files
        ]
        args = (*(word for flag, path in beside for word in (flag, str(path))), *base.args)
        return replace(base, context=base.context or content.context_size, args=args), header
    finally:
        library.close()


def _nearer(name: str, unknown: UnknownModel, library: Library | None, settings: Settings) -> UnknownModel:
    """`unknown`, which tells where the model can be had, after the model of this machine that is meant most likely."""
    stored = [] if library is None else [each.name for each in library.store.names()]
    short = [each.rpartition("/")[2].partition(":")[0] for each in stored]
    names = dict(zip((*short, *stored), (*stored, *stored), strict=True))
    names |= {each: each for model in settings.models.values() for each in (model.name, *model.aliases)}
    if (near := nearest(name, names)) is None:
        return unknown
    hint = f"did you mean {names[near]!r}? Else {unknown.hint}"
    return UnknownModel(f"no model is called {name!r}", hint=hint, **{**unknown.details, "nearest": names[near]})


def _room(model: ModelSettings, header: Header, machine: Machine, hardware: Hardware, notes: list[str]) -> Room:
    if hardware.memory is None:
        raise CallerError("this machine's memory cannot be read", hint="; ".join(hardware.notes) or "see corral doctor")
    try:
        room = LlamaCpp(lambda: machine).room(model, header)
    except (EngineError, ModelFileError) as error:
        notes.append(f"GPUs left out: {error.message}")
        return room_of(machine, ())
    gpus = [gpu.name for gpu in hardware.gpus if gpu.problem is None]
    if not room:
        notes.append("GPUs left out: `args` say how to use them, or nothing tells how much memory they have")
        return room_of(machine, ())
    if gpus and not room.gpus and model.gpu_layers != 0:
        notes.append(f"GPUs left out: the engine that would run it finds none ({', '.join(gpus)})")
    return room


def _devices(room: Room, machine: Machine) -> list[Device]:
    known = {each.name: each for each in machine.devices}
    return [
        Device(
            name,
            known[name].total_bytes if name in known else None,
            known[name].free_bytes if name in known else None,
            size,
            machine.left_alone(name),
        )
        for name, size in room.bytes_by_device.items()
    ]


def _now(shares: tuple[Share, ...], devices: list[Device]) -> list[str]:
    """Where something else would have to go first."""
    free = {each.name: each.free_bytes for each in devices}
    return [
        f"{show_bytes(left)} are free on {each.device} now: something else has to go first"
        for each in shares
        if (left := free.get(each.device)) is not None and left < each.total_bytes
    ]


def why(answer: Answer) -> list[str]:
    """The reasons in words, one for each place that was tried."""
    said = []
    for each in answer.tried:
        if each.fits:
            said.append(f"{each.place}: fits")
        else:
            lacks = ", ".join(f"{show_bytes(size)} on {name}" for name, size in each.missing_bytes.items())
            said.append(f"{each.place}: lacks {lacks}")
    return said
