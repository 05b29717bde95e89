"""Several answers to one chat request (`n`), made one after the other, as the choices of one answer. Pure.

Source: OpenAI's chat completions: choices differ by `index`; the prompt counts once and what was written is added up.
"""

from __future__ import annotations

import json
from typing import Any, Final

from corral.errors import CallerError
from corral.gateway.dialects.chat import datas, parsed
from corral.gateway.dialects.usage import Usage, said

MOST: Final = 128
"""OpenAI's own bound."""

_SHARED: Final = ("id", "created", "model", "system_fingerprint")


def wanted(request: dict[str, Any], at_once: int) -> int:
    """How many answers have to be asked for singly, as the engine makes `at_once` of them; 1: none. Raises
    CallerError."""
    number = request.get("n")
    if not isinstance(number, int) or number <= max(1, at_once):
        return 1
    if number > MOST:
        raise CallerError(f"n is {number}, and {MOST} answers are the most", hint="ask more than once", param="n")
    return number


def single(request: dict[str, Any], index: int) -> dict[str, Any]:
    """The request for one of them. With a seed each has one of its own, or they would all be the same."""
    one = {key: value for key, value in request.items() if key != "n"}
    seed = request.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
        one["seed"] = seed + index
    if request.get("stream") is True:
        options = request.get("stream_options")
        one["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return one


class Several:
    """The answers so far. `index` is that of the one which is being made."""

    def __init__(self, request: dict[str, Any]) -> None:
        options = request.get("stream_options")
        self._tells = isinstance(options, dict) and options.get("include_usage") is True
        self._head: dict[str, Any] = {}  # what all events have in common
        self._body: dict[str, Any] | None = None
        self._tokens = 0  # of the present answer, as far as events tell
        self.index = 0
        self.failed = False  # a stream said that it could not go on
        self.usage: Usage | None = None
        self.unsaid = 0  # pieces of answers, as long as no engine has said anything

    def events(self, whole: bytes) -> bytes:
        """Whole events of one answer's stream as they go out; empty when nothing of them does."""
        out = [b":%b\n\n" % each[1:] for each in whole.split(b"\n\n") if each.startswith(b":")]
        for data in datas(whole):
            chunk = parsed(data)
            if chunk is None:
                continue  # [DONE]: the others are to come
            self.failed = self.failed or "error" in chunk
            if "error" not in chunk and not self._shaped(chunk):
                continue
            out.append(b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode())
        return b"".join(out)

    def _shaped(self, chunk: dict[str, Any]) -> bool:
        """Makes one chunk part of the whole; false when it says nothing but counts."""
        self._head = self._head or {key: chunk[key] for key in _SHARED if key in chunk}
        chunk.update({key: value for key, value in self._head.items() if key in chunk})
        for name in ("usage", "timings"):
            chunk.pop(name, None)
        choices = _choices(chunk)
        for choice in choices:
            choice["index"] = self.index
        self._tokens += bool(choices)
        return bool(choices)

    def body(self, body: bytes) -> None:
        """Takes one whole answer."""
        found = parsed(body) or {}
        choices = [{**each, "index": self.index} for each in _choices(found)]
        if self._body is None:
            self._body = {**{key: value for key, value in found.items() if key != "timings"}, "choices": []}
        self._body["choices"].extend(choices)

    def ended(self, usage: Usage | None, pieces: int) -> None:
        """The present answer is over. `usage` is what its engine said; `pieces` what came of it, if it said nothing."""
        written = usage.completion if usage is not None else max(pieces, self._tokens)
        before = self.usage
        if before is not None:
            self.usage = before._replace(completion=before.completion + written)
        elif usage is not None:
            self.usage = usage._replace(completion=self.unsaid + written)
        else:
            self.unsaid += written
        self._tokens = 0

    def whole(self) -> bytes:
        """All answers as one body."""
        counted = {} if self.usage is None else parsed(said(self.usage)) or {}
        return json.dumps({**(self._body or {}), **counted}).encode()

    def last(self) -> bytes:
        """The last events of a stream of all of them."""
        if self.failed:
            return b""
        if not self._tells or self.usage is None:
            return b"data: [DONE]\n\n"
        kind = {"object": "chat.completion.chunk", "choices": []}
        chunk = {**self._head, **kind, **(parsed(said(self.usage)) or {})}
        return b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _choices(said: dict[str, Any]) -> list[dict[str, Any]]:
    found = said.get("choices")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
