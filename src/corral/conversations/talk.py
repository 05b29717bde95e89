"""What is asked of a llama.cpp engine about its slots: what they hold, saving, putting back, and a request's tokens."""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from typing import Any

from corral.engines.plan import Endpoint
from corral.errors import CorralError, EngineError
from corral.gateway.path import upstream
from corral.lazy_dataclass import dataclass

_JSON = ((b"content-type", b"application/json"),)
_QUICK_S = 5.0
_COUNTER = re.compile(rb"^llamacpp:(prompt_tokens_total|prompt_seconds_total|tokens_predicted_total) (\S+)$", re.M)
_CACHED = re.compile(rb'"timings"\s*:\s*\{\s*"cache_n"\s*:\s*(\d+)')

TROUBLE = (CorralError, OSError, TimeoutError, ValueError, KeyError, TypeError)
"""What talking to an engine may raise, its nonsense included."""


class Refused(EngineError):
    """The engine answered with an error."""


@dataclass(frozen=True, slots=True)
class Slot:
    id: int
    busy: bool
    task: int | None  # the last one; None before the first
    tokens: int | None  # what it holds; None when the engine does not say


@dataclass(frozen=True, slots=True)
class Pace:
    s_per_token: float  # of reading a prompt; 0 when nothing was read
    predicted: int  # tokens written since the start


async def slots(endpoint: Endpoint) -> list[Slot]:
    found = await _ask(endpoint, "GET", b"/slots")
    return [
        Slot(int(each["id"]), bool(each["is_processing"]), each.get("id_task"), each.get("n_prompt_tokens"))
        for each in found
    ]


async def pace(endpoint: Endpoint) -> Pace:
    _, body = await _send(endpoint, "GET", b"/metrics", b"", _QUICK_S)
    found = {name.decode(): float(value) for name, value in _COUNTER.findall(body)}
    read = found.get("prompt_tokens_total", 0.0)
    return Pace(
        found.get("prompt_seconds_total", 0.0) / read if read else 0.0, int(found.get("tokens_predicted_total", 0))
    )


async def save(endpoint: Endpoint, slot: int, name: str, within_s: float) -> int:
    """How many tokens were saved. The engine does nothing else meanwhile."""
    done = await _act(endpoint, slot, "save", {"filename": name}, within_s)
    return int(done["n_saved"])


async def restore(endpoint: Endpoint, slot: int, name: str, within_s: float) -> int:
    """How many tokens the slot holds now."""
    done = await _act(endpoint, slot, "restore", {"filename": name}, within_s)
    return int(done["n_restored"])


async def tokens(endpoint: Endpoint, target: bytes, body: bytes) -> array[int] | None:
    """The tokens that the engine makes of a request; None for one whose prompt is not text."""
    path = target.partition(b"?")[0]
    if path == b"/v1/chat/completions":
        prompt: Any = (await _ask(endpoint, "POST", b"/apply-template", body))["prompt"]
    else:
        prompt = json.loads(body).get("prompt")
    if isinstance(prompt, list) and prompt and all(type(each) is int for each in prompt):
        return array("i", prompt)
    if not isinstance(prompt, str):
        return None
    asked = json.dumps({"content": prompt, "add_special": True, "parse_special": True}).encode()
    return array("i", (await _ask(endpoint, "POST", b"/tokenize", asked))["tokens"])


def cached(tail: bytes) -> int | None:
    """How many tokens of the prompt the engine did not have to read, from the end of its answer."""
    found = _CACHED.findall(tail)
    return int(found[-1]) if found else None


async def _act(endpoint: Endpoint, slot: int, action: str, what: dict[str, Any], within_s: float) -> Any:
    target = f"/slots/{slot}?action={action}".encode()
    return await _ask(endpoint, "POST", target, json.dumps(what).encode(), within_s)


async def _ask(endpoint: Endpoint, method: str, target: bytes, body: bytes = b"", within_s: float = _QUICK_S) -> Any:
    status, answer = await _send(endpoint, method, target, body, within_s)
    data = json.loads(answer)
    if status != 200:
        said = data.get("error") if isinstance(data, dict) else None
        words = said.get("message") if isinstance(said, dict) else None
        raise Refused(str(words or f"the engine answers {status}"), hint="see its log", status=status)
    return data


async def _send(endpoint: Endpoint, method: str, target: bytes, body: bytes, within_s: float) -> tuple[int, bytes]:
    parts = []
    async with asyncio.timeout(within_s):
        async with upstream.request(endpoint, method, target, _JSON if body else (), body) as response:
            while part := await response.read():
                parts.append(part)
            return response.status, b"".join(parts)
