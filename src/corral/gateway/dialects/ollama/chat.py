"""`/api/chat` as llama.cpp's chat completions."""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any, Final

from corral.errors import CallerError
from corral.gateway.dialects.ollama import asked
from corral.gateway.dialects.ollama.options import Options, read_options
from corral.gateway.dialects.ollama.times import keep_alive_s
from corral.lazy_dataclass import dataclass

PATH: Final = b"/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request comes to: a route of the engine and its body, or nothing but a load (`body` None)."""

    model: str
    stream: bool
    keep_alive_s: float | None
    body: dict[str, Any] | None = None
    path: bytes = PATH
    options: Options = field(default_factory=Options)
    think: bool | str | None = None
    tops: int = 0  # alternatives wanted for each token
    needs: tuple[str, ...] = ()  # capabilities, in Ollama's words
    render_only: bool = False  # the prompt is wanted, not an answer
    remember: list[dict[str, Any]] | None = None  # the messages that a `context` is to hold, before the answer


def read_chat(given: dict[str, Any]) -> Wanted:
    """Raises CallerError."""
    name, stream = asked.model(given), asked.flag(given, "stream", True)
    keep_s = keep_alive_s(given.get("keep_alive"))
    messages = [message(each, at) for at, each in enumerate(asked.items(given, "messages"))]
    if not messages:
        return Wanted(name, stream, keep_s)
    body: dict[str, Any] = {"messages": messages}
    needs = ["completion"]
    if tools := asked.items(given, "tools"):
        body["tools"] = tools
        needs.append("tools")
    if any(isinstance(each["content"], list) for each in messages):
        needs.append("vision")
    return completed(given, body, Wanted(name, stream, keep_s, needs=tuple(needs)))


def completed(given: dict[str, Any], body: dict[str, Any], so_far: Wanted) -> Wanted:
    """`so_far` with what `chat` and `generate` have in common put into `body`."""
    options = read_options(asked.table(given, "options"))
    think = asked.think(given)
    probabilities = asked.logprobs(given)
    body.update(options.fields)
    body.update(asked.thinking(think))
    body.update(probabilities)
    body.update(asked.response_format(given))
    body["stream"] = so_far.stream
    if so_far.stream:
        body["stream_options"] = {"include_usage": True}
    return Wanted(
        so_far.model,
        so_far.stream,
        so_far.keep_alive_s,
        body,
        options=options,
        think=think,
        tops=given.get("top_logprobs") or 0,
        needs=(*so_far.needs, *(["thinking"] if think else [])),
        render_only=asked.flag(given, "_debug_render_only", False),
        remember=so_far.remember,
    )


def message(given: Any, at: int) -> dict[str, Any]:
    """One message as OpenAI has it. Raises CallerError."""
    if not isinstance(given, dict):
        raise CallerError(f"message {at} is no object", hint='send such as {"role": "user", "content": "…"}')
    role = asked.text(given, "role").lower()
    if not role:
        raise CallerError(f"message {at} has no role", hint="say system, user, assistant or tool", param="role")
    said: str | list[dict[str, Any]] = asked.text(given, "content")
    if pictures := asked.images(given):
        said = [*([{"type": "text", "text": said}] if said else []), *pictures]
    found: dict[str, Any] = {"role": role, "content": said}
    if thought := asked.text(given, "thinking"):
        found["reasoning_content"] = thought
    if calls := asked.items(given, "tool_calls"):
        found["tool_calls"] = [_call(each, number) for number, each in enumerate(calls)]
    if tool := asked.text(given, "tool_name") or asked.text(given, "name"):
        found["name"] = tool
    if call := asked.text(given, "tool_call_id"):
        found["tool_call_id"] = call
    return found


def _call(given: Any, number: int) -> dict[str, Any]:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise CallerError("a tool call has no function with a name", hint='send {"function": {"name": "…"}}')
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)
    known = given.get("id")
    return {
        "id": known if isinstance(known, str) and known else f"call_{number}",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
