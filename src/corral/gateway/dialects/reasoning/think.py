"""Thoughts between tags: `<think>…</think>` and its relatives, at the beginning of a message only. Pure."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.reasoning.tags import Cutter, Piece, joined

PAIRS: Final = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "◁think▷": "◁/think▷",
    "<|channel>thought": "<channel|>",  # Gemma 4
}
_CLOSING: Final = frozenset(PAIRS.values())
_LONE = "<channel|>"  # which Gemma 4 leaves at the end


class Think:
    """The cleaner of one message. `opened`: the prompt ends with an opening tag, so that thoughts come first."""

    signs = (b"<",)

    def __init__(self, *, opened: bool = False) -> None:
        self._cutter = Cutter((*PAIRS, *_CLOSING))
        self._state = "think" if opened else "start"
        self._closing = _CLOSING if opened else frozenset[str]()
        self._opened = opened  # the model may say the tag once more
        self._space = ""  # before anything was said or thought
        self._lone = ""  # in doubt: it may be followed by the end
        self._strip = False

    @property
    def plain(self) -> bool:
        return self._state == "text" and not self._lone and not self._strip and not self._cutter.held

    def feed(self, text: str) -> list[Piece]:
        return joined(piece for marker, part in self._cutter.feed(text) for piece in self._take(marker, part))

    def end(self) -> list[Piece]:
        rest = self._cutter.end()
        pieces = self._take(False, rest) if rest else []
        if self._state == "start" and self._space and not self._strip:
            pieces.append(Piece("text", self._space))
        self._space = self._lone = ""
        self._state = "text"
        return joined(pieces)

    def _take(self, marker: bool, part: str) -> list[Piece]:
        if self._state == "think":
            if marker and part in self._closing:
                self._state, self._strip, self._space = "start", True, ""
                return []
            if self._opened and marker and part in PAIRS:
                self._opened = False
                return []
            self._opened = self._opened and not part.strip()
            return [Piece("think", part)]
        if self._state == "start":
            if not marker and not part.strip():
                self._space += part
                return []
            if marker and part in _CLOSING:  # of a thought that the prompt had begun and ended
                self._strip = True
                return []
            if marker:
                self._state, self._closing = "think", frozenset((PAIRS[part],))
                return []
            text = part.lstrip() if self._strip else self._space + part
            self._state, self._strip, self._space = "text", False, ""
            return [Piece("text", text)]
        if marker and part == _LONE:
            before, self._lone = self._lone, part
            return [Piece("text", before)] if before else []
        if self._lone and not part.strip():
            self._lone += part
            return []
        text, self._lone = self._lone + part, ""
        return [Piece("text", text)]
