"""A request of the responses API: what is asked for, and what cannot be. Pure.

Source: OpenAI's API reference, responses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from corral.errors import CallerError, NotOffered
from corral.gateway.dialects.fields import get, need, object_of, wrong
from corral.gateway.dialects.responses.items import Item, read_items

_EXAMPLE = '{"model": "…", "input": "…"}'
_TOOLS = "Corral runs no tools itself: send tools of the type function, and run them yourself"


class Asked(NamedTuple):
    """What a request wants."""

    model: str | None
    items: list[Item]  # of this turn
    instructions: str | None
    previous: str | None
    store: bool
    stream: bool
    chat: dict[str, Any]  # the chat request, without its model and messages
    echoed: dict[str, Any]  # what a response repeats of its request


def read(body: bytes, new_id: Callable[[str], str]) -> Asked:
    """Raises NotJson, CallerError, NotOffered."""
    asked = object_of(body, _EXAMPLE)
    _refuse(asked)
    stream = get(asked, "stream", bool) or False
    chat: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    most = get(asked, "max_output_tokens", int)
    if most is not None:
        if most < 1:
            raise wrong("max_output_tokens", "must be at least 1")
        chat["max_tokens"] = most
    for name in ("temperature", "top_p"):
        if (value := get(asked, name, float)) is not None:
            chat[name] = value
    reasoning = get(asked, "reasoning", dict) or {}
    effort = get(reasoning, "effort", str, "reasoning.")
    if effort is not None:
        chat["reasoning_effort"] = effort
    tools = [_tool(each, at) for at, each in enumerate(get(asked, "tools", list) or [])]
    choice = asked.get("tool_choice")
    if tools:
        chat["tools"] = [_chat_tool(each) for each in tools]
        if choice is not None:
            chat["tool_choice"] = _choice(choice)
        if (parallel := get(asked, "parallel_tool_calls", bool)) is not None:
            chat["parallel_tool_calls"] = parallel
    text = get(asked, "text", dict) or {}
    form = get(text, "format", dict, "text.") or {"type": "text"}
    if (wanted := _format(form)) is not None:
        chat["response_format"] = wanted
    if (num_ctx := asked.get("num_ctx")) is not None:
        chat["num_ctx"] = num_ctx
    store = get(asked, "store", bool)
    echoed = {
        "background": False,
        "instructions": get(asked, "instructions", str),
        "max_output_tokens": most,
        "max_tool_calls": None,
        "metadata": _metadata(asked),
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": get(asked, "previous_response_id", str),
        "reasoning": {"effort": effort, "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": store is not False,
        "temperature": chat.get("temperature"),
        "text": {"format": form},
        "tool_choice": choice if choice is not None else "auto",
        "tools": tools,
        "top_logprobs": 0,
        "top_p": chat.get("top_p"),
        "truncation": "disabled",
        "user": get(asked, "user", str),
    }
    return Asked(
        model=get(asked, "model", str),
        items=read_items(asked.get("input", []), new_id),
        instructions=echoed["instructions"],
        previous=echoed["previous_response_id"],
        store=echoed["store"],
        stream=stream,
        chat=chat,
        echoed=echoed,
    )


def _refuse(asked: dict[str, Any]) -> None:
    """What would change the answer and is not done."""
    if asked.get("background"):
        raise NotOffered(
            "responses in the background are not offered", hint="stream it, or wait for it", param="background"
        )
    if asked.get("conversation") is not None:
        hint = "go on from an earlier response with previous_response_id"
        raise NotOffered("conversations are not offered", hint=hint, param="conversation")
    if asked.get("prompt") is not None:
        raise NotOffered("stored prompts are not offered", hint="send the text itself", param="prompt")
    include = get(asked, "include", list) or []
    if asked.get("top_logprobs") or "message.output_text.logprobs" in include:
        raise NotOffered("logprobs are not offered here", hint="/v1/chat/completions has them", param="top_logprobs")


def _tool(tool: Any, at: int) -> Item:
    where = f"tools[{at}]."
    if not isinstance(tool, dict):
        raise wrong(f"tools[{at}]", "must be an object")
    if (kind := tool.get("type")) != "function":
        raise NotOffered(f"tools of the type {kind!r} are not offered", hint=_TOOLS, param=f"{where}type")
    return {
        "type": "function",
        "name": need(tool, "name", str, where),
        "description": get(tool, "description", str, where),
        "parameters": get(tool, "parameters", dict, where) or {"type": "object", "properties": {}},
        "strict": get(tool, "strict", bool, where) or False,
    }


def _chat_tool(tool: Item) -> Item:
    function = {name: tool[name] for name in ("name", "description", "parameters") if tool[name] is not None}
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise wrong("tool_choice", "must be a text or an object")
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": need(choice, "name", str, "tool_choice.")}}
    if choice.get("type") == "allowed_tools":
        return choice
    raise NotOffered(f"tool_choice of the type {choice.get('type')!r} is not offered", hint=_TOOLS, param="tool_choice")


def _format(form: Item) -> Item | None:
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise wrong("text.format.type", 'must be "text", "json_schema" or "json_object"')
    schema = {"name": form.get("name", "answer"), "schema": need(form, "schema", dict, "text.format.")}
    return {"type": "json_schema", "json_schema": {**schema, "strict": True}}


def _metadata(asked: dict[str, Any]) -> dict[str, str]:
    metadata = get(asked, "metadata", dict) or {}
    if len(metadata) > 16 or not all(isinstance(each, str) and len(each) <= 512 for each in metadata.values()):
        raise CallerError("metadata: at most 16 texts of at most 512 characters", hint="send less", param="metadata")
    return metadata
