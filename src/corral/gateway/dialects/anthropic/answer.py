"""A chat answer as Anthropic's message, whole or as the events of its stream. Pure."""

from __future__ import annotations

import json
from typing import Any

from corral.gateway.dialects.chat import ChatReader, Part, datas
from corral.gateway.dialects.usage import Usage
from corral.gateway.http import sse

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class Message:
    """One answer: a `Translation`. `thinks`: thoughts are shown. `prefill` is not a part of the answer."""

    kind = b"text/event-stream; charset=utf-8"

    def __init__(self, model: str, made: str, *, thinks: bool = False, prefill: str = "", single: bool = False) -> None:
        """`made` makes the message's id. `single`: of several calls only the first is shown."""
        self._model, self._id, self._thinks, self._prefill = model, f"msg_{made}", thinks, prefill
        self._single = single
        self._reader = ChatReader()
        self._blocks = 0
        self._open = ""  # the kind of the block that is open
        self._pinged = False
        self._began = False
        self._reason: str | None = None
        self._stop: str | None = None
        self._space = ""  # before the first text

    # A stream.

    def events(self, whole: bytes) -> bytes:
        made: list[bytes] = []
        for data in datas(whole):
            parts = self._shown(self._reader.event(data))
            made += self._begin()
            for part in parts:
                made += self._part(part)
        return b"".join(made)

    def _begin(self) -> list[bytes]:
        """The first event, with what the engine's first one said of the prompt."""
        if self._began:
            return []
        self._began = True
        ends = {"stop_reason": None, "stop_sequence": None}
        return [_event("message_start", message={**self._shell([]), **ends})]

    def end(self, rest: bytes) -> bytes:
        made = [*self._begin(), *self._close()]
        delta = {"stop_reason": self._reason or "end_turn", "stop_sequence": self._stop}
        return b"".join([*made, _event("message_delta", delta=delta, usage=self._usage()), _event("message_stop")])

    def _shown(self, parts: list[Part]) -> list[Part]:
        return [part for part in parts if not (self._single and part.call)]

    def _part(self, part: Part) -> list[bytes]:
        if part.kind == "think":
            if not self._thinks:
                return []
            return [*self._block("thinking", {"thinking": "", "signature": ""}), *self._delta(thinking=part.text)]
        if part.kind == "text":
            text = self._said(part.text)
            return [*self._block("text", {"text": ""}), *self._delta(text=text)] if text else []
        if part.kind == "call":
            tool = {"id": _tool_id(part.id, self._id, part.call), "name": part.text, "input": {}}
            return [*self._close(), *self._block("tool_use", tool)]
        if part.kind == "args":
            return self._delta(partial_json=part.text)
        self._finish(part)
        return []

    def _said(self, text: str) -> str:
        """White space before the first text belongs to the tags that stood there."""
        if self._open == "text":
            return text
        text, self._space = self._space + text, ""
        if not text.strip():
            self._space = text
            return ""
        return text.lstrip() if self._blocks else text

    def _block(self, kind: str, start: dict[str, Any]) -> list[bytes]:
        """Opens a block of `kind`, unless one is open."""
        if self._open == kind:
            return []
        made = self._close()
        self._open = kind
        made.append(_event("content_block_start", index=self._blocks, content_block={"type": kind, **start}))
        if not self._pinged:
            self._pinged = True
            made.append(_event("ping"))
        return made

    def _delta(self, **members: str) -> list[bytes]:
        kind = "input_json_delta" if "partial_json" in members else f"{next(iter(members))}_delta"
        return [_event("content_block_delta", index=self._blocks, delta={"type": kind, **members})]

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        made = []
        if self._open == "thinking":
            signed = {"type": "signature_delta", "signature": ""}
            made.append(_event("content_block_delta", index=self._blocks, delta=signed))
        made.append(_event("content_block_stop", index=self._blocks))
        self._open = ""
        self._blocks += 1
        return made

    # A plain answer.

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        blocks: list[dict[str, Any]] = []
        parts = self._shown(self._reader.body(status, body))
        thought, said = ("".join(part.text for part in parts if part.kind == kind) for kind in ("think", "text"))
        if thought and self._thinks:
            blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
        said = said.removeprefix(self._prefill)
        said = said.lstrip() if thought else said
        if said.strip() or (said and not any(part.kind == "call" for part in parts)):
            blocks.append({"type": "text", "text": said})
        for part in parts:
            if part.kind == "call":
                arguments = "".join(each.text for each in parts if each.kind == "args" and each.call == part.call)
                tool = {"id": _tool_id(part.id, self._id, part.call), "name": part.text, "input": _object(arguments)}
                blocks.append({"type": "tool_use", **tool})
            elif part.kind == "finish":
                self._finish(part)
        ends = {"stop_reason": self._reason, "stop_sequence": self._stop}
        return 200, json.dumps({**self._shell(blocks), **ends}, ensure_ascii=False).encode(errors="replace")

    def _finish(self, part: Part) -> None:
        self._reason = _REASONS.get(part.text, "end_turn")
        if part.id and self._reason == "end_turn":
            self._reason, self._stop = "stop_sequence", part.id

    def _shell(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        named = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        return {**named, "content": content, "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        used = self._reader.usage or Usage(0, 0)
        return {
            "input_tokens": used.prompt - used.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": used.cached,
            "output_tokens": used.completion,
        }


def _tool_id(given: str, made: str, call: int) -> str:
    return given if given.startswith("toolu_") else f"toolu_{given or f'{made[4:]}_{call}'}"


def _object(arguments: str) -> Any:
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _event(kind: str, **members: Any) -> bytes:
    return sse.event(json.dumps({"type": kind, **members}, ensure_ascii=False), name=kind)
