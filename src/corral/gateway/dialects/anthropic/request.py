"""A messages request as a chat request in OpenAI's shape. Pure.

Source: Anthropic's Messages API, version 2023-06-01.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from corral.gateway.dialects.fields import get, need, object_of, wrong
from corral.gateway.dialects.reasoning.effort import level_of_budget

_EXAMPLE = '{"model": "…", "max_tokens": 1024, "messages": [{"role": "user", "content": "…"}]}'
_SERVER_TOOLS = "Corral runs no tools itself: send tools with an input_schema, and run them yourself"


class Asked(NamedTuple):
    """What a request wants."""

    model: str | None
    chat: dict[str, Any]  # the chat request, without its model
    stream: bool
    thinks: bool  # thoughts are wanted in the answer
    budget: int | None  # of thoughts, in tokens
    prefill: str  # the answer's beginning, where the request has it


def read(body: bytes, *, counting: bool = False) -> Asked:
    """`counting`: nothing is to be said, so `max_tokens` may be missing. Raises NotJson, CallerError."""
    asked = object_of(body, _EXAMPLE)
    messages = [*_system(asked), *_messages(need(asked, "messages", list))]
    chat: dict[str, Any] = {"messages": messages}
    if not counting:
        most = need(asked, "max_tokens", int)
        if most < 1:
            raise wrong("max_tokens", "must be at least 1")
        chat["max_tokens"] = most
    for name, kind in (("temperature", float), ("top_p", float), ("top_k", int)):
        if (value := get(asked, name, kind)) is not None:
            chat[name] = value
    if stops := get(asked, "stop_sequences", list):
        if not all(isinstance(each, str) and each for each in stops):
            raise wrong("stop_sequences", "must be a list of texts")
        chat |= {"stop": stops, "verbose": True}  # llama.cpp then says which one it was
    if tools := get(asked, "tools", list):
        chat["tools"] = [_tool(each, at) for at, each in enumerate(tools)]
        chat |= _choice(get(asked, "tool_choice", dict))
    if (form := _format(asked)) is not None:
        chat["response_format"] = form
    stream = get(asked, "stream", bool) or False
    if stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    thinks, effort, budget = _thinking(asked)
    chat["reasoning_effort"] = effort
    last = messages[-1]
    prefill = last["content"] if last["role"] == "assistant" and isinstance(last.get("content"), str) else ""
    return Asked(get(asked, "model", str), chat, stream, thinks, budget, prefill)


def _system(asked: dict[str, Any]) -> list[dict[str, Any]]:
    system = asked.get("system")
    if system is None or system in ("", []):
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    return [{"role": "system", "content": "\n\n".join(_text(each, "system") for each in need(asked, "system", list))}]


def _messages(given: list[Any]) -> list[dict[str, Any]]:
    if not given:
        raise wrong("messages", "at least one is needed")
    made: list[dict[str, Any]] = []
    for at, message in enumerate(given):
        where = f"messages.{at}"
        if not isinstance(message, dict):
            raise wrong(where, "must be an object")
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise wrong(f"{where}.role", 'must be "user" or "assistant"')
        if isinstance(content, str):
            made.append({"role": role, "content": content})
        elif isinstance(content, list):
            blocks = [_block(each, f"{where}.content.{place}") for place, each in enumerate(content)]
            made += _assistant(blocks, where) if role == "assistant" else _user(blocks, role, where)
        else:
            raise wrong(f"{where}.content", "must be a text or a list of blocks")
    return made


def _block(block: Any, where: str) -> dict[str, Any]:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise wrong(where, "must be a block with a type")
    return block


def _assistant(blocks: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    texts, thoughts, calls = [], [], []
    for at, block in enumerate(blocks):
        here = f"{where}.content.{at}."
        kind = block["type"]
        if kind == "text":
            texts.append(need(block, "text", str, here))
        elif kind == "thinking":
            thoughts.append(need(block, "thinking", str, here))
        elif kind == "tool_use":
            function = {"name": need(block, "name", str, here), "arguments": json.dumps(block.get("input") or {})}
            calls.append({"id": need(block, "id", str, here), "type": "function", "function": function})
        elif kind != "redacted_thinking":
            raise wrong(f"{here}type", f"{kind!r} is not taken from the assistant", _SERVER_TOOLS)
    made: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts:
        made["reasoning_content"] = "\n".join(thoughts)
    if calls:
        made["tool_calls"] = calls
    return [made]


def _user(blocks: list[dict[str, Any]], role: str, where: str) -> list[dict[str, Any]]:
    """Results of tools come first, each as a message of its own, then the rest."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for at, block in enumerate(blocks):
        here = f"{where}.content.{at}."
        if block["type"] == "tool_result":
            text, images = _result(block, here)
            results.append({"role": "tool", "tool_call_id": need(block, "tool_use_id", str, here), "content": text})
            parts += images
        else:
            parts.append(_part(block, here))
    if not parts:
        return results or [{"role": role, "content": ""}]
    if all(part["type"] == "text" for part in parts):
        return [*results, {"role": role, "content": "\n".join(part["text"] for part in parts)}]
    return [*results, {"role": role, "content": parts}]


def _part(block: dict[str, Any], here: str) -> dict[str, Any]:
    kind = block["type"]
    if kind == "text":
        return {"type": "text", "text": need(block, "text", str, here)}
    if kind == "image":
        source = need(block, "source", dict, here)
        if source.get("type") == "base64":
            data, media = need(source, "data", str, f"{here}source."), need(source, "media_type", str, f"{here}source.")
            return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}
        if source.get("type") == "url":
            return {"type": "image_url", "image_url": {"url": need(source, "url", str, f"{here}source.")}}
        raise wrong(f"{here}source.type", 'must be "base64" or "url"', "Corral keeps no files: send the image itself")
    if kind == "document":
        source = need(block, "source", dict, here)
        if source.get("type") == "text":
            title = get(block, "title", str, here)
            data = need(source, "data", str, f"{here}source.")
            return {"type": "text", "text": f"{title}\n\n{data}" if title else data}
        raise wrong(f"{here}source.type", "documents are taken as text only", "send their text")
    if kind == "search_result":
        found = "\n".join(_text(each, f"{here}content") for each in need(block, "content", list, here))
        return {"type": "text", "text": f"{block.get('title', '')} ({block.get('source', '')})\n{found}"}
    raise wrong(f"{here}type", f"{kind!r} is no block that is known", "text, image, document and tool_result are")


def _result(block: dict[str, Any], here: str) -> tuple[str, list[dict[str, Any]]]:
    content = block.get("content")
    if content is None or isinstance(content, str):
        text, images = content or "", []
    else:
        parts = [
            _part(_block(each, f"{here}content.{at}"), f"{here}content.{at}.")
            for at, each in enumerate(need(block, "content", list, here))
        ]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        images = [part for part in parts if part["type"] != "text"]
    return (f"Error: {text}" if block.get("is_error") is True else text), images


def _text(block: Any, where: str) -> str:
    if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise wrong(where, "must be a text or a list of text blocks")
    return str(block["text"])


def _tool(tool: Any, at: int) -> dict[str, Any]:
    where = f"tools.{at}."
    if not isinstance(tool, dict):
        raise wrong(f"tools.{at}", "must be an object")
    if (kind := tool.get("type")) not in (None, "custom"):
        raise wrong(f"{where}type", f"{kind!r} is not offered", _SERVER_TOOLS)
    function = {"name": need(tool, "name", str, where), "parameters": need(tool, "input_schema", dict, where)}
    if (words := get(tool, "description", str, where)) is not None:
        function["description"] = words
    return {"type": "function", "function": function}


def _choice(choice: dict[str, Any] | None) -> dict[str, Any]:
    if choice is None:
        return {}
    kind = choice.get("type")
    made: dict[str, Any] = {}
    if kind in ("auto", "none"):
        made["tool_choice"] = kind
    elif kind == "any":
        made["tool_choice"] = "required"
    elif kind == "tool":
        made["tool_choice"] = {"type": "function", "function": {"name": need(choice, "name", str, "tool_choice.")}}
    else:
        raise wrong("tool_choice.type", 'must be "auto", "any", "tool" or "none"')
    if choice.get("disable_parallel_tool_use") is not None:
        made["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return made


def _format(asked: dict[str, Any]) -> dict[str, Any] | None:
    """A schema that the answer must keep to; it has stood in two places."""
    config = get(asked, "output_config", dict) or {}
    form = get(config, "format", dict, "output_config.") or get(asked, "output_format", dict)
    if form is None:
        return None
    if form.get("type") != "json_schema":
        raise wrong("output_config.format.type", 'must be "json_schema"')
    schema = need(form, "schema", dict, "output_config.format.")
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _thinking(asked: dict[str, Any]) -> tuple[bool, str, int | None]:
    """Whether thoughts are wanted, how much of them, and their bound in tokens."""
    thinking = get(asked, "thinking", dict) or {}
    config = get(asked, "output_config", dict) or {}
    effort = get(config, "effort", str, "output_config.")
    kind = thinking.get("type")
    if kind == "enabled":
        budget = need(thinking, "budget_tokens", int, "thinking.")
        if budget < 1:
            raise wrong("thinking.budget_tokens", "must be at least 1")
        return True, effort or level_of_budget(budget), budget
    if kind == "adaptive":
        return thinking.get("display") != "omitted", effort or "medium", None
    if kind not in (None, "disabled"):
        raise wrong("thinking.type", 'must be "enabled", "adaptive" or "disabled"')
    return False, "none", None
