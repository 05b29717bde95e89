"""Going on with a stream that another engine began: how to ask for the rest, and how its events become those of the
same answer. Pure.

Source: llama.cpp's server, which goes on with the last message where `continue_final_message` says so, thoughts apart
from text, and streams only what is new; its `/completion`, and `/v1/completions`, go on from the end of their prompt.
"""

from __future__ import annotations

import json
from typing import Any, Final

from corral.gateway.dialects.chat import datas, parsed
from corral.gateway.dialects.usage import Usage, usage_of
from corral.gateway.path.sent import Sent

CHATS: Final = b"/v1/chat/completions"
TARGETS: Final = frozenset((CHATS, b"/v1/completions", b"/completion"))
"""Streams of these can be gone on with."""

_BOUNDS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
# What ties an answer to its beginning in a way that its text does not show.
_TIES: Final = (
    "tools", "functions", "grammar", "json_schema", "logprobs", "top_logprobs", "n_probs", "best_of", "echo", "suffix",
    "continue_final_message", "input_extra", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "structured_outputs",
)  # fmt: skip


def rest_of(target: bytes, body: bytes, sent: Sent) -> bytes | None:
    """The body of a request for what is missing of an answer to `body`; None when that cannot be asked."""
    request = parsed(body)
    sent.read()
    if target not in TARGETS or request is None or not sent.whole or sent.finished:
        return None
    if request.get("stream") is not True or request.get("n", 1) not in (1, None) or any(map(request.get, _TIES)):
        return None
    form = request.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        return None
    if (bounds := _bounds_left(request, sent.tokens)) is None:
        return None
    begun = _begun_chat(request, sent) if target == CHATS else _begun_text(request, sent)
    return None if begun is None else json.dumps({**request, **begun, **bounds}).encode()


def _bounds_left(request: dict[str, Any], tokens: int) -> dict[str, int] | None:
    """The bounds of what is missing; None when nothing is left."""
    left = {}
    for name in _BOUNDS:
        bound = request.get(name)
        if isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0:
            left[name] = bound - tokens
    return None if any(each < 1 for each in left.values()) else left


def _begun_chat(request: dict[str, Any], sent: Sent) -> dict[str, Any] | None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    if messages[-1].get("role") == "assistant":
        return None  # engines differ in whether they repeat what they were given of it
    answer = {"role": "assistant", "content": sent.text}
    if sent.thought:
        answer["reasoning_content"] = sent.thought
    return {"messages": [*messages, answer], "continue_final_message": True, "add_generation_prompt": False}


def _begun_text(request: dict[str, Any], sent: Sent) -> dict[str, Any] | None:
    prompt = request.get("prompt")
    if isinstance(prompt, str):
        return {"prompt": prompt + sent.text}
    if isinstance(prompt, list) and prompt and all(type(each) is int for each in prompt):
        return {"prompt": [*prompt, sent.text]}
    return None


class Shaped:
    """The rest of an answer, event by event as if its first engine had gone on."""

    def __init__(self, sent: Sent) -> None:
        self._head, self._before = sent.head, sent.tokens
        self.usage: Usage | None = None  # of all of it, once the engine has said its part

    def events(self, whole: bytes) -> bytes:
        """Some whole events, as they go out; empty when nothing of them does."""
        return b"".join(self._event(data) for data in datas(whole))

    def _event(self, data: bytes) -> bytes:
        chunk = parsed(data)
        if chunk is None or "error" in chunk:
            return b"data: %b\n\n" % data
        choices = chunk.get("choices")
        if choices and isinstance(choices, list) and all(_says_nothing(each) for each in choices):
            return b""  # that an answer begins was said
        chunk.update({key: value for key, value in self._head.items() if key in chunk})
        if "usage" in chunk or "timings" in chunk:
            self._count(chunk)
        return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()

    def _count(self, chunk: dict[str, Any]) -> None:
        """Adds what came before. The prompt of the second engine had it at its end."""
        before = self._before
        if isinstance(usage := chunk.get("usage"), dict):
            _move(usage, "prompt_tokens", -before)
            _move(usage, "completion_tokens", before)
        if isinstance(timings := chunk.get("timings"), dict):
            read = timings.get("prompt_n")
            of_prompt = min(before, read) if isinstance(read, int) else 0
            _scaled(timings, "prompt", -of_prompt)
            _move(timings, "cache_n", of_prompt - before)
            _scaled(timings, "predicted", before)
        _move(chunk, "tokens_evaluated", -before)
        _move(chunk, "tokens_predicted", before)
        self.usage = usage_of(json.dumps(chunk).encode()) or self.usage


def _says_nothing(choice: object) -> bool:
    if not isinstance(choice, dict) or isinstance(choice.get("finish_reason"), str):
        return False
    delta = choice.get("delta")
    return isinstance(delta, dict) and not any(value for key, value in delta.items() if key != "role")


def _move(counts: dict[str, Any], key: str, by: int) -> None:
    count = counts.get(key)
    if isinstance(count, int) and not isinstance(count, bool):
        counts[key] = max(0, count + by)


def _scaled(timings: dict[str, Any], what: str, by: int) -> None:
    """Changes a count of tokens and the time that they took, so that the time for each stays."""
    count, took_ms = timings.get(f"{what}_n"), timings.get(f"{what}_ms")
    if isinstance(count, int) and count > 0 and isinstance(took_ms, (int, float)):
        timings[f"{what}_ms"] = took_ms * max(0, count + by) / count
    _move(timings, f"{what}_n", by)
