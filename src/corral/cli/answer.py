"""One answer, streamed to the terminal or gathered for JSON, with its rates."""

from __future__ import annotations

import sys
from contextlib import closing

from corral.cli.app import App
from corral.cli.session import Session
from corral.cli.spinner import Spinner
from corral.cli.terminal import printable, style
from corral.client import Client, Finished, Piece
from corral.lazy_dataclass import dataclass


@dataclass
class Answered:
    """What came; `finished` is None when the answer was stopped."""

    text: str = ""
    reasoning: str = ""
    finished: Finished | None = None


def stream(app: App, client: Client, session: Session, prompt: str, into: Answered) -> None:
    """Asks, and writes each piece as it comes. `into` is filled while it goes, so that what came is not lost.

    Raises the server's error; a KeyboardInterrupt closes the stream, which stops the engine, and goes on up.
    """
    out = _Writer(app)
    pieces = client.chat_stream(session.model, session.messages(prompt), **session.options())
    try:
        with closing(pieces), Spinner(f"waiting for {session.model}", quiet=app.json) as spinner:
            for piece in pieces:
                spinner.stop()
                if isinstance(piece, Finished):
                    into.finished = piece
                elif piece.reasoning:
                    into.reasoning += piece.text
                    out.write(piece)
                else:
                    into.text += piece.text
                    out.write(piece)
    finally:
        out.end()
    if app.json or into.finished is None:
        return
    if into.finished.finish_reason == "length":
        app.note("(cut: the limit of tokens is reached)")
    if session.verbose:
        show_rates(app, into.finished)


class _Writer:
    """Text to standard output, piece by piece; thoughts dim and only on a terminal, so that a pipe gets the answer."""

    def __init__(self, app: App) -> None:
        self._quiet = app.json
        self._terminal = sys.stdout.isatty()
        self._color = app.out_color
        self._thinking = False
        self._fresh = True  # at the start of a line

    def write(self, piece: Piece) -> None:
        if self._quiet or (piece.reasoning and not self._terminal):
            return
        if piece.reasoning and not self._thinking:
            self._put(style("Thinking …\n", "dim", on=self._color))
        elif self._thinking and not piece.reasoning:
            self._put(("" if self._fresh else "\n") + style("… done thinking.\n\n", "dim", on=self._color))
        self._thinking = piece.reasoning
        text = printable(piece.text) if self._terminal else piece.text
        self._put(style(text, "dim", on=self._color) if piece.reasoning else text)
        if text:
            self._fresh = text.endswith("\n")
        sys.stdout.flush()

    def _put(self, text: str) -> None:
        sys.stdout.write(text)

    def end(self) -> None:
        if not self._quiet and not self._fresh:
            self._put("\n")
            sys.stdout.flush()


def show_rates(app: App, done: Finished) -> None:
    """The rates of one answer, on standard error."""
    from corral.cli import words

    load = words.milliseconds(done.load_ms) if done.load_ms else "already loaded"
    for name, value in (
        ("load", load),
        ("first token", words.milliseconds(done.ttft_ms)),
        ("prompt", f"{words.number(done.prompt_tokens)} tokens, {words.rate(done.prompt_per_s)}"),
        ("answer", f"{words.number(done.completion_tokens)} tokens, {words.rate(done.completion_per_s)}"),
        ("total", words.milliseconds(done.total_ms)),
    ):
        app.note(f"{name:<12} {value}")
