"""The llama.cpp adapter: from a model's settings to the plan of one engine process, embedded or `llama-server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from corral.config.settings import ModelSettings
from corral.config.sources import check_inside
from corral.engines import (
    architecture,
    embedded_host,
    executables,
    flags,
    further_files,
    gpu_choice,
    gpus_for,
    purpose,
    threads,
)
from corral.engines import layout as layouts
from corral.engines.adapter import Start
from corral.engines.executables import Build
from corral.engines.layout import Layout
from corral.engines.placement import TOP, UNKNOWN, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Mount
from corral.engines.prediction import mapped
from corral.engines.prompts import Prompts, prompts_of
from corral.engines.report import WORDY
from corral.engines.rooms import Machine, room_of
from corral.errors import EngineError, EngineFlagError, EngineMissing, ModelFileError
from corral.models.formats.gguf import Header
from corral.models.formats.shards import read_model, shard_paths

Images = Callable[[ModelSettings], Build]

NAME = "llama.cpp"
"""The value of the `engine` key that means this adapter."""


class LlamaCpp:
    """The `Adapter` of llama.cpp. Stateless; what the builds on this machine said is remembered for all of them.

    `machine` tells of this machine's memory; it may block. Without it, layouts are left to the engine. `slots_dir` is
    the directory that a model's engine may save its slots in, None for none. `images` gives the build of a model that
    runs in a container.
    """

    def __init__(
        self,
        machine: Callable[[], Machine] | None = None,
        slots_dir: Callable[[str], Path | None] = lambda model: None,
        images: Callable[[ModelSettings], Build] | None = None,
    ) -> None:
        self._machine, self._slots_dir, self._images = machine, slots_dir, images

    def plan(self, start: Start) -> LaunchPlan:
        model, endpoint, room, step = start.model, start.endpoint, start.room, start.step
        header = _header(model)
        flags.check_allowed(model.args)
        _check_env(model)
        if model.runner == "process":  # in a container, paths are its own
            further_files.check(model.args)
        build, warnings = _choose(model, header, self._images)
        inside = build.inside
        gpus = gpus_for.found(build, model, step)
        if room is None:
            room = self._room(model, gpus)
        gpus, room, said = gpus_for.chosen(model, build, gpus, room)
        layout = _layout(model, header, room, gpus, step)
        prompts = _prompts(model, header, build, layout.footprint, room)
        if gpus.degraded:
            warnings = (*warnings, f"degraded: {gpus.degraded}")
        env = {**model.env, **gpu_choice.HIDDEN} if gpus.degraded else gpus_for.variables(model)
        return LaunchPlan(
            unit=start.unit,
            model=model.name,
            generation=start.generation,
            engine=NAME,
            engine_version=build.version,
            argv=(
                *_program(build),
                *_arguments(model, header, build, endpoint, layout, room, step, prompts, gpus),
                *(() if inside is not None else _kept(build, model, self._slots_dir(model.name))),
            ),
            endpoint=endpoint,
            footprint=prompts.counted(mapped(model, layout.footprint)),
            env=MappingProxyType({**(inside.env if inside else {}), **env}),
            mounts=tuple(Mount(file, str(file)) for file in _files(model, header)),
            devices=layout.devices,
            context=layout.context,
            slots=model.parallel,
            runner=model.runner,
            warnings=(*warnings, *said, *layout.warnings, *prompts.warnings, *_foreign_config(build)),
            room=room,
            step=step,
            left=layout.left,
            placement=layout.words,
            degraded=gpus.degraded,
            awaits_gpu=gpus.awaited,
            image=inside.reference if inside else "",
            image_id=inside.id if inside else "",
            nodes=inside.nodes if inside and any(each != "cpu" for each in layout.devices) else (),
            says_more=_may_say_more(build, model),
        )

    def room(self, model: ModelSettings, header: Header | None = None) -> Room:
        """What `model` may use of this machine; empty without one. Blocks for asking its engine for GPUs.

        Raises EngineError where there is no engine for it, and ModelFileError.
        """
        build, _ = _choose(model, header or _header(model), self._images)
        gpus = gpus_for.found(build, model, TOP)
        return gpus_for.chosen(model, build, gpus, self._room(model, gpus))[1]

    def footprint(self, model: ModelSettings) -> Footprint:
        header = _header(model)
        build, gpus = None, gpus_for.NONE
        try:
            build, _ = _choose(model, header, self._images)
            gpus = gpus_for.found(build, model, TOP)
            gpus, room, _ = gpus_for.chosen(model, build, gpus, self._room(model, gpus))
        except EngineError:  # planning a start will say what is wrong with the engine
            room = self._room(model, gpus)
        predicted = mapped(model, layouts.predicted(model, header, room, gpus.names))
        return predicted if build is None else _prompts(model, header, build, predicted, room).counted(predicted)

    def has_gpus(self, model: ModelSettings) -> bool:
        try:
            build, _ = _choose(model, _header(model), self._images)
            gpus = gpus_for.found(build, model, TOP, afresh=True)
            return bool(gpus_for.chosen(model, build, gpus, self._room(model, gpus))[0].listed)
        except (EngineError, ModelFileError):
            return False

    def _room(self, model: ModelSettings, gpus: gpus_for.Gpus) -> Room:
        if self._machine is None or (gpus.listed and layouts.own_layout(model)):
            return UNKNOWN
        return room_of(self._machine(), gpus.listed)


def refusals(model: ModelSettings) -> list[EngineError]:
    """What every start of `model` would refuse of its `args` and `env`; nothing where that cannot be known before. Asks
    a llama-server for its `--help`; looks at no model file."""
    found: list[EngineError] = list(flags.not_allowed(model.args))
    try:
        _check_env(model)
    except EngineFlagError as error:
        found.append(error)
    builds: list[list[EngineFlagError]] = []
    for get in _candidates(model, None) if model.args and model.runner == "process" else ():
        try:
            build = get()
        except EngineError:
            continue  # that it is missing says nothing of the flags
        if build.kind == "embedded":
            builds.append([each for each in flags.read(model.args) if isinstance(each, EngineFlagError)])
        else:
            builds.append([*flags.not_known(model.args, build.flags, str(build)), *flags.no_numbers(model.args)])
    said = {each.details.get("flag") for each in found}
    if all(builds):  # else there is one that takes them
        found += [each for each in (builds or [[]])[0] if each.details.get("flag") not in said]
    return found


def _layout(model: ModelSettings, header: Header, room: Room, gpus: gpus_for.Gpus, step: Step) -> Layout:
    if room:
        return layouts.lay_out(model, header, room, step)
    return layouts.left_to_engine(model, header, gpus.names, step)


def _header(model: ModelSettings) -> Header:
    check_inside(model.source, model.roots)  # once more: a link may have changed since the file was read
    header = read_model(model.source)
    if header.architecture == "clip":
        raise ModelFileError(
            f"{model.source} is a projector for images or sound, not a language model",
            hint=f"set `source` to the model it belongs to and add `args: [--mmproj, {model.source}]`",
        )
    return header


def _files(model: ModelSettings, header: Header) -> list[Path]:
    count = header.integer("split.count") or 1
    return shard_paths(model.source, count) if count > 1 else [model.source]


def _check_env(model: ModelSettings) -> None:
    """llama-server takes LLAMA_ARG_* for flags, the embedded engine does not: `args` has the same meaning for both."""
    for name in model.env:
        if name.startswith("LLAMA_ARG_") or name == "LLAMA_API_KEY":
            raise EngineFlagError(
                f"the variable {name} in `env` of {model.name} is an engine flag in disguise",
                hint="write it as a flag in `args`",
                variable=name,
            )


def _candidates(model: ModelSettings, images: Images | None) -> Iterator[Callable[[], Build]]:
    """How to get at the builds that `executable` allows, the preferred one first; in a container there is one."""
    if model.runner != "process":
        if images is None:
            raise EngineMissing(f"there are no containers for {model.name} here", hint="set `runner: process`")
        yield partial(images, model)
        return
    if model.executable not in ("auto", "embedded"):
        yield lambda: executables.llama_server(model.executable)
        return
    if model.executable == "auto" and (path := executables.on_path()) is not None:
        yield lambda: executables.llama_server(str(path))
    yield executables.embedded


def _choose(model: ModelSettings, header: Header, images: Images | None) -> tuple[Build, tuple[str, ...]]:
    """The build that will run `model`, and a warning when it is not the preferred one.

    Raises the EngineError of the preferred build when none of the candidates will do.
    """
    refusals: list[EngineError] = []
    for get in _candidates(model, images):
        try:
            build = get()
            architecture.check(build, header.architecture, model.name, partial(_others, build))
            _check_flags(build, model.args)
        except EngineError as exc:
            refusals.append(exc)
            continue
        said = build.inside.warnings if build.inside is not None else ()
        return build, (*said, *(f"runs on {build} because {refusal.message}" for refusal in refusals))
    raise refusals[0]


def _others(build: Build) -> list[Build]:
    """Every other build that can be found without being told where it is."""
    found: list[Build] = []
    path = executables.on_path()
    looks = (
        [executables.embedded] if path is None else [lambda: executables.llama_server(str(path)), executables.embedded]
    )
    for look in looks:
        try:
            other = look()
        except EngineError:
            continue
        if other.path != build.path:
            found.append(other)
    return found


def _check_flags(build: Build, args: Sequence[str]) -> None:
    if build.kind == "embedded":
        flags.parse(args)
    else:
        flags.check_known(args, build.flags, str(build))


def _program(build: Build) -> tuple[str, ...]:
    if build.kind == "embedded":
        return embedded_host.command()
    return (str(build.path),)


def _arguments(
    model: ModelSettings,
    header: Header,
    build: Build,
    endpoint: Endpoint,
    layout: Layout,
    room: Room,
    step: Step,
    prompts: Prompts,
    gpus: gpus_for.Gpus,
) -> tuple[str, ...]:
    where = (str(endpoint.socket),) if endpoint.socket is not None else (endpoint.host, "--port", str(endpoint.port))
    return (
        "--model",
        str(model.source),
        "--alias",
        model.name.partition("~")[0],  # a replica's unit has a name of its own
        "--host",
        *where,
        "--ctx-size",
        str(layout.context * model.parallel),
        "--parallel",
        str(model.parallel),
        *gpus_for.arguments(model, build, layout, room, step, gpus),
        *_served(build),
        *prompts.arguments,
        *purpose.arguments(header, model.args, layout.context),
        *threads.arguments(header, build, model.args),
        *(_without_remotes(model) if gpus.degraded else model.args),
        *(("--batch-size", str(layout.batch), "--ubatch-size", str(layout.batch)) if layout.batch is not None else ()),
    )


def _kept(build: Build, model: ModelSettings, folder: Path | None) -> tuple[str, ...]:
    """Where slots are saved, unless the model's own flags say so."""
    known = build.kind == "embedded" or "--slot-save-path" in build.flags
    own = any(each.startswith("--slot-save-path") for each in model.args)
    return ("--slot-save-path", str(folder)) if folder is not None and known and not own else ()


def _without_remotes(model: ModelSettings) -> tuple[str, ...]:
    """`args` of an engine that must not reach for devices on other machines, which would end it."""
    remotes = gpus_for.flags_of_remotes(model)
    at = next((at for at, each in enumerate(model.args) if remotes and each == remotes[0]), None)
    return model.args if at is None else (*model.args[:at], *model.args[at + 2 :])


def _prompts(model: ModelSettings, header: Header, build: Build, footprint: Footprint, room: Room) -> Prompts:
    known = build.kind == "embedded" or "--cache-ram" in build.flags
    generates = (purpose.asked(model.args) or purpose.purpose(header)) == "text"
    return prompts_of(model.args, footprint, room) if known and generates else Prompts()


def _served(build: Build) -> tuple[str, ...]:
    """What Corral wants of every engine where it can be had: counters and slots. Its own page is not switched off,
    though nobody is sent there: the engine would say so (`ui` of its `/props`), and the page that talks to a router
    leaves such a model out of its list."""
    return tuple(name for name in ("--metrics", "--slots") if build.kind == "embedded" or name in build.flags)


def _may_say_more(build: Build, model: ModelSettings) -> bool:
    """Whether the engine can be told how much to say, and nobody else has."""
    told = any(flags.has(model.args, name) for name in ("--verbosity", "--verbose"))
    return not told and (build.kind == "embedded" or WORDY[0] in build.flags)


def _foreign_config(build: Build) -> tuple[str, ...]:
    """llama-server reads a configuration file of its own, below the flags it is given: say so."""
    if build.kind == "embedded" or build.inside is not None:
        return ()
    places = (Path("/etc/llama.cpp/config.ini"), Path("~/.config/llama.cpp/config.ini").expanduser())
    return tuple(f"llama-server also takes flags from {place}" for place in places if place.exists())
