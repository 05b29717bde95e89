"""The small questions asked of a running engine: its health, its counters, one token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from pathlib import Path
from typing import Any

from corral.engines.plan import Endpoint, Probe
from corral.supervisor.fairness import Slot

LLAMA_CPP = Probe()
_MAX_BYTES = 4 << 20
_STEPS = 5
_COUNTED = (
    b"vllm:prompt_tokens_total", b"vllm:generation_tokens_total", b"vllm:request_success_total",
    b"vllm:iteration_tokens_total_sum", b"vllm:num_requests_running",
)  # fmt: skip


async def ask(endpoint: Endpoint, path: str, *, within_s: float, body: Any = None) -> tuple[int, bytes] | None:
    """Status and body of one request over a connection of its own; None when there was no whole answer in time.

    The time is counted in steps, each once however long it took: where Corral itself got no processor for a while, an
    answer that came meanwhile is still to be read, and the engine is not to blame.
    """
    asking = asyncio.create_task(_ask(endpoint, path, body), name=f"ask {path}")
    try:
        for _ in range(_STEPS):
            if (await asyncio.wait((asking,), timeout=within_s / _STEPS))[0]:
                return asking.result()
        return None
    finally:
        asking.cancel()


async def _ask(endpoint: Endpoint, path: str, body: Any) -> tuple[int, bytes] | None:
    writer: asyncio.StreamWriter | None = None
    try:
        if endpoint.socket is not None:
            reader, writer = await asyncio.open_unix_connection(str(endpoint.socket))
        else:
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(_request(path, body, endpoint.key))
        return await _answer(reader)
    except (OSError, ValueError, asyncio.IncompleteReadError):
        return None
    finally:
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def health(endpoint: Endpoint, path: str, within_s: float) -> int | None:
    """The status of its answer, or None when there was none in time."""
    found = await ask(endpoint, path, within_s=within_s)
    return None if found is None else found[0]


async def counters(endpoint: Endpoint, within_s: float, probe: Probe = LLAMA_CPP) -> tuple[int, ...] | None:
    """Numbers that change whenever the engine got on with anything; None where it does not tell."""
    found = await ask(endpoint, probe.counters, within_s=within_s) if probe.counters else None
    if found is None or found[0] != 200:
        return None
    return counters_in(found[1]) if probe.counters == "/slots" else figures_in(found[1])


def figures_in(metrics: bytes) -> tuple[int, ...] | None:
    """The same from the figures that vLLM counts its work by. Source: vLLM 0.32's `/metrics`."""
    counted = [line for line in metrics.splitlines() if line.startswith(_COUNTED) and b"_created" not in line]
    return tuple(zlib.crc32(line) for line in counted) or None


async def slots(endpoint: Endpoint, within_s: float) -> tuple[Slot, ...]:
    """What llama.cpp's slots do now; empty where it does not tell in time."""
    found = await ask(endpoint, "/slots", within_s=within_s)
    return slots_in(found[1]) if found is not None and found[0] == 200 else ()


def slots_in(answer: bytes) -> tuple[Slot, ...]:
    """The same from the answer of GET /slots; empty for what is none."""
    return tuple(
        Slot(
            _whole(slot.get("id")), _whole(slot.get("id_task")), bool(_whole(slot.get("is_processing"))),
            _whole(slot.get("n_prompt_tokens_processed")), max(_whole(slot.get("n_decoded")), *_written(slot), 0),
        )
        for slot in _dicts(answer) or ()
    )  # fmt: skip


def counters_in(answer: bytes) -> tuple[int, ...] | None:
    """The same as `counters`, from the answer of GET /slots. Source: llama.cpp's server, builds 11434 and 11549."""
    if (found := _dicts(answer)) is None:
        return None
    numbers: list[int] = []
    for slot in found:
        names = ("id_task", "is_processing", "n_prompt_tokens", "n_prompt_tokens_processed", "n_decoded")
        numbers += [_whole(slot.get(name)) for name in names]
        numbers += _written(slot)
    return tuple(numbers)


def _dicts(answer: bytes) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(slot, dict) for slot in found) else None


def _written(slot: dict[str, Any]) -> list[int]:
    next_token = slot.get("next_token")  # an object in some builds, a list of one in others
    each_of = next_token if isinstance(next_token, list) else [next_token]
    return [_whole(each.get("n_decoded")) if isinstance(each, dict) else 0 for each in each_of]


async def token(endpoint: Endpoint, within_s: float, probe: Probe = LLAMA_CPP) -> bool:
    """Whether it makes one token when asked to. A refusal will do too (models for embeddings refuse): it was heard."""
    if not probe.canary:
        return await health(endpoint, probe.path, within_s) == 200
    found = await ask(endpoint, probe.canary, within_s=within_s, body=json.loads(probe.canary_body))
    return found is not None and (found[0] < 500 or found[0] == 501)


def frozen(pid: int) -> bool:
    """Whether the process is stopped, as by SIGSTOP, as far as the platform tells (Linux). One small read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] == [b"T"]


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, bool)) else 0


def _request(path: str, body: Any, key: str = "") -> bytes:
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Raises ValueError for what is no answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    parts = head[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
        raise ValueError("no HTTP")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = fields.get("content-length", "")
    if length.isdigit():
        return int(parts[1]), await reader.readexactly(min(int(length), _MAX_BYTES))
    return int(parts[1]), await reader.read(_MAX_BYTES) if fields.get("transfer-encoding") is None else b""
