"""Docker's JSON: models, running engines, what takes how much room.

Source: docker/model-runner 642c7211, `pkg/distribution/types`, `pkg/inference/scheduling/api.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from corral.gateway.dialects.docker.names import shown
from corral.lazy_dataclass import dataclass

BACKEND: Final = "llama.cpp"
BACKENDS: Final = (BACKEND, "vllm", "sglang", "mlx", "diffusers", "vllm-metal")
"""What may stand in a path."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model by all its names. Texts are "" where nothing says them."""

    digest: str  # 64 hexadecimal digits
    names: tuple[str, ...]
    size: int
    created_s: float
    format: str = "gguf"
    architecture: str = ""
    parameters: int | None = None
    quantization: str = ""
    context: int | None = None
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        return f"sha256:{self.digest}"

    @property
    def mode(self) -> str:
        """What Docker calls its purpose."""
        if "completion" in self.capabilities or not self.capabilities:
            return "completion"
        return "reranking" if "rerank" in self.capabilities else "embedding"


@dataclass(frozen=True, slots=True)
class Running:
    """One model that is loaded, or is being."""

    name: str
    mode: str
    idle_timeout_s: float | None
    idle_s: float  # since its last request
    busy: bool
    loading: bool


def model(entry: Entry) -> dict[str, Any]:
    """An entry of `/models`."""
    config: dict[str, Any] = {
        "format": entry.format,
        "quantization": entry.quantization,
        "parameters": parameters(entry.parameters),
        "architecture": entry.architecture,
        "size": size(entry.size),
    }
    if entry.format == "gguf":
        config["gguf"] = {
            key: _text(value)
            for key, value in sorted((entry.metadata or {}).items())
            if isinstance(value, (str, int, float, bool)) and key != "tokenizer.chat_template"
        }
    if entry.context:
        config["context_size"] = entry.context
    return {"id": entry.id, "tags": list(entry.names), "created": int(entry.created_s), "config": config}


def openai_model(entry: Entry, name: str) -> dict[str, Any]:
    """An entry of `/engines/v1/models`."""
    about = {
        "context_window": entry.context,
        "architecture": entry.architecture,
        "parameters": parameters(entry.parameters),
        "quantization": entry.quantization,
        "size": size(entry.size),
    }
    return {
        "id": name, "object": "model", "created": int(entry.created_s), "owned_by": "docker",
        "dmr": {key: value for key, value in about.items() if value},
    }  # fmt: skip


def openai_models(entries: Iterable[Entry]) -> dict[str, Any]:
    return {"object": "list", "data": [openai_model(entry, name) for entry in entries for name in entry.names]}


def running(found: Iterable[Running], now_s: float) -> list[dict[str, Any]]:
    """The answer of `/engines/ps`; false members are left out, as Go does."""
    made = []
    for each in found:
        row: dict[str, Any] = {"backend_name": BACKEND, "model_name": shown(each.name), "mode": each.mode}
        row["last_used"] = datetime.fromtimestamp(now_s - each.idle_s, UTC).isoformat().replace("+00:00", "Z")
        if each.busy:
            row["in_use"] = True
        if each.loading:
            row["loading"] = True
        row["keep_alive"] = "-1" if each.idle_timeout_s is None else duration(each.idle_timeout_s)
        made.append(row)
    return made


def status(version: str) -> dict[str, str]:
    """The answer of `/engines/status`."""
    other = "Not Installed: Corral serves every model with llama.cpp"
    return {name: f"Running: llama.cpp {version}".rstrip() if name == BACKEND else other for name in BACKENDS}


def size(count: int) -> str:
    """Bytes as Docker writes them: 256.35MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.2f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def moved(count: int) -> str:
    """Bytes that went over the network: 12.00 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.2f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def parameters(count: int | None) -> str:
    """A number of parameters: 361.82M."""
    if not count:
        return ""
    for letter, factor in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= factor:
            return f"{count / factor:.2f}{letter}"
    return str(count)


def duration(seconds: float) -> str:
    """Go's way: 5m0s, 1h30m0s, 0s, 1.5s."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:g}s"
    if hours or minutes:
        text = f"{minutes:g}m{text}"
    return f"{hours:g}h{text}" if hours else text


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
