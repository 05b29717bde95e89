"""Cutting text at markers, the same however it arrives in pieces. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol


class Piece(NamedTuple):
    """Some of what was said: to the user, to itself, or to a tool (`call` is its name, `args` a piece for it)."""

    kind: Literal["text", "think", "call", "args"]
    text: str


class Cleaner(Protocol):
    """One message, fed as it comes. However it is cut, the pieces of one kind in a row say the same together."""

    @property
    def plain(self) -> bool:
        """What is fed from now on comes out as it is, unless one of `signs` is in it."""
        ...

    @property
    def signs(self) -> tuple[bytes, ...]:
        """The first characters of what matters once it is plain."""
        ...

    def feed(self, text: str) -> list[Piece]: ...

    def end(self) -> list[Piece]:
        """What was held back, when the message is over."""
        ...


class Cutter:
    """Finds `markers` in a stream of text; what may be the beginning of one is held back."""

    def __init__(self, markers: Iterable[str]) -> None:
        longest_first = sorted(markers, key=len, reverse=True)
        self._whole = re.compile("|".join(re.escape(each) for each in longest_first))
        self._begun = {each[:size] for each in longest_first for size in range(1, len(each))}
        self._longest = len(longest_first[0])
        self.held = ""

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """Pairs of whether it is a marker, and it."""
        text, self.held = self.held + text, ""
        at = 0
        for match in self._whole.finditer(text):
            if text[at : match.start()]:
                yield False, text[at : match.start()]
            yield True, match[0]
            at = match.end()
        rest = text[at:]
        for size in range(min(self._longest - 1, len(rest)), 0, -1):
            if rest[-size:] in self._begun:
                self.held = rest[-size:]
                rest = rest[:-size]
                break
        if rest:
            yield False, rest

    def end(self) -> str:
        """What was held back and is no marker."""
        held, self.held = self.held, ""
        return held


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces` with neighbours of one kind put together; names of calls stay apart."""
    made: list[Piece] = []
    for piece in pieces:
        if made and made[-1].kind == piece.kind != "call":
            made[-1] = Piece(piece.kind, made[-1].text + piece.text)
        elif piece.text:
            made.append(piece)
    return made
