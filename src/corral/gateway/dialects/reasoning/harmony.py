"""gpt-oss's Harmony format: channels told apart, headers taken out, malformed ones made the best of. Pure.

A message is `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>`; a tool
call has `to=functions.NAME` in its header. Markers count at the beginning of a message, in thoughts, and where one
message follows another; in what is said to the user they may be an example, and inside a code fence they always are.
"""

from __future__ import annotations

import re
from typing import Final

from corral.gateway.dialects.reasoning.tags import Cutter, Piece, joined

START, END, CHANNEL, MESSAGE = "<|start|>", "<|end|>", "<|channel|>", "<|message|>"
RETURN, CALL, CONSTRAIN, FENCE = "<|return|>", "<|call|>", "<|constrain|>", "```"
_MARKERS: Final = (START, END, CHANNEL, MESSAGE, RETURN, CALL, CONSTRAIN, FENCE)
_ENDS: Final = (END, RETURN, CALL)
_HEADER_MAX = 200  # characters; what is longer is no header
_CHANNELS = re.compile(r"analysis|commentary|final")
_CHANNEL_NAMES = ("analysis", "commentary", "final")
_RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")
_LEADING = re.compile(r"\s*(?:assistant\s*)?(?:(?:analysis|commentary|final)\b)?[\s?]*")

# Where the markers were dropped as special tokens and their words kept: "analysisLet me see…assistantfinalIt is 4".
_WORD_THOUGHT = re.compile(r"(?:assistant)?analysis(?=[^\W_]|[\"'(\[*])")
_WORD_SAID = re.compile(r"assistant(?:final|commentary)")
_WORD_FIRST = re.compile(r"assistant(?:final|commentary)|final(?=[^\W_a-z]|[\"'(\[*])")
_WORDS = ("analysis", "assistantanalysis", "assistantfinal", "assistantcommentary", "final", "commentary")
_WORDS_BEGUN = {word[:size] for word in ("assistantfinal", "assistantcommentary") for size in range(1, len(word))}

_NEXT = re.compile(r"(?:<\|(?:end|return|call)\|>\s*)+(<\|start\|>|<\|channel\|>)")
_DONE = re.compile(r"(?:<\|(?:end|return|call)\|>\s*)+")


class Harmony:
    """The cleaner of one message."""

    signs = (b"<", b"`")

    def __init__(self) -> None:
        self._cutter = Cutter(_MARKERS)
        self._state = "start"  # start | header | text | think | words | call
        self._head = ""  # what is held: the beginning of a message, or its header
        self._doubt = ""  # in what is said: markers that may end it, and what follows them
        self._last = ""  # the newest piece of the doubt
        self._strip = False  # white space before what comes belongs to the markers
        self._fenced = False
        self._said = False  # something was said to the user
        self._gap = False  # and another message began since
        self._out: list[Piece] = []

    @property
    def plain(self) -> bool:
        waits = self._doubt or self._strip or self._gap or self._cutter.held
        return self._state == "text" and self._said and not waits

    def feed(self, text: str) -> list[Piece]:
        for marker, piece in self._cutter.feed(text):
            self._take(marker, piece)
        return self._taken()

    def end(self) -> list[Piece]:
        if rest := self._cutter.end():
            self._take(False, rest)
        if self._state == "start":
            self._say("text", self._head)
        elif self._state == "header":
            self._malformed()
        elif self._state == "words":
            self._say("think", self._head)
        self._head = self._doubt = ""  # what is in doubt at the end were markers
        self._state = "text"
        return self._taken()

    def _taken(self) -> list[Piece]:
        out, self._out = self._out, []
        return joined(out)

    def _say(self, kind: str, text: str) -> None:
        if self._strip and kind == "text":
            text = text.lstrip()
        if text:
            if kind == "text":
                text = f"\n\n{text}" if self._gap else text
                self._strip, self._gap, self._said = False, False, True
            self._out.append(Piece(kind, text))  # type: ignore[arg-type]

    def _take(self, marker: bool, piece: str) -> None:
        getattr(self, f"_in_{self._state}")(marker, piece)

    # The beginning of a message.

    def _in_start(self, marker: bool, piece: str) -> None:
        if not marker:
            self._head += piece
            self._decide()
        elif piece in (START, CHANNEL):
            self._open(self._head)
        elif piece == MESSAGE:
            self._body(self._head)
        elif piece == FENCE or self._head.strip():
            self._settle()
            self._in_text(True, piece)

    def _open(self, before: str) -> None:
        """A header begins; `before` is what stood in front of it, mere words of another header perhaps."""
        if before.strip() and not any(word.startswith(before.strip()) for word in _WORDS):
            self._say("text", before)
        self._state, self._head = "header", ""

    def _decide(self) -> None:
        begun = self._head.lstrip()
        if not begun or any(word.startswith(begun) for word in _WORDS):
            return
        if (said := _WORD_FIRST.match(begun)) is not None:
            self._head = begun[said.end() :]
            self._settle()
        elif (thought := _WORD_THOUGHT.match(begun)) is not None:
            rest, self._head, self._state = begun[thought.end() :], "", "words"
            self._in_words(False, rest)
        else:
            self._settle()

    def _settle(self) -> None:
        """No header: what is held was said."""
        head, self._head, self._state = self._head, "", "text"
        self._say("text", head)

    # A header.

    def _in_header(self, marker: bool, piece: str) -> None:
        if not marker:
            self._head += piece
            if len(self._head) > _HEADER_MAX:
                self._malformed()
        elif piece == MESSAGE:
            self._body(self._head)
        elif piece in (CHANNEL, CONSTRAIN):
            self._head += " "
        elif piece == START:
            self._head = ""
        elif piece in _ENDS:
            self._malformed()
            self._begin()
        else:
            self._malformed()
            self._in_text(True, piece)

    def _malformed(self) -> None:
        """A header without a message: what is more than its own words was meant for the user."""
        head, self._head, self._state = self._head, "", "text"
        text = head[_LEADING.match(head).end() :]  # type: ignore[union-attr]
        if not any(name.startswith(text.strip()) for name in (*_CHANNEL_NAMES, "assistant")):
            self._say("text", text)

    def _body(self, head: str) -> None:
        """The message of the header `head` begins."""
        self._head, self._strip = "", False
        if (called := _RECIPIENT.search(head)) is not None:
            self._state = "call"
            self._out.append(Piece("call", called[1]))
            return
        channels = _CHANNELS.findall(head)
        self._state = "think" if channels and channels[-1] == "analysis" else "text"

    # What is said.

    def _in_text(self, marker: bool, piece: str) -> None:
        if self._doubt:
            self._doubt += piece
            self._last = piece
            self._resolve()
        elif marker and piece == FENCE:
            self._fenced = not self._fenced
            self._say("text", piece)
        elif marker and not self._fenced and piece not in (MESSAGE, CONSTRAIN):
            self._doubt = self._last = piece
        else:
            self._say("text", piece)

    def _resolve(self) -> None:
        """Whether the markers in doubt end what was said, are a part of it, or cannot be told from each other yet."""
        doubt = self._doubt
        if _DONE.fullmatch(doubt):
            return
        if (following := _NEXT.fullmatch(doubt)) is not None:
            self._begin()
            self._in_start(True, following[1])
            return
        for opener, words in ((START, ("assistant",)), (CHANNEL, _CHANNEL_NAMES)):
            if doubt.startswith(opener) and self._last not in _MARKERS:
                rest = doubt[len(opener) :].lstrip()
                if any(word.startswith(rest) for word in words if len(rest) < len(word)):
                    return
                if rest.startswith(words):
                    self._begin()
                    self._in_start(True, opener)
                    self._in_header(False, rest)
                    return
        said, again = doubt[: len(doubt) - len(self._last)], self._last
        self._doubt = self._last = ""
        self._say("text", said)
        self._in_text(again in _MARKERS, again)

    def _begin(self) -> None:
        """Another message begins."""
        self._state, self._head, self._doubt, self._last = "start", "", "", ""
        self._strip = self._fenced = False
        self._gap = self._said

    # What is thought, and what is for a tool.

    def _in_think(self, marker: bool, piece: str) -> None:
        if marker and piece in (*_ENDS, START, CHANNEL):
            self._begin()
            self._strip = True
            self._in_start(True, piece)
        elif not marker or piece == FENCE:
            self._say("think", piece)

    def _in_words(self, marker: bool, piece: str) -> None:
        if marker and piece != FENCE:
            self._say("think", self._head)
            self._head = ""
            self._in_think(True, piece)
            return
        text, self._head = self._head + piece, ""
        if (said := _WORD_SAID.search(text)) is not None:
            self._say("think", text[: said.start()])
            self._state, self._strip = "text", True
            self._in_text(False, text[said.end() :])
            return
        for size in range(min(len("assistantcommentary") - 1, len(text)), 0, -1):
            if text[-size:] in _WORDS_BEGUN:
                text, self._head = text[:-size], text[-size:]
                break
        self._say("think", text)

    def _in_call(self, marker: bool, piece: str) -> None:
        if marker and piece in (*_ENDS, START, CHANNEL):
            self._begin()
            self._strip = True
            self._in_start(True, piece)
        elif not marker or piece == FENCE:
            self._say("args", piece)
