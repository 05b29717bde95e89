"""A cleaner put into an answer in OpenAI's chat shape: `Cleaned` is its `Translation`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from corral.errors import Unparsed
from corral.gateway.dialects import chat
from corral.gateway.dialects.reasoning.tags import Cleaner, Piece

_LATE = ("usage", "timings", "__verbose", "prompt_progress")
_INDEX = re.compile(rb'"index"\s*:\s*([^\s,}]+)')  # of a choice, or of a call
_KEYS = {"text": "content", "think": "reasoning_content"}


class _Choice:
    """One of the answer's choices."""

    def __init__(self, cleaner: Cleaner) -> None:
        self.cleaner = cleaner
        self.calls = 0

    def deltas(self, pieces: list[Piece], made: str) -> list[dict[str, Any]]:
        """`pieces` as deltas of OpenAI's; `made` makes the ids of calls."""
        found: list[dict[str, Any]] = []
        for piece in pieces:
            if piece.kind == "call":
                self.calls += 1
                function = {"name": piece.text, "arguments": ""}
                call = {"index": self.calls - 1, "id": f"call_{made}_{self.calls}", "type": "function"}
                found.append({"tool_calls": [{**call, "function": function}]})
            elif piece.kind == "args":
                found.append({"tool_calls": [{"index": self.calls - 1, "function": {"arguments": piece.text}}]})
            else:
                found.append({_KEYS[piece.kind]: piece.text})
        return found


class Cleaned:
    """OpenAI in, OpenAI out. What has nothing to be cleaned in it stays as it is, byte for byte.

    Raises Unparsed, as long as nothing was said, when the engine could not read what the model said.
    """

    kind = b"text/event-stream"

    def __init__(self, make: Callable[[], Cleaner], prefill: str = "") -> None:
        """`prefill`: what the request had the answer begin with. llama.cpp repeats it in plain answers."""
        self._make, self._prefill = make, prefill
        self._choices: dict[int, _Choice] = {}
        self._known: set[bytes] = set()  # their numbers as they are written
        self._first = b""  # events that say nothing yet: until something is said, the request can be asked anew
        self._said = False

    def events(self, whole: bytes) -> bytes:
        if self._said and self._plain(whole):
            return whole
        out = b""
        for data in chat.datas(whole):
            if (made := self._event(data)) and not self._said:
                made, self._first, self._said = self._first + made, b"", True
            out += made
        return out

    def end(self, rest: bytes) -> bytes:
        first, self._first = self._first, b""
        return first + rest

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        whole = chat.parsed(body)
        if status >= 400 or whole is None:
            if isinstance(error := chat.refusal(status, whole, body), Unparsed):
                raise error
            return status, body
        choices = whole.get("choices")
        changed = [self._whole(choice) for choice in (choices if isinstance(choices, list) else ())]
        return status, json.dumps(whole).encode() if any(changed) else body

    def _plain(self, whole: bytes) -> bool:
        return (
            0 in self._choices
            and b"\\u" not in whole
            and all(number in self._known for number in _INDEX.findall(whole))
            and all(
                each.cleaner.plain and not each.calls and not any(sign in whole for sign in each.cleaner.signs)
                for each in self._choices.values()
            )
        )

    def _choice(self, choice: dict[str, Any]) -> _Choice:
        index = choice.get("index", 0)
        index = index if isinstance(index, int) else 0
        if index not in self._choices:
            self._choices[index] = _Choice(self._make())
            self._known.add(b"%d" % index)
        return self._choices[index]

    def _event(self, data: bytes) -> bytes:
        """One event as it goes out; empty when nothing of it does, or not yet."""
        same = b"data: %b\n\n" % data
        chunk = chat.parsed(data)
        if chunk is None:
            return same
        if "error" in chunk:
            if not self._said and isinstance(error := chat.refusal(502, chunk, data), Unparsed):
                raise error
            return same
        choices = chunk.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            return same
        return self._one(chunk, choices[0], same)

    def _one(self, chunk: dict[str, Any], choice: dict[str, Any], same: bytes) -> bytes:
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        content, ends = delta.get("content"), isinstance(choice.get("finish_reason"), str)
        mine = self._choice(choice)
        pieces = mine.cleaner.feed(content) if isinstance(content, str) else []
        if ends:
            pieces = [*pieces, *mine.cleaner.end()]
        if not ends and not self._said and not pieces and not set(delta) - {"role", "content"}:
            self._first += b"" if content else same
            return b""
        alike = (not pieces and not content) or pieces == [Piece("text", content or "")]
        if alike and not (ends and mine.calls):
            return same
        early = {key: value for key, value in chunk.items() if key not in _LATE}
        kept = {key: value for key, value in delta.items() if key != "content" and value is not None}
        deltas = mine.deltas(pieces, str(chunk.get("id", "")).rpartition("-")[2][:16] or "0")
        if not ends:
            deltas = [{**kept, **deltas[0]}, *deltas[1:]] if deltas else [kept] if kept else []
            return b"".join(_event(early, {**choice, "delta": each}) for each in deltas)
        made = b"".join(_event(early, {**choice, "delta": each, "finish_reason": None}) for each in deltas)
        reason = "tool_calls" if mine.calls and choice["finish_reason"] == "stop" else choice["finish_reason"]
        return made + _event(chunk, {**choice, "delta": kept, "finish_reason": reason})

    def _whole(self, choice: object) -> bool:
        """Cleans the message of a plain answer in its place; whether there was anything to clean."""
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            return False
        content = message.get("content")
        if not isinstance(content, str) or not content:
            return False
        cleaner = self._make()
        pieces = [*cleaner.feed(content.removeprefix(self._prefill)), *cleaner.end()]
        said, thought = ("".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("text", "think"))
        calls: list[dict[str, Any]] = []
        for piece in pieces:
            if piece.kind == "call":
                function = {"name": piece.text, "arguments": ""}
                calls.append({"id": f"call_{len(calls) + 1}", "type": "function", "function": function})
            elif piece.kind == "args" and calls:
                calls[-1]["function"]["arguments"] += piece.text
        if said == content and not thought and not calls:
            return False
        message["content"] = said
        if thought:
            before = message.get("reasoning_content")
            message["reasoning_content"] = (before if isinstance(before, str) else "") + thought
        if calls:
            own = message.get("tool_calls")
            message["tool_calls"] = [*(own if isinstance(own, list) else ()), *calls]
            choice["finish_reason"] = "tool_calls"
        return True


def _event(chunk: dict[str, Any], choice: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps({**chunk, "choices": [choice]}).encode()
