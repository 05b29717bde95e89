"""The llama.cpp adapter: from a model's settings to the plan of one engine process, embedded or `llama-server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from corral.config.settings import ModelSettings
from corral.config.sources import check_inside
from corral.engines import architecture, embedded_host, executables, flags, purpose
from corral.engines.executables import Build
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Mount
from corral.engines.prediction import footprint_of
from corral.errors import EngineError, EngineFlagError, ModelFileError
from corral.models.gguf import Header
from corral.models.shards import read_model, shard_paths

NAME = "llama.cpp"
"""The value of the `engine` key that means this adapter."""

FALLBACK_CONTEXT = 4096
"""Tokens per slot where neither the settings nor the model say."""


class LlamaCpp:
    """The `Adapter` of llama.cpp. Stateless; what the builds on this machine said is remembered for all of them."""

    def plan(self, model: ModelSettings, *, generation: int, endpoint: Endpoint) -> LaunchPlan:
        header = _header(model)
        flags.check_allowed(model.args)
        _check_env(model)
        build, warnings = _choose(model, header)
        context, more = _context(model, header)
        gpus, degraded = _gpus(model, build)
        return LaunchPlan(
            unit=f"{model.name}.{generation}",
            model=model.name,
            generation=generation,
            engine=NAME,
            engine_version=build.version,
            argv=(*_program(build), *_arguments(model, header, build, endpoint, context)),
            endpoint=endpoint,
            footprint=footprint_of(model, header, context, gpus),
            env=MappingProxyType(dict(model.env)),
            mounts=tuple(Mount(file, str(file)) for file in _files(model, header)),
            devices=gpus or ("cpu",),
            context=context,
            slots=model.parallel,
            warnings=(*warnings, *more, *degraded, *_foreign_config(build)),
        )

    def devices(self, model: ModelSettings) -> tuple[str, ...]:
        """The GPUs (`gpu0` …) that the engine which would run `model` finds and may use. Blocks for asking it."""
        return _gpus(model, _choose(model, _header(model))[0])[0]

    def footprint(self, model: ModelSettings) -> Footprint:
        header = _header(model)
        context, _ = _context(model, header)
        try:
            gpus, _ = _gpus(model, _choose(model, header)[0])
        except EngineError:
            gpus = ()  # planning a start will say what is wrong with the engine
        return footprint_of(model, header, context, gpus)


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


def _candidates(model: ModelSettings) -> Iterator[Callable[[], Build]]:
    """How to get at the builds that `executable` allows, the preferred one first."""
    if model.executable not in ("auto", "embedded"):
        yield lambda: executables.llama_server(model.executable)
        return
    if model.executable == "auto" and (path := executables.on_path()) is not None:
        yield lambda: executables.llama_server(str(path))
    yield executables.embedded


def _choose(model: ModelSettings, header: Header) -> tuple[Build, tuple[str, ...]]:
    """The build that will run `model`, and a warning when it is not the preferred one.

    Raises the EngineError of the preferred build when none of the candidates will do.
    """
    refusals: list[EngineError] = []
    for get in _candidates(model):
        try:
            build = get()
            architecture.check(build, header.architecture, model.name, partial(_others, build))
            _check_flags(build, model.args)
        except EngineError as exc:
            refusals.append(exc)
            continue
        return build, tuple(f"runs on {build} because {refusal.message}" for refusal in refusals)
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


def _context(model: ModelSettings, header: Header) -> tuple[int, tuple[str, ...]]:
    """Tokens per slot, and a warning when that is not what the model was made for."""
    trained = header.context_length
    if model.context is None:
        if trained is not None:
            return trained, ()
        return FALLBACK_CONTEXT, (f"the model does not say how long its context is; {FALLBACK_CONTEXT} tokens assumed",)
    if trained is not None and model.context > trained:
        said = f"context {model.context} is longer than the {trained} tokens the model was made for"
        return model.context, (said,)
    return model.context, ()


def _gpus(model: ModelSettings, build: Build) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The devices layers go to (`gpu0` …; none for the CPU), and a warning when GPUs were asked for in vain."""
    if model.gpu_layers == 0:
        return (), ()
    try:
        found = executables.devices(build, model.env)
        why = f"{build} finds no GPU"
    except EngineError as exc:
        found, why = (), f"its GPUs cannot be listed: {exc.message}"
    if found:
        return tuple(f"gpu{number}" for number in range(len(found))), ()
    if model.gpu_layers == "auto":
        return (), ()
    return (), (f"degraded: cpu (gpu_layers is {model.gpu_layers}, but {why})",)


def _program(build: Build) -> tuple[str, ...]:
    if build.kind == "embedded":
        return embedded_host.command()
    return (str(build.path),)


def _arguments(model: ModelSettings, header: Header, build: Build, endpoint: Endpoint, context: int) -> tuple[str, ...]:
    where = (str(endpoint.socket),) if endpoint.socket is not None else (endpoint.host, "--port", str(endpoint.port))
    layers = () if model.gpu_layers == "auto" else ("--gpu-layers", str(model.gpu_layers))
    return (
        "--model",
        str(model.source),
        "--alias",
        model.name,
        "--host",
        *where,
        "--ctx-size",
        str(context * model.parallel),
        "--parallel",
        str(model.parallel),
        *layers,
        *_served(build),
        *purpose.arguments(header, model.args, context),
        *model.args,
    )


def _served(build: Build) -> tuple[str, ...]:
    """What Corral wants of every engine where it can be had: counters, slots, and no web page of its own."""
    if build.kind == "embedded":
        return ("--metrics", "--slots", "--no-ui")
    no_page = next((name for name in ("--no-ui", "--no-webui") if name in build.flags), None)
    wanted = [name for name in ("--metrics", "--slots") if name in build.flags]
    return (*wanted, no_page) if no_page else tuple(wanted)


def _foreign_config(build: Build) -> tuple[str, ...]:
    """llama-server reads a configuration file of its own, below the flags it is given: say so."""
    if build.kind == "embedded":
        return ()
    places = (Path("/etc/llama.cpp/config.ini"), Path("~/.config/llama.cpp/config.ini").expanduser())
    return tuple(f"llama-server also takes flags from {place}" for place in places if place.exists())
