"""`Sent`: what a client has of a stream, as text, so that another engine can go on from it. Pure.

Events are kept as they came, and read only when there are many of them, or when they are wanted: mostly they never are.
Sources: OpenAI's chunks of chats and completions, and llama.cpp's own of `/completion`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from corral.errors import CallerError
from corral.gateway.dialects.chat import datas, parsed
from corral.gateway.http.chunks import Chunks

HELD_BYTES = 16 << 10
"""Of events that are not read yet."""

MOST_LETTERS = 4 << 20
"""A text that is longer is not kept: nothing can go on from it."""

_STRING = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_PLAIN = (re.compile(rb'"delta":\{"content":' + _STRING + rb"\}"), re.compile(rb'\{"text":' + _STRING))


class Sent:
    """Give it what went out with `keep`; read the rest after `read`."""

    def __init__(self, *, framed: bool = False) -> None:
        """`framed`: the events come in chunks of HTTP."""
        self.text = self.thought = ""
        self.tokens = 0  # events that said something: llama.cpp sends one for each token
        self.head: dict[str, Any] = {}  # what all events of the answer have in common
        self.finished = False  # the last word was said: why it ended
        self.whole = True  # nothing is missing, and it was text alone
        self._framed = framed
        self._held: list[bytes] = []
        self._size = 0

    def keep(self, events: bytes) -> None:
        """Whole events that the client has got."""
        self._held.append(events)
        self._size += len(events)
        if self._size > HELD_BYTES:
            self.read()

    def unframed(self) -> None:
        """What comes from now on is in no chunks."""
        self.read()
        self._framed = False

    def read(self) -> Sent:
        """Everything below is up to date afterwards. Never raises: an engine may send anything."""
        events = b"".join(self._held)
        self._held.clear()
        self._size = 0
        if not events:
            return self
        framed = self._framed
        if not self.head:
            # The first says what all have in common; what follows may be plain. Of chunks, the first that end an event.
            last = b"\n\n\r\n" if framed else b"\n\n"
            if (end := events.find(last)) >= 0:
                end += len(last)
                self._take_all(_without_frames(events[:end]) if framed else events[:end])
                events = events[end:]
        if not (self.head and self._all_plain(events)):
            self._take_all(_without_frames(events) if framed else events)
        if len(self.text) + len(self.thought) > MOST_LETTERS:
            self.text = self.thought = ""
            self.whole = False
        return self

    def _all_plain(self, events: bytes) -> bool:
        """Takes events that are nothing but a piece of text each, all at once."""
        if self._framed and events.count(b"\r\n") != 2 * events.count(b"\n\n\r\n"):
            return False  # not every frame ends where an event does
        for pattern in _PLAIN:
            found = pattern.findall(events)
            if not found:
                continue
            if not len(found) == events.count(b"data:") == events.count(b'"index":0'):
                return False
            if b'"finish_reason":"' in events or b'"tool_calls"' in events:
                return False
            try:
                text = json.loads(b'"%b"' % b"".join(found))
            except ValueError:
                return False
            self._add(text, sum(map(bool, found)))
            return True
        return False

    def _add(self, text: str, tokens: int) -> None:
        if self.whole:
            self.text += text
        self.tokens += tokens

    def _take_all(self, events: bytes) -> None:
        for data in datas(events):
            self._take(data)

    def _take(self, data: bytes) -> None:
        chunk = parsed(data)
        if chunk is None:
            self.finished = self.finished or data == b"[DONE]"
            return
        if "error" in chunk:
            self.finished = True
            return
        self.head = self.head or {
            key: chunk[key] for key in ("id", "created", "model", "system_fingerprint") if key in chunk
        }
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            self._take_native(chunk)
            return
        for choice in choices:
            self._choice(choice if isinstance(choice, dict) else {})

    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index", 0) != 0:
            self.whole = False
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        thought = delta.get("reasoning_content")
        text = delta.get("content", choice.get("text"))
        thought, text = (each if isinstance(each, str) else "" for each in (thought, text))
        if thought and self.whole:
            self.whole = not self.text  # thoughts behind the text: nobody could say where to go on
            self.thought += thought
        self._add(text, 1 if text or thought else 0)
        if delta.get("tool_calls") or delta.get("reasoning"):
            self.whole = False
            self.tokens += 1
        self.finished = self.finished or isinstance(choice.get("finish_reason"), str)

    def _take_native(self, chunk: dict[str, Any]) -> None:
        text = chunk.get("content")
        if isinstance(text, str):
            self._add(text, bool(text))
        self.finished = self.finished or chunk.get("stop") is True


def _without_frames(data: bytes) -> bytes:
    pieces: list[bytes] = []
    try:
        Chunks().feed(data, pieces)
    except CallerError:  # it went out, and so it was none
        return b""
    return b"".join(pieces)
