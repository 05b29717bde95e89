"""A tool that must be called is called: also by name, and by models whose template has no place for tools. Pure.

llama.cpp enforces `required` where the template knows tools, takes a named function for `auto`, and passes over all of
it where the template knows none. There the answer is bound to the JSON of a call by a schema, and made into one.
"""

from __future__ import annotations

import json
from typing import Any

from corral.errors import CallerError
from corral.gateway.dialects import chat

_HINT = 'send "auto", "none", "required", or {"type": "function", "function": {"name": …}} of one of the tools'
_WORDS = """You must call exactly one of these tools. Answer with JSON alone: {"name": …, "arguments": …}."""


def chosen(request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """`request` with the tools that may be called, and whether one of them must be. Raises CallerError."""
    choice, tools = request.get("tool_choice"), request.get("tools")
    if choice is None or choice in ("auto", "none"):
        return request, False
    if not isinstance(tools, list) or not tools:
        raise CallerError("tool_choice without tools", hint="send the tools as well", param="tool_choice")
    if not all(_name(tool) for tool in tools):
        raise CallerError(
            "a tool has no name", hint='send {"type": "function", "function": {"name": …}}', param="tools"
        )
    if choice in ("required", "any"):
        return {**request, "tool_choice": "required"}, True
    if not isinstance(choice, dict):
        raise CallerError("tool_choice is none that is known", hint=_HINT, param="tool_choice")
    mode = "required"
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        allowed = allowed if isinstance(allowed, dict) else {}
        mode = "required" if allowed.get("mode") == "required" else "auto"
        listed = allowed.get("tools")
        named = [_name(each) for each in (listed if isinstance(listed, list) else ())]
    else:
        named = [_name(choice)]
    kept = [tool for tool in tools if _name(tool) in named and _name(tool)]
    if not kept:
        wanted = ", ".join(repr(name) for name in named) or "no tool"
        raise CallerError(f"tool_choice names {wanted}, which is not among the tools", hint=_HINT, param="tool_choice")
    return {**request, "tools": kept, "tool_choice": mode}, mode == "required"


def bound(request: dict[str, Any]) -> dict[str, Any]:
    """A request that must end in a call, for a template without tools: its answer is JSON that `Called` reads."""
    shapes = []
    for tool in request["tools"]:
        function = tool.get("function") if isinstance(tool, dict) else None
        parameters = function.get("parameters") if isinstance(function, dict) else None
        members = {"name": {"const": _name(tool)}, "arguments": parameters or {"type": "object"}}
        shapes.append(
            {"type": "object", "properties": members, "required": ["name", "arguments"], "additionalProperties": False}
        )
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    words = f"{_WORDS}\n{json.dumps([tool.get('function', tool) for tool in request['tools']], ensure_ascii=False)}"
    given = request.get("messages")
    messages = list(given) if isinstance(given, list) else []
    if messages and isinstance(messages[0], dict) and isinstance(messages[0].get("content"), str):
        first = messages[0]
        if first.get("role") == "system":
            messages[0] = {**first, "content": f"{first['content']}\n\n{words}"}
    if not messages or not isinstance(given, list) or messages[0] is given[0]:
        messages.insert(0, {"role": "system", "content": words})
    kept = {key: value for key, value in request.items() if key not in ("tools", "tool_choice", "parallel_tool_calls")}
    form = {"type": "json_schema", "json_schema": {"name": "call", "strict": True, "schema": schema}}
    return {**kept, "messages": messages, "response_format": form}


class Called:
    """The answer to a bound request: a `Translation` from OpenAI to OpenAI that has the call in it."""

    kind = b"text/event-stream"

    def __init__(self, made: str) -> None:
        """`made` makes the call's id."""
        self._id = f"call_{made}"
        self._text = ""

    def events(self, whole: bytes) -> bytes:
        return b"".join(self._event(data) for data in chat.datas(whole))

    def end(self, rest: bytes) -> bytes:
        return rest

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        whole = chat.parsed(body)
        choices = whole.get("choices") if whole is not None else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if status >= 400 or not isinstance(choice, dict) or not isinstance(message, dict):
            return status, body
        if (call := self._call(str(message.get("content") or ""))) is None:
            return status, body
        message.update(content=None, tool_calls=[call])
        choice["finish_reason"] = "tool_calls"
        return status, json.dumps(whole).encode()

    def _event(self, data: bytes) -> bytes:
        same = b"data: %b\n\n" % data
        chunk = chat.parsed(data)
        choices = chunk.get("choices") if chunk is not None else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        if chunk is None or not isinstance(choice, dict):
            return same
        delta = choice.get("delta")
        if isinstance(delta, dict) and isinstance(content := delta.get("content"), str):
            self._text += content
            delta = {key: value for key, value in delta.items() if key != "content"}
        if not isinstance(reason := choice.get("finish_reason"), str):
            return _event(chunk, {**choice, "delta": delta}) if delta else b""
        call = self._call(self._text)
        last = {"content": self._text} if call is None else {"tool_calls": [{"index": 0, **call}]}
        early = {key: value for key, value in chunk.items() if key not in ("usage", "timings", "__verbose")}
        reason = reason if call is None else "tool_calls"
        return _event(early, {**choice, "delta": last, "finish_reason": None}) + _event(
            chunk, {**choice, "delta": delta or {}, "finish_reason": reason}
        )

    def _call(self, text: str) -> dict[str, Any] | None:
        """None when the answer was cut before its JSON was whole."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or not isinstance(said.get("name"), str):
            return None
        function = {"name": said["name"], "arguments": json.dumps(said.get("arguments", {}), ensure_ascii=False)}
        return {"id": self._id, "type": "function", "function": function}


def _name(tool: object) -> str:
    """The name in a tool or a choice, in OpenAI's chat shape or that of its responses."""
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else ""


def _event(chunk: dict[str, Any], choice: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps({**chunk, "choices": [choice]}).encode()
