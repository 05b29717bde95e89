"""An engine that writes as many tokens as llama.cpp would, by its own rules, and says of it what llama.cpp says.

A program of its own, as `fake_engine.py`. The rules are those of llama.cpp's tools/server, build 11434, each tried on
that build: which field bounds an answer, what numbers come to in 32 bits, what a list of prompts is, and whose figures
stand in the answer. `GET /fake/stats` has `written`: tokens of answers, and one for each prompt.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import fake_engine

CONTEXT = 1000
SLOTS = 8
_WORD = "ab "


class Wrong(Exception):
    """What it refuses."""


class RuledEngine(fake_engine.FakeEngine):
    """It goes on to its bound, or to the end of its context: whoever asks ignores where a model would end."""

    async def infer(
        self, method: str, path: str, headers: fake_engine.Headers, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise Wrong("no object")
            prompts, each, answers = taken(path, asked)
        except (ValueError, Wrong) as exc:
            return await fake_engine.answer(writer, 400, {"error": {"code": 400, "message": str(exc)}})
        self.stats["written"] = self.stats.get("written", 0) + prompts
        if asked.get("stream") is True:
            return await self.streams(writer, path, each, answers)
        self.stats["written"] += each * answers
        return await fake_engine.answer(writer, 200, plain(path, asked, each, answers))

    async def streams(self, writer: asyncio.StreamWriter, path: str, each: int, answers: int) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for token in range(each):
            for index in range(answers):
                self.stats["written"] += 1
                await fake_engine.send_chunk(writer, fake_engine.sse(piece(path, index)))
            if token % 20 == 0:
                await asyncio.sleep(0.001)
        for index in range(answers):
            await fake_engine.send_chunk(writer, fake_engine.sse(last(path, index, each)))
        await fake_engine.send_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return False


def taken(path: str, asked: dict[str, Any]) -> tuple[int, int, int]:
    """How many prompts it reads, how many tokens each answer gets, and how many answers there are. Raises Wrong."""
    asked = dict(asked)
    chat = path.endswith(("/chat/completions", "/responses", "/messages"))
    if path.endswith("/responses") and "max_output_tokens" in asked:
        asked["max_tokens"] = asked["max_output_tokens"]
    if path.endswith("/messages"):
        asked = {name: asked[name] for name in ("max_tokens",) if name in asked}
    bound = number(asked, ("n_predict", "max_completion_tokens", "max_tokens"), -1)
    answers = number(asked, ("n_cmpl", "n"), 1)
    if bound < -1 or not 1 <= answers <= SLOTS:
        raise Wrong("Value must be between")
    prompts = 1 if chat else len(split(asked.get("prompt")))
    return prompts, CONTEXT if bound == -1 else min(CONTEXT, max(1, bound)), answers * prompts


def number(asked: dict[str, Any], names: tuple[str, ...], default: int) -> int:
    for name in names:
        value = asked.get(name)
        if value is None:
            continue
        if not isinstance(value, (int, float)):
            raise Wrong(f"Field '{name}': type must be number")
        if isinstance(value, float) and not abs(value) < 1 << 31:
            return -(1 << 31)
        return (int(value) + (1 << 31)) % (1 << 32) - (1 << 31)
    return default


def split(prompt: object) -> list[object]:
    """Raises Wrong."""
    several = isinstance(prompt, list) and not any(type(each) in (int, float) for each in prompt)
    found: list[object] = list(prompt) if several and isinstance(prompt, list) else [prompt]
    if not found or not all(
        isinstance(x, (str, list)) or (isinstance(x, dict) and "prompt_string" in x) for x in found
    ):
        raise Wrong('"prompt" elements must be a string, a list of tokens, or an object')
    return found


def usage(each: int) -> dict[str, int]:
    return {"completion_tokens": each, "prompt_tokens": 1, "total_tokens": each + 1}


def timings(each: int) -> dict[str, int]:
    return {"cache_n": 0, "prompt_n": 1, "predicted_n": each}


def plain(path: str, asked: dict[str, Any], each: int, answers: int) -> Any:
    words = _WORD * each
    if path.endswith("/completion"):
        made = [
            {"index": at, "content": words, "tokens_predicted": each, "tokens_evaluated": 1, "timings": timings(each)}
            for at in range(answers)
        ]
        if wanted := asked.get("response_fields"):
            made = [{name: one[name] for name in wanted if name in one} for one in made]
        return made if answers > 1 else made[0]
    if path.endswith(("/responses", "/messages")):
        return {"output": words, "usage": {"input_tokens": 1, "output_tokens": each, "total_tokens": each + 1}}
    said = {"message": {"content": words}} if path.endswith("/chat/completions") else {"text": words}
    choices = [{"index": at, "finish_reason": "length", **said} for at in range(answers)]
    return {"choices": choices, "usage": usage(each), "timings": timings(each)}


def piece(path: str, index: int) -> dict[str, Any]:
    if path.endswith("/completion"):
        return {"index": index, "content": _WORD, "stop": False}
    if path.endswith(("/responses", "/messages")):
        return {"type": "delta", "delta": _WORD}
    said = {"delta": {"content": _WORD}} if path.endswith("/chat/completions") else {"text": _WORD}
    return {"choices": [{"index": index, "finish_reason": None, **said}]}


def last(path: str, index: int, each: int) -> dict[str, Any]:
    if path.endswith("/completion"):
        return {"index": index, "content": "", "stop": True, "timings": timings(each)}
    if path.endswith("/responses"):
        return {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": each}}}
    if path.endswith("/messages"):
        return {"type": "message_delta", "usage": {"output_tokens": each}}
    said = {"delta": {}} if path.endswith("/chat/completions") else {"text": "", "usage": usage(each)}
    return {"choices": [{"index": index, "finish_reason": "length", **said}], "timings": timings(each)}


if __name__ == "__main__":
    fake_engine.main(engine=RuledEngine)
