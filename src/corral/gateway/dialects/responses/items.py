"""Items of the responses API, and the chat messages that they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from corral.gateway.dialects.fields import get, need, wrong

Item = dict[str, Any]
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_KNOWN = "message, function_call, function_call_output and reasoning are"


def read_items(given: Any, new_id: Callable[[str], str]) -> list[Item]:
    """The input as items that each have an id. Raises CallerError."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong("input", "must be a text or a list of items")
    return [_item(each, f"input[{at}]", new_id) for at, each in enumerate(given)]


def _item(item: Any, where: str, new_id: Callable[[str], str]) -> Item:
    if not isinstance(item, dict):
        raise wrong(where, "must be an object")
    here = f"{where}."
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        role = need(item, "role", str, here)
        if role not in _ROLES:
            raise wrong(f"{here}role", f"must be one of {', '.join(_ROLES)}")
        content = item.get("content")
        if isinstance(content, str):
            content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
        if not isinstance(content, list):
            raise wrong(f"{here}content", "must be a text or a list of parts")
        parts = [_content(part, f"{here}content[{at}]") for at, part in enumerate(content)]
        made: Item = {"type": "message", "role": role, "content": parts, "status": "completed"}
    elif kind == "function_call":
        made = {"type": kind, "status": "completed"}
        made |= {name: need(item, name, str, here) for name in ("call_id", "name", "arguments")}
    elif kind == "function_call_output":
        output = item.get("output")
        if isinstance(output, list):
            output = [_content(part, f"{here}output[{at}]") for at, part in enumerate(output)]
        elif not isinstance(output, str):
            raise wrong(f"{here}output", "must be a text or a list of parts")
        made = {"type": kind, "call_id": need(item, "call_id", str, here), "output": output, "status": "completed"}
    elif kind == "reasoning":
        content = get(item, "content", list, here) or []
        summary = get(item, "summary", list, here) or []
        made = {"type": kind, "summary": summary, "content": content}
    else:
        hint = f"{_KNOWN} taken; tools that a provider runs are not offered"
        raise wrong(f"{here}type", f"{kind!r} is no item that is taken", hint)
    return {"id": get(item, "id", str, here) or new_id(_PREFIX[kind]), **made}


_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _content(part: Any, where: str) -> Item:
    if not isinstance(part, dict):
        raise wrong(where, "must be an object")
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        need(part, "text", str, f"{where}.")
    elif kind == "refusal":
        return {"type": "output_text", "text": need(part, "refusal", str, f"{where}.")}
    elif kind == "input_image":
        if get(part, "image_url", str, f"{where}.") is None:
            raise wrong(f"{where}.image_url", "is missing", "Corral keeps no files: send the image as a data URL")
    elif kind == "input_audio":
        need(part, "input_audio", dict, f"{where}.")
    else:
        hint = "input_text, input_image and output_text are; Corral keeps no files"
        raise wrong(f"{where}.type", f"{kind!r} is no part that is taken", hint)
    return part


def messages_of(items: Iterable[Item], instructions: str | None) -> list[dict[str, Any]]:
    """All `items` in order as chat messages. What one turn of the assistant has is one message."""
    made: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    turn: dict[str, Any] | None = None
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            turn = None
            made.append({"role": "tool", "tool_call_id": item["call_id"], "content": _plain(item["output"])})
            continue
        if kind == "message" and item["role"] != "assistant":
            turn = None
            _add(made, {"role": _ROLES[item["role"]], "content": _parts(item["content"])})
            continue
        if turn is None:
            turn = {"role": "assistant", "content": None}
            made.append(turn)
        if kind == "message":
            turn["content"] = (turn["content"] or "") + _plain(item["content"])
        elif kind == "reasoning":
            thought = _plain(item["content"]) or _plain(item["summary"])
            if thought:
                turn["reasoning_content"] = turn.get("reasoning_content", "") + thought
        else:
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            turn.setdefault("tool_calls", []).append(call)
    for message in made:
        if message["role"] == "assistant" and message["content"] is None and not message.get("tool_calls"):
            message["content"] = ""
    return made


def _add(made: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Templates take one system message, at the beginning."""
    last = made[-1] if made else None
    both = message["role"] == "system" and last is not None and last["role"] == "system"
    if both and last is not None and isinstance(last["content"], str) and isinstance(message["content"], str):
        last["content"] += f"\n\n{message['content']}"
    else:
        made.append(message)


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") in _TEXTS)
    return "".join(text for text in texts if isinstance(text, str))


def _parts(content: list[Item]) -> str | list[Item]:
    if all(part["type"] in _TEXTS for part in content):
        return "\n".join(part["text"] for part in content)
    made: list[Item] = []
    for part in content:
        if part["type"] == "input_image":
            made.append({"type": "image_url", "image_url": {"url": part["image_url"]}})
        elif part["type"] == "input_audio":
            made.append({"type": "input_audio", "input_audio": part["input_audio"]})
        else:
            made.append({"type": "text", "text": part["text"]})
    return made


def size_of(items: list[Item]) -> int:
    """Bytes of `items` as they are kept."""
    return len(json.dumps(items))
