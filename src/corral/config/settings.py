"""The configuration as the rest of Corral sees it: plain frozen data, already checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from corral.lazy_dataclass import dataclass
from corral.refs import Ref

DEFAULT_PORT = 8642

HEADROOM = 512 << 20
"""Bytes left alone on each device where nothing is configured: for engines' own programs, and for others."""


def headroom_on(headroom: int | Mapping[str, int], device: str) -> int:
    """The bytes left alone on `device`; `headroom` as in the settings, for every device or by device."""
    return headroom if isinstance(headroom, int) else headroom.get(device, HEADROOM)


def budget_on(
    budgets: Mapping[str, int], headroom: int | Mapping[str, int], device: str, total: int | None
) -> int | None:
    """The bytes that all models together may take of `device`, which has `total`: its budget, and at most all of it
    less the headroom. None where nobody says either."""
    said = [] if total is None else [max(0, total - headroom_on(headroom, device))]
    return min((*said, budgets[device]) if device in budgets else said, default=None)


Reasoning = Literal["auto", "none", "harmony", "think"]
Sandbox = Literal["off", "auto", "bubblewrap"]
"""What engines on the process runner are shut into; auto: bubblewrap where it works here."""
RunnerName = Literal["process", "podman", "docker", "server"]
"""What an engine runs in; server: Corral starts none, and asks one that runs already."""
Rung = Literal["batch", "context", "layers", "cpu"]
"""What of a start can be made smaller when memory was not enough."""

GpuBackend = Literal["auto", "vulkan", "not-vulkan", "cuda", "rocm", "metal", "sycl"]
"""Through what a llama.cpp build may reach GPUs, where it has several ways."""

Split = Literal["layer", "row", "none"]
"""How one model is spread over several GPUs: by whole layers, by rows of each matrix, or not at all."""

Quantization = Literal["fp8_per_tensor", "fp8_per_block", "fp8_per_channel"]
CacheType = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
"""What vLLM makes of a model's weights, and of what it keeps of prompts."""

VLLM_KEYS = (
    "max_num_seqs", "tensor_parallel", "pipeline_parallel", "data_parallel", "quantization", "kv_cache_type",
    "kv_cache", "sleep",
)  # fmt: skip
"""Model keys that only vLLM has."""

SERVER_KEYS = ("endpoint", "served_model", "api_key_env", "api_key_file")
"""Model keys of a server that runs already."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each kind of waiting may last, in seconds."""

    start_s: float = 300.0  # from spawn to ready
    stop_s: float = 10.0  # from TERM to KILL
    queue_s: float = 600.0  # a request's wait for a ready unit, loads included
    drain_s: float = 30.0  # for running streams when Corral itself ends
    hang_s: float = 30.0  # for an engine that gives no sign of life, what it computes on top


DIALECTS = ("openai", "anthropic", "ollama", "docker", "llamacpp")
"""What a listener may speak at its root."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a listener's certificate: PEM, the certificate first and then those that signed it."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Listen:
    """One address the gateway listens on: TCP (`host`, `port`; 0 = any free port) or a unix socket (`path`)."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: Path | None = None
    dialect: str | None = field(default=None, compare=False)  # has root paths on which dialects differ; None = OpenAI's
    tls: Tls | None = field(default=None, compare=False)
    insecure: bool = field(default=False, compare=False)  # no key is asked for, wherever it can be reached from
    page: Path | None = field(default=None, compare=False)  # the folder of llama.cpp's web page, for its dialect

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Registry:
    """How one registry is spoken to."""

    insecure: bool = False  # plain HTTP, or a certificate that is not checked
    private: bool = False  # may be at a private or loopback address
    ca: str | None = None  # a PEM file to trust for it
    mirrors: tuple[str, ...] = ()  # hosts asked first
    auto_pull: bool | None = None  # None = as the whole


@dataclass(frozen=True, slots=True)
class Signed:
    """Models whose full name begins with `prefix` must be signed with `key`, a PEM file."""

    prefix: str
    key: str


@dataclass(frozen=True, slots=True)
class Download:
    """Bounds of downloads."""

    connections: int = 8  # for each blob, at most
    limit_bytes: int | None = None  # per second, all downloads together


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week in which a model is kept. One that ends before it begins goes on into the next day."""

    days: tuple[int, ...]  # on which it begins; 0 = Monday
    begin_min: int  # local time, minutes after midnight
    end_min: int
    keep: Literal["ready", "pin"] = "ready"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One entry of `models:`, with every default filled in."""

    name: str
    source: Path  # an absolute path of a GGUF file (vLLM: a folder) that may not exist yet; with `ref`, only its text
    aliases: tuple[str, ...] = ()
    engine: Literal["llama.cpp", "vllm", "detector"] = "llama.cpp"
    executable: str = (
        "auto"  # "embedded" | "auto" | a program's name on PATH | an absolute path (vLLM: of an environment)
    )
    runner: RunnerName = "process"
    image: str | None = None  # of its container; None = by the catalogue
    context: int | None = None  # tokens per slot; None = as many as fit, up to the model's own
    gpu_layers: int | Literal["auto"] = "auto"
    gpu_backend: GpuBackend = "auto"
    devices: tuple[str, ...] = ()  # GPUs it may use, by Corral's name or its engine's; () = all
    split: Split | None = None  # None = whole on one GPU where it fits there, else by layers
    tensor_split: tuple[float, ...] = ()  # each device's share, in the order of `devices`; () = by their room
    parallel: int = 1  # slots
    args: tuple[str, ...] = ()  # extra engine flags, llama-server's spelling
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    port: int | None = None
    idle_timeout_s: float | None = 300.0  # None = never
    preload: bool = False
    pin: bool = False
    priority: int = 0  # higher is served first and evicted last
    exclusive: bool = False  # no other model is resident beside it
    group: str | None = None  # of one group, one model is resident at a time
    replicas: int = 1  # units of it at once, at most
    schedule: tuple[Window, ...] = ()  # when it is kept although nobody asks for it
    on_out_of_memory: tuple[Rung, ...] | None = None  # what is made smaller, in order; None = all but a set context
    cpu_fallback: bool = True  # do without a GPU that failed
    sandbox: Sandbox = "off"
    limits: bool = False  # of memory and processes, by cgroup
    reasoning: Reasoning = "auto"  # how its thoughts are told from what it says; auto = by its template
    max_num_seqs: int = 256  # vLLM's keys, down to `sleep`: sequences computed at once
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    quantization: Quantization | None = None  # done while loading; None = as the model is
    kv_cache_type: CacheType = "auto"  # auto = the model's own
    kv_cache_bytes: int | None = None  # on each GPU; None = by what is planned
    sleep: Literal[0, 1, 2] = 0  # instead of a stop, where that frees enough; 0 = never
    endpoint: str | None = None  # of a server that runs already: http://address:port or unix:/path
    served_model: str | None = None  # what that server calls it; None = it is asked
    api_key_env: str | None = None  # where the key is that it wants: a variable of Corral's own
    api_key_file: Path | None = None  # or a file
    roots: tuple[Path, ...] = ()  # real directories that `source` must lie in, links followed; () = anywhere
    ref: Ref | None = None  # a model of the store instead of a file; placed when its engine starts


@dataclass(frozen=True, slots=True)
class Log:
    """What the server says on standard error."""

    format: Literal["human", "json"] = "human"
    requests: bool = False  # a line for each request to a model


@dataclass(frozen=True, slots=True)
class Traces:
    """Where traces of requests go; what is None is as OpenTelemetry's variables have it."""

    endpoint: str | None = None
    ratio: float | None = None  # the share of requests


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    models: Mapping[str, ModelSettings]
    listen: tuple[Listen, ...] = (Listen(),)
    memory: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # budget in bytes by device
    headroom: int | Mapping[str, int] = HEADROOM  # bytes left free on every device, or by device
    max_active: int | None = None  # resident models at once; None = no limit
    max_wait_s: float = 10.0  # after which a resident model takes no new work while another waits for its place
    min_residency_s: float = 2.0  # how long a model just loaded stays while others wait for its place, at most
    max_queue: int = 256  # waiting requests, all models together
    max_body_bytes: int = 64 << 20
    default_model: str | None = None  # answers requests that name none
    return_to_default_s: float | None = None  # after so long without a request it is loaded again; None = never
    timeouts: Timeouts = Timeouts()
    roots: tuple[Path, ...] = ()  # as in each model; () = anywhere
    executables: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({"llama.cpp": "auto", "vllm": "auto"})
    )
    registries: Mapping[str, Registry] = field(default_factory=lambda: MappingProxyType({}))  # by host[:port]
    allow_registries: tuple[str, ...] | None = None  # hosts that may be spoken to; None = any
    auto_pull: bool = False  # fetch a missing model when a request names it
    require_signed: tuple[Signed, ...] = ()
    model_roots: tuple[Path, ...] = ()  # read-only directories of further models
    download: Download = Download()
    conversations_bytes: int | None = 2 << 30  # room on disk for what engines had read when they stopped; None = off
    on_out_of_memory: tuple[Rung, ...] | None = None  # for models that do not say
    cpu_fallback: bool = True  # likewise
    gpu_layers: int | Literal["auto"] = "auto"  # likewise
    gpu_backend: GpuBackend = "auto"  # likewise
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # each model's `env` goes before it
    sandbox: Sandbox = "off"  # likewise
    limits: bool = False  # likewise
    responses_ttl_s: float | None = 30 * 86400.0  # how long answers of /v1/responses are kept; None = for ever
    resume: bool = True  # a stream whose engine dies goes on from what its client has
    comments_after_s: float | None = 5.0  # a stream that waits for its model gets one so often; None = never
    require_keys: bool = False  # on loopback addresses too
    allowed_hosts: tuple[str, ...] = ()  # names of this server beside addresses and localhost, in the Host field
    allowed_origins: tuple[str, ...] = ()  # whose web pages may ask; globs
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose word on a client's address counts
    log: Log = Log()
    traces: Traces | None = None  # None: only where OpenTelemetry's variables name an endpoint
    file: Path | None = None  # where it was read from; None = built-in defaults

    def guest(self, name: str, source: Path) -> ModelSettings:
        """A llama.cpp model that the configuration does not have, as the global keys would have it."""
        return ModelSettings(
            name,
            source,
            executable=self.executables.get("llama.cpp", "auto"),
            gpu_layers=self.gpu_layers,
            gpu_backend=self.gpu_backend,
            env=self.env,
            on_out_of_memory=self.on_out_of_memory,
            cpu_fallback=self.cpu_fallback,
            sandbox=self.sandbox,
            limits=self.limits,
        )
