"""The keys of models.yaml, with their kinds and descriptions. The only module that knows pydantic.

`FileKeys` is the whole document as editors see it; loading checks `GlobalKeys` and each `ModelKeys` apart, so that
one bad model does not hide the problems of another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from corral.config import elsewhere, fetching, listening, times, values, watching
from corral.config.settings import (
    CacheType,
    Download,
    GpuBackend,
    Listen,
    Log,
    Quantization,
    Reasoning,
    Registry,
    Rung,
    RunnerName,
    Sandbox,
    Settings,
    Signed,
    Split,
    Timeouts,
    Traces,
    Window,
)
from corral.lazy_dataclass import dataclass

# Plugins of pydantic that somebody's other packages bring are not for us, and looking for them at each start costs.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

_ENGINES = get_args(Literal["llama.cpp", "vllm", "detector"])
_REASONING = get_args(Reasoning)
_RUNNERS = get_args(RunnerName)
_DETECTOR_SLOTS = 16
"""Two batches: one that is being seen, and one on its way."""


@dataclass(frozen=True, eq=False)  # hashed by identity
class _Rule:
    """`check` is the rule itself, the JSON Schema says what editors can check of it. The type beside it in the
    annotation is for mypy: pydantic, which builds nothing for it here, would take a fifth of a server's start."""

    check: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.schema)


def _kind(check: Callable[[Any], Any], *either: dict[str, Any]) -> Any:
    return (_Rule(check, either[0] if len(either) == 1 else {"anyOf": list(either)}),)


_STR: dict[str, Any] = {"type": "string", "minLength": 1}
_STRS: dict[str, Any] = {"type": "array", "items": _STR}
_SCALARS: dict[str, Any] = {"type": "array", "items": {"type": ["string", "number", "boolean"]}}
_NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}


def _int(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


Text = Annotated[str, *_kind(values.text, _STR)]
Texts = Annotated[tuple[str, ...], *_kind(values.texts, _STR, _STRS)]
Name = Annotated[str, *_kind(values.model_name, {**_STR, "maxLength": 200})]
Names = Annotated[tuple[str, ...], *_kind(values.model_names, _STR, _STRS)]
Args = Annotated[tuple[str, ...], *_kind(values.args, {"type": "string"}, _SCALARS)]
Env = Annotated[
    dict[str, str],
    *_kind(values.env, {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
Truth = Annotated[bool, *_kind(values.truth, {"type": "boolean"})]
Port = Annotated[
    int,
    *_kind(
        values.whole(1, 65535, hint="a port is a number from 1 to 65535, free on this machine: 8001"), _int(1, 65535)
    ),
]
Tokens = Annotated[int, *_kind(values.whole(1, 1 << 30), _int(1, 1 << 30))]
Slots = Annotated[int, *_kind(values.whole(1, 1024), _int(1, 1024))]
Priority = Annotated[int, *_kind(values.whole(-1000, 1000), _int(-1000, 1000))]
Waiting = Annotated[int, *_kind(values.whole(0, 1_000_000), _int(0, 1_000_000))]
Limit = Annotated[int | None, *_kind(values.limit, _int(1, 1_000_000), {"enum": [*values.UNLIMITED, None]})]
Seconds = Annotated[float, *_kind(values.seconds(), _STR, _NUMBER)]
SomeSeconds = Annotated[float, *_kind(values.seconds(0.001), _STR, _NUMBER)]
SecondsOrNever = Annotated[float | None, *_kind(values.seconds_or_never, _STR, _NUMBER)]
Size = Annotated[int, *_kind(values.size, _STR, {"type": "integer", "minimum": 1})]
SizeOrOff = Annotated[int | None, *_kind(values.size_or_off, _STR, {"type": "integer", "minimum": 1})]
Memory = Annotated[
    dict[str, int],
    *_kind(
        values.memory,
        {
            "type": "object",
            "patternProperties": {"^(cpu|gpu[0-9]+)$": {"type": ["string", "integer"]}},
            "additionalProperties": False,
        },
    ),
]
Context = Annotated[int | None, *_kind(values.tokens, {"const": "auto"}, _int(1, 1 << 30), {"type": "null"})]
Rungs = Annotated[
    tuple[Rung, ...],
    *_kind(values.rungs, {"const": "never"}, {"type": "array", "items": {"enum": [*get_args(Rung)]}}),
]
Headroom = Annotated[
    int | dict[str, int], *_kind(values.headroom, _STR, {"type": "integer", "minimum": 0}, {"type": "object"})
]
Schedule = Annotated[tuple[Window, ...], *_kind(times.windows, times.SCHEMA)]
Replicas = Annotated[int, *_kind(values.whole(1, 64), _int(1, 64))]
Layers = Annotated[int | Literal["auto"], *_kind(values.layers, {"const": "auto"}, _int(0, 100_000))]
Backend = Annotated[GpuBackend, *_kind(values.one_of(get_args(GpuBackend)), {"enum": list(get_args(GpuBackend))})]
Devices = Annotated[tuple[str, ...], *_kind(values.devices, {"const": "auto"}, _STR, _STRS)]
SplitKey = Annotated[Split, *_kind(values.one_of(get_args(Split)), {"enum": list(get_args(Split))})]
Shares = Annotated[tuple[float, ...], *_kind(values.shares, {"type": "array", "items": _NUMBER})]
_ADDRESS: dict[str, Any] = {"anyOf": [_STR, _int(0, 65535), listening.LISTEN_SCHEMA]}
Addresses = Annotated[
    tuple[Listen, ...], *_kind(values.listen, _ADDRESS, {"type": "array", "minItems": 1, "items": _ADDRESS})
]
HostNames = Annotated[tuple[str, ...], *_kind(values.host_names, _STR, _STRS)]
Origins = Annotated[tuple[str, ...], *_kind(values.origins, _STR, _STRS)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], *_kind(values.networks, _STR, _STRS)]
Registries = Annotated[dict[str, Registry], *_kind(fetching.registries, fetching.REGISTRIES_SCHEMA)]
Hosts = Annotated[tuple[str, ...] | None, *_kind(fetching.hosts, _STR, _STRS, {"type": "null"})]
SignedKeys = Annotated[tuple[Signed, ...], *_kind(fetching.signed, fetching.SIGNED_SCHEMA)]
DownloadKeys = Annotated[Download, *_kind(fetching.download, fetching.DOWNLOAD_SCHEMA)]
LogKeys = Annotated[Log, *_kind(watching.log, watching.LOG_SCHEMA)]
TracesKeys = Annotated[Traces | None, *_kind(watching.traces, watching.TRACES_SCHEMA, {"type": "null"})]
Group = Annotated[str, *_kind(values.group, _STR)]
Engine = Annotated[Literal["llama.cpp", "vllm", "detector"], *_kind(values.one_of(_ENGINES), {"enum": list(_ENGINES)})]
Sequences = Annotated[int, *_kind(values.whole(1, 4096), _int(1, 4096))]
Ways = Annotated[int, *_kind(values.whole(1, 1024), _int(1, 1024))]
QuantizationKey = Annotated[
    Quantization, *_kind(values.one_of(get_args(Quantization)), {"enum": list(get_args(Quantization))})
]
CacheTypeKey = Annotated[CacheType, *_kind(values.one_of(get_args(CacheType)), {"enum": list(get_args(CacheType))})]
Sleep = Annotated[Literal[0, 1, 2], *_kind(values.sleep, {"enum": ["off", 0, 1, 2]})]
ReasoningKey = Annotated[Reasoning, *_kind(values.one_of(_REASONING), {"enum": list(_REASONING)})]
SandboxKey = Annotated[Sandbox, *_kind(values.one_of(get_args(Sandbox)), {"enum": list(get_args(Sandbox))})]
EndpointKey = Annotated[str, *_kind(elsewhere.endpoint, {**_STR, "pattern": "^(http://|unix:)"})]
Variable = Annotated[str, *_kind(elsewhere.variable, _STR)]
Runner = Annotated[RunnerName, *_kind(values.one_of(_RUNNERS), {"enum": list(_RUNNERS)})]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())


def _about(text: str, default: Any = ...) -> Any:
    return Field(default, description=text)


class ModelKeys(_Keys):
    """One model."""

    name: Name = _about("What clients call the model: letters, digits and ._-:/@, at most 200 characters.")
    source: Text | None = _about(
        "The GGUF file (relative to this file; ~ and ${VAR} are expanded), builtin:demo, or the reference of a model "
        "in the store, such as ai/smollm2 or hf.co/org/repo:Q4_K_M, pinned or not with @sha256:…",
        None,
    )
    aliases: Names = _about("Other names it answers to.", ())
    engine: Engine = _about("The program that serves it.", _ENGINES[0])
    executable: Text | None = _about(
        "Which build of the engine: auto, embedded, a program's name on PATH, or a path. "
        "Without it, `executables` decides.",
        None,
    )
    runner: Runner = _about(
        "What the engine runs in: process, podman, docker, or a server that runs already.", _RUNNERS[0]
    )
    image: Text | None = _about("The image of its container. Without it, the catalogue's for the GPU found.", None)
    context: Context = _about("Context length of each slot in tokens, or auto: what fits, up to the model's own.", None)
    gpu_layers: Layers | None = _about(
        "Layers to offload to a GPU: auto, or a number. Without it, as the global key.", None
    )
    gpu_backend: Backend | None = _about("As the global key, for this model.", None)
    devices: Devices = _about("GPUs it may use, such as gpu0 or Vulkan1; auto: all that its engine finds.", ())
    split: SplitKey | None = _about(
        "How it is spread over several GPUs: layer, row, or none. Without it, one GPU where it fits, else layer.", None
    )
    tensor_split: Shares = _about("The share of each of `devices`, such as [3, 1]. Without it, by their room.", ())
    parallel: Slots | None = _about(
        "Slots: how many requests the engine answers at once. Without it 1; for vLLM, max_num_seqs; 16 for a detector.",
        None,
    )
    args: Args = _about("Extra engine flags as llama-server spells them: a list, or one text split like a shell.", ())
    env: Env = _about("Environment variables for the engine; ${VAR} is expanded.", {})
    port: Port | None = _about("A port of its own on 127.0.0.1, where this model is the default.", None)
    idle_timeout: SecondsOrNever = _about("Idle time after which the engine is stopped, or never.", 300.0)
    preload: Truth = _about("Start it together with Corral.", False)
    pin: Truth = _about("Once started, keep it: no idle stop, no eviction.", False)
    priority: Priority = _about("Higher is served first and evicted last.", 0)
    exclusive: Truth = _about("While it is resident, no other model is.", False)
    group: Group | None = _about("Of the models of one group, one is resident at a time.", None)
    replicas: Replicas = _about("How many engines of it may run at once, sharing one queue.", 1)
    schedule: Schedule = _about("When it is kept loaded although nobody asks: windows of days, from, to and keep.", ())
    on_out_of_memory: Rungs | None = _about("As the global key, for this model.", None)
    cpu_fallback: Truth | None = _about("As the global key, for this model.", None)
    sandbox: SandboxKey | None = _about("As the global key, for this model.", None)
    limits: Truth | None = _about("As the global key, for this model.", None)
    reasoning: ReasoningKey = _about("How its thoughts are told apart: auto, none, harmony or think.", "auto")
    max_num_seqs: Sequences = _about("vLLM: how many sequences are computed at once.", 256)
    tensor_parallel: Ways = _about("vLLM: GPUs that share each layer.", 1)
    pipeline_parallel: Ways = _about("vLLM: GPUs, or groups of them, that layers are spread over.", 1)
    data_parallel: Ways = _about("vLLM: how many whole copies of the model one engine has.", 1)
    quantization: QuantizationKey | None = _about(
        "vLLM: make weights smaller while loading: fp8_per_tensor, fp8_per_block or fp8_per_channel.", None
    )
    kv_cache_type: CacheTypeKey = _about("vLLM: type of its cache: auto, fp8, fp8_e4m3 or fp8_e5m2.", "auto")
    kv_cache: Size | None = _about("vLLM: memory for its cache on each GPU. Without it, as planned.", None)
    sleep: Sleep = _about(
        "vLLM: sleep instead of ending, with its weights in the machine's memory (1) or dropped (2), or off.", 0
    )
    endpoint: EndpointKey | None = _about(
        "Where a server listens that runs already: http://127.0.0.1:8000, an address of your own network, or "
        "unix:/path/of/socket.",
        None,
    )
    served_model: Text | None = _about("What that server calls the model. Without it, it is asked.", None)
    api_key_env: Variable | None = _about("The variable with the key that the server wants.", None)
    api_key_file: Text | None = _about("The file with the key that the server wants.", None)

    @property
    def slots(self) -> int:
        """How many requests the engine answers at once."""
        usual = min(self.max_num_seqs, 1024) if self.engine == "vllm" else 1
        return self.parallel or (_DETECTOR_SLOTS if self.engine == "detector" else usual)


class TimeoutKeys(_Keys):
    """How long each kind of waiting may last."""

    start: SomeSeconds = _about("From an engine's start until it is ready.", Timeouts().start_s)
    stop: Seconds = _about("From asking an engine to end until it is killed.", Timeouts().stop_s)
    queue: SomeSeconds = _about("A request's wait for a ready model, loading included.", Timeouts().queue_s)
    drain: Seconds = _about("For running answers when Corral itself ends.", Timeouts().drain_s)
    hang: SomeSeconds = _about("How long a ready engine may give no sign of life.", Timeouts().hang_s)


class ExecutableKeys(BaseModel):
    """Which build of an engine to use where the model does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_alias=True)

    llama_cpp: Text = Field(
        default="auto", alias="llama.cpp", description="auto, embedded, a program's name on PATH, or a path."
    )
    vllm: Text = Field(default="auto", description="auto, or the path of a Python environment with vLLM.")


_DEFAULTS = Settings(models={})


class GlobalKeys(_Keys):
    """Everything beside the models."""

    listen: Addresses = _about(
        "Address, or list of them: host:port, unix:/path, or a mapping: address or unix, dialect, tls, page, insecure.",
        _DEFAULTS.listen,
    )
    require_keys: Truth = _about("Ask for keys on addresses of this machine too.", False)
    allowed_hosts: HostNames = _about("Further names of this server, for clients that ask for it by name.", ())
    allowed_origins: Origins = _about("Origins whose web pages may ask, such as https://app.example.org.", ())
    trusted_proxies: Networks = _about("Addresses of proxies whose X-Forwarded-For is believed.", ())
    default_model: Name | None = _about("The model for requests that name none.", None)
    headroom: Headroom = _about(
        "Memory left free on every device, or a mapping from devices to sizes.", _DEFAULTS.headroom
    )
    max_wait: Seconds = _about(
        "After waiting so long for a busy model's place, a request goes before that model's new ones.",
        _DEFAULTS.max_wait_s,
    )
    min_residency: Seconds = _about(
        "A model just loaded serves at least so long while others wait for its place.", _DEFAULTS.min_residency_s
    )
    return_to_default: SecondsOrNever = _about(
        "After so long without a request, default_model is loaded again; never without it.", None
    )
    max_active: Limit = _about("Resident models at once; 1 = exactly one at a time. Without it, no limit.", None)
    memory: Memory = _about("Memory that models may take, by device: cpu, gpu0, gpu1 …", {})
    max_queue: Waiting = _about("Waiting requests, all models together; more are answered 503.", _DEFAULTS.max_queue)
    max_body: Size = _about("The largest request body.", _DEFAULTS.max_body_bytes)
    timeouts: TimeoutKeys = _about("Limits of waiting: start, stop, queue, drain and hang.", TimeoutKeys())
    roots: Texts = _about("Directories that model files must lie in, symbolic links followed.", ())
    registries: Registries = _about("How single registries are spoken to, by host.", {})
    allow_registries: Hosts = _about("The only registries that may be spoken to. Without it, any.", None)
    auto_pull: Truth = _about("Fetch a missing model when a request names it, instead of answering 404.", False)
    require_signed: SignedKeys = _about("Names whose models must be signed, each with the public key for them.", ())
    model_roots: Texts = _about("Directories with further models, served as they lie and never written to.", ())
    download: DownloadKeys = _about(
        "Bounds of downloads: connections for each blob, and a limit per second.", Download()
    )
    on_out_of_memory: Rungs | None = _about(
        "What is made smaller, in this order, when an engine's memory was not enough: batch, context, layers, cpu. "
        "Without it, all of them, but not a context that is configured.",
        None,
    )
    cpu_fallback: Truth = _about("Go on without a GPU that fails or is gone, until it is back.", True)
    sandbox: SandboxKey = _about(
        "Shut engines that are plain processes in: bubblewrap, auto (where it works here), or off.", _DEFAULTS.sandbox
    )
    limits: Truth = _about(
        "Bound the memory and the number of processes of engines that are plain processes, where cgroups permit.", False
    )
    gpu_layers: Layers = _about("Layers to offload to a GPU, for models that do not say: auto, or a number.", "auto")
    gpu_backend: Backend = _about(
        "Through what engines reach GPUs: auto, vulkan, not-vulkan, cuda, rocm, metal or sycl.", "auto"
    )
    env: Env = _about("Environment variables for every engine; a model's own `env` goes before them.", {})
    resume: Truth = _about("Go on with a stream whose engine died, from what its client has.", True)
    comments_after: SecondsOrNever = _about(
        "A stream that waits for its model gets a comment so often, or never.", _DEFAULTS.comments_after_s
    )
    responses_ttl: SecondsOrNever = _about(
        "How long answers of /v1/responses are kept, or never to drop them.", _DEFAULTS.responses_ttl_s
    )
    conversations: SizeOrOff = _about(
        "Room on disk for conversations, kept for when their model is started again, or off.",
        _DEFAULTS.conversations_bytes,
    )
    log: LogKeys = _about("The server's own log: format (human or json), and a line for each request or not.", Log())
    traces: TracesKeys = _about("Send traces of requests by OpenTelemetry: endpoint and ratio.", None)
    executables: ExecutableKeys = Field(
        default_factory=lambda: ExecutableKeys.model_validate({}), description="Which build of an engine to use."
    )


class FileKeys(GlobalKeys):
    """A models.yaml: the models that Corral serves, and how."""

    models: list[ModelKeys] | dict[str, dict[str, Any]] = _about(
        "The models: a list of entries with a name, or a mapping from names to entries.", []
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a models.yaml, for editors."""
    schema = FileKeys.model_json_schema(by_alias=True)
    entry = {"$ref": "#/$defs/ModelKeys"}
    # In the mapping form the name is the key, so that it is not required inside.
    sourced = {"anyOf": [{"required": ["source"]}, {"required": ["endpoint"]}]}
    named = {**{k: v for k, v in schema["$defs"]["ModelKeys"].items() if k != "required"}, **sourced}
    schema["$defs"]["ModelKeys"].update(sourced)
    schema["$defs"]["NamedModelKeys"] = named
    schema["properties"]["models"]["anyOf"] = [
        {"type": "array", "items": entry},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/NamedModelKeys"}},
    ]
    for name in ("listen", "timeouts", "executables", "download", "log"):
        schema["properties"][name].pop("default", None)
    schema["properties"]["listen"]["default"] = str(_DEFAULTS.listen[0])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Corral models.yaml"}
