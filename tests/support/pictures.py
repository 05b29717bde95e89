"""Live pictures of servers, for what is drawn of them: a machine with a GPU at work, and one where nothing happens."""

from __future__ import annotations

from typing import Any

from corral.api import ErrorInfo, EventInfo
from corral.api_downloads import DownloadInfo
from corral.api_live import Live, LiveDevice, LiveUnit

NOW = 1_790_000_000.0
GIB = 1 << 30
MIB = 1 << 20


def device(name: str = "cpu", **changes: Any) -> LiveDevice:
    known: dict[str, Any] = {
        "words": "AMD Ryzen 9 7950X", "total_bytes": 64 * GIB, "free_bytes": 40 * GIB, "budget_bytes": None,
        "by_model": {"demo": 34 * MIB}, "others_bytes": 20 * GIB, "utilisation": 0.34, "temperature_c": 51.0,
        "power_w": 65.0, "power_limit_w": None,
    }  # fmt: skip
    return LiveDevice(name=name, **(known | changes))


def unit(model: str = "demo", **changes: Any) -> LiveUnit:
    known: dict[str, Any] = {
        "unit": f"{model}.1", "state": "ready", "engine": "llama.cpp", "runner": "process", "device": "cpu",
        "degraded": None, "reason": None, "busy": 0, "slots": 4, "queued": 0, "tokens_per_s": None,
        "first_token_p50_ms": None, "first_token_p95_ms": None, "context": 4096, "context_used": None,
        "held_bytes": 34 * MIB, "load_ms": 420.0, "restarts": 0, "requests": 0, "errors": 0,
        "idle_stop_in_s": 250.0, "expected_wait_s": None, "since_wall_s": NOW - 3725.0,
    }  # fmt: skip
    return LiveUnit(model=model, **(known | changes))


def stopped(model: str, **changes: Any) -> LiveUnit:
    known: dict[str, Any] = {
        "unit": f"{model}.0", "state": "stopped", "device": "", "held_bytes": None, "load_ms": None,
        "idle_stop_in_s": None,
    }  # fmt: skip
    return unit(model, **(known | changes))


def event(seq: int, text: str, *, model: str | None = "demo", kind: str = "unit.state", **data: Any) -> EventInfo:
    return EventInfo(seq, NOW - 60.0 + seq, kind, model, None, text, dict(data))


def download(name: str = "ai/gemma3:4b", **changes: Any) -> DownloadInfo:
    known: dict[str, Any] = {
        "id": "3f2a", "ref": f"docker.io/{name}", "state": "running", "blobs": [], "total": 3 * GIB, "done": GIB,
        "bytes_per_s": 50.0 * MIB, "eta_s": 41.0, "error": None, "notes": [], "started_wall_s": NOW - 20,
        "finished_wall_s": None, "digest": None,
    }  # fmt: skip
    return DownloadInfo(name=name, **(known | changes))


def live(**changes: Any) -> Live:
    """A server with the demo model ready and nothing to do."""
    known: dict[str, Any] = {
        "wall_s": NOW, "version": "0.7.0", "pid": 4711, "started_wall_s": NOW - 7500.0, "in_flight": 0, "waiting": 0,
        "tokens_per_s": 0.0, "requests_per_s": 0.0, "first_token_p50_ms": None, "first_token_p95_ms": None,
        "devices": [device()], "units": [unit()], "downloads": [],
        "events": [event(1, "starting"), event(2, "ready", after="ready")], "history": [0.0] * 60,
    }  # fmt: skip
    return Live(**(known | changes))


def at_work() -> Live:
    """A server with a GPU, with units in every state, requests, downloads, and something wrong."""
    gpu = device(
        "gpu0", words="NVIDIA RTX 4090", total_bytes=24 * GIB, free_bytes=3 * GIB, budget_bytes=22 * GIB,
        by_model={"qwen3-coder:30b": 17 * GIB, "embeddings": 2 * GIB}, others_bytes=2 * GIB, utilisation=0.97,
        temperature_c=71.0, power_w=388.0, power_limit_w=450.0,
    )  # fmt: skip
    rising = [float(each * each) / 20 for each in range(60)]
    units = [
        unit("qwen3-coder:30b", unit="qwen3-coder:30b.7", device="gpu0", busy=3, slots=4, queued=2, tokens_per_s=142.6,
             first_token_p50_ms=184.0, first_token_p95_ms=911.0, context=32768, context_used=30100,
             held_bytes=17 * GIB, load_ms=8400.0, restarts=2, requests=1204, errors=3, idle_stop_in_s=None,
             expected_wait_s=4.2, history=rising),
        unit("embeddings", unit="embeddings.2", device="gpu0", tokens_per_s=12.0, first_token_p50_ms=9.1,
             first_token_p95_ms=14.0, held_bytes=2 * GIB, history=[3.0] * 60, context_used=80, requests=40),
        unit("llama-70b", unit="llama-70b.4", state="failed", held_bytes=None, device="", load_ms=None,
             idle_stop_in_s=None, restarts=6,
             reason="ended while it loaded: out of memory on gpu0 (wanted 38.2 GiB, 3.0 GiB are free)"),
        unit("mistral-small", unit="mistral-small.1", state="loading", device="cpu", load_ms=None,
             held_bytes=6 * GIB, idle_stop_in_s=None, queued=1, degraded="cpu (the Vulkan driver hangs)"),
        stopped("phi4-mini"),
        unit("vision", unit="vision.3", state="sleeping", engine="vllm", runner="podman", device="gpu0"),
    ]  # fmt: skip
    failed = ErrorInfo("digest_mismatch", "a blob is not what its digest says", "", 502)
    events = [
        event(11, "making room for qwen3-coder:30b", model="phi4-mini", kind="scheduler.stop"),
        event(12, "starting: asked for by a request", model="qwen3-coder:30b", after="starting"),
        event(13, "ready after 8.4 s", model="qwen3-coder:30b", after="ready"),
        event(14, "ended while it loaded: out of memory on gpu0", model="llama-70b", after="backoff"),
        event(15, "read models.yaml again", model=None, kind="config.reloaded"),
    ]
    return live(
        in_flight=4, waiting=3, tokens_per_s=154.6, requests_per_s=2.25, first_token_p50_ms=120.0,
        first_token_p95_ms=880.0, devices=[device(), gpu], units=units, events=events, history=rising,
        downloads=[download(), download("hf.co/unsloth/gpt-oss-20b-GGUF:Q4_K_M", state="queued", total=None),
                   download("ai/broken", state="failed", error=failed)],
    )  # fmt: skip
