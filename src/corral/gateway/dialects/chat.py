"""Reading an engine's chat completion, streamed or whole, as parts that other dialects are made of. Pure.

Source: OpenAI's chat completion chunks, with llama.cpp's `reasoning_content`, `timings` and `__verbose`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NamedTuple

from corral.errors import CallerError, CorralError, EngineError, Unparsed
from corral.gateway.dialects.explained import INPUT, hint_of
from corral.gateway.dialects.fields import strict
from corral.gateway.dialects.usage import Usage, usage_of

_LINES = re.compile(rb"\r\n|\n|\r")
_ENDS = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\r|\n)")
_UNPARSED = "does not match the expected"
"""llama.cpp's words when its parser cannot read what the model said (and the text is lost)."""


class Part(NamedTuple):
    """One thing said: a piece of text or thought, the beginning of a tool call (`id`, `text` its name), a piece of its
    arguments, or why the answer ended (`text`; `id` is the stop sequence that did it)."""

    kind: Literal["text", "think", "call", "args", "finish"]
    text: str = ""
    call: int = 0  # which tool call
    id: str = ""


class ChatReader:
    """One answer, of which the first choice counts. `usage` is what the engine said of it last."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.id = ""
        self.ended = False  # the engine said that it is over
        self._calls: set[int] = set()

    def events(self, whole: bytes) -> list[Part]:
        """What some whole events say. Raises the error that one of them tells."""
        return [part for data in datas(whole) for part in self.event(data)]

    def event(self, data: bytes) -> list[Part]:
        """The same of the data of one event."""
        if data == b"[DONE]":
            self.ended = True
            return []
        chunk = parsed(data)
        return [] if chunk is None else self._chunk(chunk, data)

    def body(self, status: int, body: bytes) -> list[Part]:
        """The same of a plain answer. Raises the error that it is, and EngineError when it is no chat completion."""
        whole = parsed(body)
        if status >= 400 or whole is None or "error" in whole:
            raise refusal(status, whole, body)
        choices = whole.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise EngineError("the engine's answer is no chat completion", hint="see its log")
        self.usage, self.ended = usage_of(body), True
        self.id = _text(whole.get("id"))
        return [*self._delta(choice["message"]), *self._finish(choice, whole)]

    def _chunk(self, chunk: dict[str, Any], data: bytes) -> list[Part]:
        if "error" in chunk:
            raise refusal(502, chunk, data)
        self.id = self.id or _text(chunk.get("id"))
        if "usage" in chunk or "timings" in chunk:
            self.usage = usage_of(data) or self.usage
        elif isinstance(progress := chunk.get("prompt_progress"), dict):
            total, cached = progress.get("total"), progress.get("cache")
            if isinstance(total, int) and isinstance(cached, int) and self.usage is None:
                self.usage = Usage(total, 0, cached)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index", 0) != 0:
            return []
        delta = choice.get("delta")
        return [*(self._delta(delta) if isinstance(delta, dict) else ()), *self._finish(choice, chunk)]

    def _delta(self, delta: dict[str, Any]) -> list[Part]:
        parts: list[Part] = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            parts.append(Part("think", thought))
        if isinstance(text := delta.get("content"), str) and text:
            parts.append(Part("text", text))
        calls = delta.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else ()):
            if not isinstance(call, dict):
                continue
            index = call.get("index", place)
            index = index if isinstance(index, int) else place
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            if index not in self._calls:
                self._calls.add(index)
                parts.append(Part("call", _text(function.get("name")), index, _text(call.get("id"))))
            if isinstance(arguments := function.get("arguments"), str) and arguments:
                parts.append(Part("args", arguments, index))
            elif isinstance(arguments, dict):
                parts.append(Part("args", json.dumps(arguments), index))
        return parts

    def _finish(self, choice: dict[str, Any], chunk: dict[str, Any]) -> list[Part]:
        reason = choice.get("finish_reason")
        if not isinstance(reason, str):
            return []
        verbose = chunk.get("__verbose")
        word = _text(verbose.get("stopping_word")) if isinstance(verbose, dict) else ""
        return [Part("finish", reason, id=word)]


def datas(whole: bytes) -> list[bytes]:
    """The data of each event in `whole`; comments and other fields are left out."""
    found = []
    for event in whole.split(b"\n\n") if b"\r" not in whole else _ENDS.split(whole):
        data = event[6:] if event.startswith(b"data: ") and b"\n" not in event else _data(event)
        if data:
            found.append(data)
    return found


def _data(event: bytes) -> bytes:
    lines = (line for line in _LINES.split(event) if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def refusal(status: int, said: dict[str, Any] | None, body: bytes) -> CorralError:
    """The error that an engine's answer is."""
    error = said.get("error") if said is not None else None
    text = _text(error.get("message")) if isinstance(error, dict) else _text(error)
    if not text and said is not None:
        text = _text(said.get("message"))
    text = text or body[:300].decode("utf-8", "replace") or f"the engine answered {status}"
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and status == 502 else status
    if _UNPARSED in text:
        return Unparsed(f"the engine could not read what its model said: {text}", hint="try again")
    hint = hint_of(text)
    if status in (400, 413, 422, 501) or INPUT.search(text):
        kind = error.get("type") if isinstance(error, dict) else None
        return CallerError(text, hint=hint or "the engine refused the request", engine_type=kind)
    return EngineError(f"the engine answered {status}: {text}", hint="`corral logs` shows what it wrote")


def parsed(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None when it is anything else."""
    try:
        value = strict(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
