"""The vLLM adapter: from a model's settings to the plan of one server of a safetensors model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.placement import TOP, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Mount, Probe
from corral.engines.rooms import Machine, room_of
from corral.engines.vllm_builds import (
    QUIET,
    SHARED_BYTES,
    VllmBuild,
    VllmFlags,
    build_in,
    check_args,
    check_known,
    flags_heard,
    flags_of,
    missing,
)
from corral.engines.vllm_folder import Folder, read_folder
from corral.engines.vllm_folder import check_known as check_architecture
from corral.engines.vllm_room import Planned, plan_room
from corral.errors import EngineError, EngineFlagError, EngineMissing
from corral.hardware.devices import CPU, Listed
from corral.lazy_dataclass import dataclass

NAME: Final = "vllm"
"""The value of the `engine` key that means this adapter."""

_VENDORS: Final = {"cuda": "nvidia", "rocm": "amd"}
_LISTED_AS: Final = {"cuda": "CUDA", "rocm": "ROCm"}
_SHOWS: Final = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}
_GIB: Final = 1 << 30
_INSIDE: Final[Mapping[str, str]] = MappingProxyType({"USER": "vllm", "GLOO_SOCKET_IFNAME": "lo"})
"""In a container: a name for a user who has none there, and the only network there is."""
_DRAIN_S: Final = 5
"""How long it lets running answers end once it is told to end. Corral has drained it before, as a rule."""


@dataclass(frozen=True, slots=True)
class _Gpus:
    """Those that an environment can use, in its own order: Corral's names, and how they are listed."""

    listed: tuple[Listed, ...] = ()
    numbers: tuple[int, ...] = ()  # by which the driver knows them


class Vllm:
    """The `Adapter` of vLLM. Stateless; what environments said of their flags is kept below `cache`.

    `machine` tells of this machine's memory; it may block. `installed` is the environment that `executable: auto`
    means, None where there is none. `images` has the build of a model that runs in a container.
    """

    def __init__(
        self,
        machine: Callable[[], Machine],
        installed: Callable[[], Path | None],
        cache: Path,
        images: Callable[[ModelSettings], VllmBuild] | None = None,
    ) -> None:
        self._machine, self._installed, self._cache, self._images = machine, installed, cache, images

    def plan(self, start: Start) -> LaunchPlan:
        model, room, step = start.model, start.room, start.step
        folder = read_folder(model)
        check_args(model.args, _decided(model))
        _check_env(model)
        build = self._build(model)
        inside = build.inside
        check_architecture(build, folder, model.name)
        flags = flags_of(build, self._cache)
        check_known(model.args, flags, str(build))
        gpus = self._gpus(build, model, step)
        if room is None:
            room = self._room(gpus)
        planned = plan_room(model, folder, build.variant, room, step)
        endpoint = _listens(start.endpoint, flags, build)
        return LaunchPlan(
            unit=start.unit,
            model=model.name,
            generation=start.generation,
            engine=NAME,
            engine_version=f"vLLM {build.version} ({build.variant})",
            argv=(*build.command, *_arguments(model, build, flags, endpoint, planned)),
            endpoint=endpoint,
            footprint=planned.footprint,
            probe=_probe(model, folder),
            env=MappingProxyType(_environment(model, build, flags, gpus, planned)),
            mounts=tuple(mount for each in _folders(model, folder) for mount in _mounts(each)),
            devices=planned.gpus or (CPU,),
            context=planned.context,
            slots=model.parallel,
            runner=model.runner,
            warnings=(*(inside.warnings if inside else ()), *_warnings(model), *planned.warnings),
            room=room,
            step=step,
            left=planned.left,
            placement=planned.words,
            sleep=planned.sleep,
            image=inside.reference if inside else "",
            image_id=inside.id if inside else "",
            nodes=inside.nodes if inside and gpus.numbers else (),
            shared_bytes=SHARED_BYTES if inside else 0,
            makes_code=inside is not None,
        )

    def refusals(self, model: ModelSettings) -> list[EngineError]:
        """What every start of `model` would refuse of its `args` and `env`, as far as that is known without asking an
        environment for its flags, which takes long; of several at least the first."""
        try:
            check_args(model.args, _decided(model))
            _check_env(model)
            if model.args and model.runner == "process":
                build = self._build(model)
                if (known := flags_heard(build, self._cache)) is not None:
                    check_known(model.args, known, str(build))
        except EngineFlagError as error:
            return [error]
        except (EngineError, OSError):
            return []  # that it is missing says nothing of the flags
        return []

    def footprint(self, model: ModelSettings) -> Footprint:
        folder = read_folder(model)
        try:
            build = self._build(model)
            gpus = self._gpus(build, model, TOP)
        except EngineError:
            return Footprint(MappingProxyType({}))  # planning a start will say what is wrong with the engine
        room = self._room(gpus)
        return plan_room(model, folder, build.variant, room, TOP).footprint

    def has_gpus(self, model: ModelSettings) -> bool:
        try:
            return bool(self._gpus(self._build(model), model, TOP).listed)
        except EngineError:
            return False

    def _room(self, gpus: _Gpus) -> Room:
        machine = self._machine()
        room = room_of(machine, gpus.listed)
        totals = {each.name: each.total_bytes for each in machine.devices if each.total_bytes is not None}
        return replace(room, totals=MappingProxyType({name: totals[name] for name in room.gpus if name in totals}))

    def _build(self, model: ModelSettings) -> VllmBuild:
        if model.runner != "process":
            if self._images is None:
                raise EngineMissing(f"there are no containers for {model.name} here", hint="set `runner: process`")
            return self._images(model)
        if model.executable == "embedded":
            raise EngineMissing(
                "no vLLM comes with Corral", hint="take `executable` away, or name an environment with vLLM in it"
            )
        if model.executable != "auto":
            return build_in(Path(model.executable))
        if (folder := self._installed()) is None:
            raise missing()
        return build_in(folder)

    def _gpus(self, build: VllmBuild, model: ModelSettings, step: Step) -> _Gpus:
        """Raises EngineError where an environment for GPUs has too few."""
        if build.variant == "cpu":
            return _Gpus()
        vendor, wanted = _VENDORS[build.variant], world_size(model)
        hint = "corral engine install vllm --variant cpu makes one for the processor; `corral doctor` looks at GPUs"
        if step.cpu:
            raise EngineError(f"{build} cannot do without a GPU ({step.cpu})", hint=hint, model=model.name)
        found = [each for each in self._machine().devices if each.vendor == vendor and each.problem is None]
        if len(found) < wanted:
            there = f"{len(found)} that it can use {'is' if len(found) == 1 else 'are'} here"
            text = f"{model.name} needs {wanted} GPU{'s' if wanted > 1 else ''} for {build}, and {there}"
            raise EngineError(text, hint=hint if not found else "lower tensor_parallel and the like", model=model.name)
        listed = tuple(
            Listed(f"{_LISTED_AS[build.variant]}{number}", each.words, each.total_bytes, each.free_bytes)
            for number, each in enumerate(found)
        )
        return _Gpus(listed[:wanted], tuple(range(wanted)))


def _folders(model: ModelSettings, folder: Folder) -> tuple[Path, ...]:
    """Those that it opens: the model's, and that of another tokenizer."""
    named = dict(zip(model.args, model.args[1:], strict=False)).get("--tokenizer", "")
    more = Path(named) if named.startswith("/") else folder.path
    return (folder.path, more) if more != folder.path and more.is_dir() else (folder.path,)


def _mounts(folder: Path) -> tuple[Mount, ...]:
    """What of this machine it must see: the folder, or each of its files where some are links that lead out of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not any(path.is_symlink() for path in files):
        return (Mount(folder, str(folder)),)
    return tuple(Mount(path, str(path)) for path in files)


def world_size(model: ModelSettings) -> int:
    """GPUs that one engine of `model` takes."""
    return model.tensor_parallel * model.pipeline_parallel * model.data_parallel


def _decided(model: ModelSettings) -> tuple[str, ...]:
    keys = (("quantization", model.quantization is not None), ("kv_cache_type", model.kv_cache_type != "auto"))
    return tuple(name for name, said in keys if said)


def _check_env(model: ModelSettings) -> None:
    for name in model.env:
        if name in ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_PORT"):
            raise EngineFlagError(
                f"the variable {name} in `env` of {model.name} is Corral's own to set",
                hint="remove it; `sleep` and `listen` say what it would",
                variable=name,
            )


def _listens(endpoint: Endpoint, flags: VllmFlags, build: VllmBuild) -> Endpoint:
    if endpoint.socket is not None and "--uds" not in flags:
        raise EngineError(
            f"{build} cannot listen on a unix socket, where only Corral reaches it",
            hint="a newer vLLM can (it has the flag --uds): corral engine install vllm --variant …",
        )
    return endpoint


def _arguments(
    model: ModelSettings, build: VllmBuild, flags: VllmFlags, endpoint: Endpoint, planned: Planned
) -> tuple[str, ...]:
    where = (
        ("--uds", str(endpoint.socket))
        if endpoint.socket is not None
        else ("--host", endpoint.host, "--port", str(endpoint.port))
    )
    words = [
        "--model", str(model.source), "--served-model-name", model.name.partition("~")[0], *where,
        "--max-model-len", str(planned.context), "--max-num-seqs", str(planned.sequences),
    ]  # fmt: skip
    for flag, ways in (
        ("--tensor-parallel-size", model.tensor_parallel),
        ("--pipeline-parallel-size", model.pipeline_parallel),
        ("--data-parallel-size", model.data_parallel),
    ):
        words += [flag, str(ways)] if ways > 1 else []
    words += ["--quantization", model.quantization] if model.quantization is not None else []
    words += ["--kv-cache-dtype", model.kv_cache_type] if model.kv_cache_type != "auto" else []
    words += ["--gpu-memory-utilization", f"{planned.share:.2f}"] if planned.share is not None else []
    words += ["--kv-cache-memory-bytes", str(planned.cache)] if "--kv-cache-memory-bytes" in flags else []
    words += ["--enable-sleep-mode"] if planned.sleep and build.variant != "cpu" else []
    words += ["--shutdown-timeout", str(_DRAIN_S)] if "--shutdown-timeout" in flags else []
    # What a request had in its prompt from before is told in its usage; who asked what is the gateway's to log.
    words += [each for each in ("--enable-prompt-tokens-details", "--disable-uvicorn-access-log") if each in flags]
    return (*words, *model.args)


def _environment(
    model: ModelSettings, build: VllmBuild, flags: VllmFlags, gpus: _Gpus, planned: Planned
) -> Mapping[str, str]:
    found: dict[str, str] = {**QUIET, "VLLM_HOST_IP": "127.0.0.1"}
    if build.inside is not None:
        found |= {**_INSIDE, **build.inside.env}
    if build.variant == "cpu" and "--kv-cache-memory-bytes" not in flags:
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, math.ceil(planned.cache / _GIB)))
    if planned.sleep:
        found["VLLM_SERVER_DEV_MODE"] = "1"  # has /sleep, on a socket that only Corral can open
    if gpus.numbers:
        found["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        found[_SHOWS[build.variant]] = ",".join(str(each) for each in gpus.numbers)
    return {**found, **model.env}


def _probe(model: ModelSettings, folder: Folder) -> Probe:
    name = model.name.partition("~")[0]
    body: dict[str, Any]
    if folder.generates:
        path, body = "/v1/completions", {"model": name, "prompt": " ", "max_tokens": 1}
    else:
        path, body = "/v1/embeddings", {"model": name, "input": " "}
    return Probe(canary=path, canary_body=json.dumps(body), counters="/metrics")


def _warnings(model: ModelSettings) -> tuple[str, ...]:
    found = []
    if model.gpu_layers != "auto" and model.runner == "process":  # elsewhere it says which image
        found.append(
            f"gpu_layers: {model.gpu_layers} says nothing to vLLM, which has a whole model on its GPUs or none"
        )
    if model.parallel > model.max_num_seqs:
        found.append(
            f"parallel ({model.parallel}) is more than max_num_seqs ({model.max_num_seqs}): "
            "some requests wait in the engine, where they cannot take turns"
        )
    return tuple(found)
