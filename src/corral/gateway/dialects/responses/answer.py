"""A chat answer as a response, whole or as the events of its stream. Pure."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from corral.errors import CorralError
from corral.gateway.dialects.chat import ChatReader, Part
from corral.gateway.dialects.openai import error
from corral.gateway.dialects.responses.items import Item
from corral.gateway.dialects.usage import Usage
from corral.gateway.http import sse

Keep = Callable[[dict[str, Any]], Awaitable[None]]
_KINDS = {"text": "message", "think": "reasoning", "call": "function_call"}


class Answering:
    """One response: a `Translation`. `keep` is given the whole response before its last event goes out."""

    kind = b"text/event-stream; charset=utf-8"

    def __init__(self, shell: dict[str, Any], new_id: Callable[[str], str], keep: Keep | None = None) -> None:
        """`shell` is what the response has whatever comes: its id, its model, what was asked for."""
        self._shell, self._new_id, self._keep = shell, new_id, keep
        self._reader = ChatReader()
        self._output: list[Item] = []
        self._open: Item | None = None  # the item that grows
        self._call = -1  # which call it is
        self._number = 0
        self._began = False
        self._reason = ""
        self._whole: dict[str, Any] | None = None

    async def keep(self) -> None:
        if self._keep is not None and self._whole is not None:
            await self._keep(self._whole)

    # A stream.

    def events(self, whole: bytes) -> bytes:
        parts = self._reader.events(whole)
        made = [] if self._began else self._begin()
        for part in parts:
            made += self._part(part)
        return b"".join(made)

    def end(self, rest: bytes) -> bytes:
        made = [] if self._began else self._begin()
        made += self._close()
        self._whole = self._response()
        kind = "response.completed" if self._whole["status"] == "completed" else "response.incomplete"
        return b"".join([*made, self._event(kind, response=self._whole)])

    def _begin(self) -> list[bytes]:
        self._began = True
        shell = {**self._shell, "status": "in_progress", "output": [], "usage": None}
        return [self._event(kind, response=shell) for kind in ("response.created", "response.in_progress")]

    def _part(self, part: Part) -> list[bytes]:
        if part.kind == "finish":
            self._reason = part.text
            return []
        if part.kind == "args":
            return self._arguments(part)
        made: list[bytes] = []
        if part.kind == "call" or self._open is None or self._open["type"] != _KINDS[part.kind]:
            if part.kind == "text" and not part.text.strip():
                return []  # white space that stood beside tags
            made = [*self._close(), *self._start(part)]
        if part.kind == "call" or self._open is None:
            return made
        text = part.text if self._open["content"][0]["text"] or part.kind == "think" else part.text.lstrip()
        self._open["content"][0]["text"] += text
        kind = "output_text" if part.kind == "text" else "reasoning_text"
        more: dict[str, Any] = {"logprobs": []} if part.kind == "text" else {}
        made.append(self._event(f"response.{kind}.delta", **self._place(), content_index=0, delta=text, **more))
        return made

    def _start(self, part: Part) -> list[bytes]:
        """Opens the item that `part` begins."""
        if part.kind == "call":
            self._call = part.call
            call = {"arguments": "", "call_id": part.id or self._new_id("call"), "name": part.text}
            self._open = {"id": self._new_id("fc"), "type": "function_call", "status": "in_progress", **call}
            self._output.append(self._open)
            return [self._event("response.output_item.added", output_index=self._at, item=dict(self._open))]
        if part.kind == "text":
            content: Item = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._open = {"id": self._new_id("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
        else:
            content = {"type": "reasoning_text", "text": ""}
            self._open = {"id": self._new_id("rs"), "type": "reasoning", "status": "in_progress", "summary": []}
        added = self._event("response.output_item.added", output_index=self._at + 1, item={**self._open, "content": []})
        self._open["content"] = [content]
        self._output.append(self._open)
        return [
            added,
            self._event("response.content_part.added", **self._place(), content_index=0, part=dict(content)),
        ]

    def _arguments(self, part: Part) -> list[bytes]:
        if self._open is None or self._open["type"] != "function_call" or part.call != self._call:
            return []
        self._open["arguments"] += part.text
        return [self._event("response.function_call_arguments.delta", **self._place(), delta=part.text)]

    def _close(self) -> list[bytes]:
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = "completed" if self._reason != "length" else "incomplete"
        place = {"item_id": item["id"], "output_index": self._at}
        made = []
        if item["type"] == "function_call":
            said = {"arguments": item["arguments"], "name": item["name"]}
            made.append(self._event("response.function_call_arguments.done", **place, **said))
        else:
            part = item["content"][0]
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            more: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
            made.append(self._event(f"response.{kind}.done", **place, content_index=0, text=part["text"], **more))
            made.append(self._event("response.content_part.done", **place, content_index=0, part=part))
        made.append(self._event("response.output_item.done", output_index=self._at, item=item))
        return made

    @property
    def _at(self) -> int:
        return len(self._output) - 1

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": self._at}

    def _event(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **members}
        self._number += 1
        return sse.event(json.dumps(data, ensure_ascii=False), name=kind)

    # A plain answer.

    def body(self, status: int, body: bytes) -> tuple[int, bytes]:
        for part in self._reader.body(status, body):
            self._part(part)
        self._close()
        self._whole = self._response()
        return 200, json.dumps(self._whole, ensure_ascii=False).encode(errors="replace")

    def _response(self) -> dict[str, Any]:
        used = self._reader.usage or Usage(0, 0)
        cut = self._reason == "length"
        thought, said = self._sizes()
        return {
            **self._shell,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": {
                "input_tokens": used.prompt,
                "input_tokens_details": {"cached_tokens": used.cached},
                "output_tokens": used.completion,
                "output_tokens_details": {"reasoning_tokens": used.completion * thought // max(1, thought + said)},
                "total_tokens": used.prompt + used.completion,
            },
        }

    def _sizes(self) -> tuple[int, int]:
        """Characters thought and said: engines count both together, so how many tokens were thoughts is their share."""
        texts = [
            (item["type"], item["arguments"] if "arguments" in item else item["content"][0]["text"])
            for item in self._output
        ]
        thought = sum(len(text) for kind, text in texts if kind == "reasoning")
        return thought, sum(len(text) for _, text in texts) - thought


def failed(exc: CorralError) -> bytes:
    """The last event of a stream that broke."""
    inner = error(exc)["error"]
    data = {"type": "error", "code": inner["code"], "message": inner["message"], "param": inner["param"]}
    return sse.event(json.dumps({**data, "sequence_number": 0}, default=str), name="error")
