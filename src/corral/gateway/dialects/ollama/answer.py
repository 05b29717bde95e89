"""`Answer`: an engine's answer as Ollama's: NDJSON lines while it comes, or one object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

from corral.errors import EngineError
from corral.gateway.dialects.ollama.errors import LINES, dumped, engine_error, line, said_in
from corral.gateway.dialects.ollama.memory import remembered
from corral.gateway.dialects.ollama.times import Times, moment, nanoseconds
from corral.lazy_dataclass import dataclass

Found = Mapping[str, Any]


@dataclass(slots=True)
class Piece:
    """What one event, or a whole answer, says."""

    text: str = ""
    thinking: str = ""
    calls: list[Any] = field(default_factory=list)  # OpenAI's deltas of tool calls
    logprobs: list[Any] = field(default_factory=list)
    finish: str | None = None


def chat_piece(found: Found) -> Piece:
    """Of OpenAI's chat completions, streamed or whole."""
    choices = found.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    said = choice.get("delta") or choice.get("message") or {}
    said = said if isinstance(said, dict) else {}
    listed = choice.get("logprobs")
    return Piece(
        _text(said.get("content")),
        _text(said.get("reasoning_content")) or _text(said.get("reasoning")),
        _list(said.get("tool_calls")),
        _list(listed.get("content")) if isinstance(listed, dict) else [],
        _text(choice.get("finish_reason")) or None,
    )


def plain_piece(found: Found) -> Piece:
    """Of llama.cpp's own completions, streamed or whole."""
    finish = None
    if found.get("stop") is True:
        finish = "length" if found.get("stop_type") == "limit" else "stop"
    return Piece(_text(found.get("content")), logprobs=_list(found.get("completion_probabilities")), finish=finish)


class Answer:
    """One answer; the gateway feeds it. `chat`: in the shape of `/api/chat`, else of `/api/generate`."""

    kind = LINES

    def __init__(
        self,
        model: str,
        times: Times,
        load_ms: float,
        read: Callable[[Found], Piece],
        *,
        chat: bool,
        tops: int = 0,
        remember: list[dict[str, Any]] | None = None,
    ) -> None:
        self._model, self._times, self._load_ms, self._read = model, times, load_ms, read
        self._chat, self._tops, self._remember = chat, tops, remember
        self._calls: dict[int, dict[str, str]] = {}
        self._said: list[str] = []
        self._finish: str | None = None
        self._timings: Found = {}
        self._usage: Found = {}
        self._failed = False

    def events(self, whole: bytes) -> bytes:
        return b"".join(self._line(found) for found in payloads(whole))

    def end(self, rest: bytes) -> bytes:
        last = self.events(rest + b"\n\n") if rest.strip() else b""
        if self._failed:
            return last
        if self._finish is None:
            return last + line({"error": "the engine ended its answer before it was whole"})
        calls = self._tool_calls()
        if calls:
            last += line(self._object(Piece(), calls))
        return last + line(self._final(Piece()))

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        if status >= 400:
            return engine_error(status, body)
        found = _decoded(body)
        piece = self._take(found)
        return 200, dumped(self._final(piece, self._tool_calls()))

    def _line(self, found: Found) -> bytes:
        if self._failed:
            return b""
        if said := said_in(found):
            self._failed = True
            return line({"error": said})
        piece = self._take(found)
        return line(self._object(piece)) if piece.text or piece.thinking or piece.logprobs else b""

    def _take(self, found: Found) -> Piece:
        piece = self._read(found)
        for each in piece.calls:
            self._add_call(each)
        if self._remember is not None:
            self._said.append(piece.text)
        self._finish = piece.finish or self._finish
        if isinstance(timings := found.get("timings"), dict):
            self._timings = timings
        if isinstance(usage := found.get("usage"), dict):
            self._usage = usage
        return piece

    def _add_call(self, delta: Any) -> None:
        if not isinstance(delta, dict):
            return
        index = delta.get("index")
        index = index if isinstance(index, int) else len(self._calls)
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        call["id"] = call["id"] or _text(delta.get("id"))
        call["name"] = call["name"] or _text(function.get("name"))
        call["arguments"] += _text(function.get("arguments"))

    def _tool_calls(self) -> list[dict[str, Any]]:
        """The calls that are whole. One that the token limit cut is left out: `done_reason` says so.

        Raises EngineError for one that is no JSON without having been cut.
        """
        found = []
        for index, call in sorted(self._calls.items()):
            try:
                arguments = json.loads(call["arguments"] or "{}")
            except (ValueError, RecursionError):
                arguments = None
            if isinstance(arguments, dict):
                function = {"index": index, "name": call["name"], "arguments": arguments}
                found.append({"id": call["id"] or f"call_{index}", "function": function})
            elif self._finish != "length":
                raise EngineError(
                    f"the model called {call['name'] or 'a tool'} with arguments that are no JSON object",
                    hint="ask again, or use a model that is made for tools",
                )
        return found

    def _object(self, piece: Piece, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        made: dict[str, Any] = {"model": self._model, "created_at": moment(self._times.wall())}
        if self._chat:
            message: dict[str, Any] = {"role": "assistant", "content": piece.text}
            if piece.thinking:
                message["thinking"] = piece.thinking
            if calls:
                message["tool_calls"] = calls
            made["message"] = message
        else:
            made["response"] = piece.text
            if piece.thinking:
                made["thinking"] = piece.thinking
            if calls:
                made["tool_calls"] = calls
        made["done"] = False
        if piece.logprobs:
            made["logprobs"] = [_logprob(each, self._tops) for each in piece.logprobs if isinstance(each, dict)]
        return made

    def _final(self, piece: Piece, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        made = self._object(piece, calls)
        made["done"] = True
        made["done_reason"] = "length" if self._finish == "length" else "stop"
        if self._remember is not None:
            made["context"] = remembered([*self._remember, {"role": "assistant", "content": "".join(self._said)}])
        made.update(self._metrics())
        return made

    def _metrics(self) -> dict[str, int]:
        """Counts and durations as the engine took them. What of the prompt it still knew counts as evaluated."""
        timings, usage = self._timings, self._usage
        prompt = _count(timings.get("prompt_n")) + _count(timings.get("cache_n"))
        return {
            "total_duration": nanoseconds(self._times.elapsed_s() * 1000),
            "load_duration": nanoseconds(self._load_ms),
            "prompt_eval_count": prompt or _count(usage.get("prompt_tokens")),
            "prompt_eval_duration": nanoseconds(timings.get("prompt_ms")),
            "eval_count": _count(timings.get("predicted_n")) or _count(usage.get("completion_tokens")),
            "eval_duration": nanoseconds(timings.get("predicted_ms")),
        }


class Loaded:
    """The answer to a request that only loads a model, or has it unloaded."""

    kind = LINES

    def __init__(self, model: str, times: Times, load_ms: float, *, chat: bool, reason: str) -> None:
        self._made = loaded(model, times, chat=chat, reason=reason)
        self._made["total_duration"] = nanoseconds(times.elapsed_s() * 1000)
        self._made["load_duration"] = nanoseconds(load_ms)

    def events(self, whole: bytes) -> bytes:
        return b""

    def end(self, rest: bytes) -> bytes:
        return line(self._made)

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        return engine_error(status, body) if status >= 400 else (200, dumped(self._made))


def loaded(model: str, times: Times, *, chat: bool, reason: str) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    return {"model": model, "created_at": moment(times.wall()), **said, "done": True, "done_reason": reason}


def rendered(model: str, times: Times, text: str) -> dict[str, Any]:
    """The answer to a request that only wants to see its prompt."""
    made = {"model": model, "created_at": moment(times.wall())}
    return {**made, "_debug_info": {"rendered_template": text}}


def payloads(whole: bytes) -> Iterator[Found]:
    """The JSON objects in whole server-sent events. Raises EngineError for what is none."""
    data: list[bytes] = []
    for raw in [*whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""]:
        if raw.startswith((b"data:", b"error:")):
            data.append(raw.partition(b":")[2].removeprefix(b" "))
        elif not raw and data:
            text, data = b"\n".join(data), []
            if text.strip() != b"[DONE]":
                yield _decoded(text)


def _decoded(data: bytes) -> Found:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise EngineError("the engine's answer is no JSON", hint="see its log: corral logs MODEL") from exc
    if not isinstance(found, dict):
        raise EngineError("the engine's answer is no JSON object", hint="see its log: corral logs MODEL")
    return found


def _logprob(given: Found, tops: int) -> dict[str, Any]:
    made = {name: given.get(name) for name in ("token", "logprob", "bytes")}
    if tops:
        made["top_logprobs"] = [
            {name: each.get(name) for name in ("token", "logprob", "bytes")}
            for each in _list(given.get("top_logprobs"))[:tops]
            if isinstance(each, dict)
        ]
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53 else 0
