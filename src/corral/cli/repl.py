"""The chat in a terminal: reading lines, stopping answers, keeping the history."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from corral.cli.answer import Answered, stream
from corral.cli.app import App
from corral.cli.session import Draft, Session
from corral.client import Client
from corral.errors import CorralError, Unreachable

HISTORY_LINES = 1000


def chat(app: App, client: Client, session: Session, again: Callable[[], Client]) -> None:
    """Reads and answers until `/bye` or Ctrl-D. `again` finds the server anew when it has gone meanwhile."""
    app.say("Chat away; /? shows the commands, Ctrl-D leaves.")
    draft = Draft()
    with _history(app.paths.state_dir / "history"):
        while True:
            try:
                message = draft.take(input("... " if draft.open else ">>> "))
            except EOFError:
                app.say()
                return
            except KeyboardInterrupt:
                app.say("" if draft.open else "\nCtrl-D or /bye leaves.")
                draft.drop()
                continue
            if message is None or not message.strip():
                continue
            if message.startswith("/"):
                reply = session.command(message)
                if reply.leave:
                    return
                if reply.text:
                    app.say(reply.text)
                if reply.show_info:
                    _guarded(app, partial(show_info, app, client, session.model))
                continue
            client = _turn(app, client, session, message.strip(), again)


def _turn(app: App, client: Client, session: Session, prompt: str, again: Callable[[], Client]) -> Client:
    answered = Answered()
    try:
        try:
            stream(app, client, session, prompt, answered)
        except Unreachable:
            if answered.text or answered.reasoning:
                raise
            client = again()  # a server of one's own ends when idle, and a person may think for longer
            stream(app, client, session, prompt, answered)
    except KeyboardInterrupt:
        app.note("(stopped)")
    except CorralError as error:
        app.error(error)
    session.answered(prompt, answered.text)
    app.say()
    return client


def _guarded(app: App, action: Callable[[], None]) -> None:
    try:
        action()
    except KeyboardInterrupt:
        app.say()
    except CorralError as error:
        app.error(error)


def show_info(app: App, client: Client, name: str) -> None:
    """What the server knows of the model."""
    from corral.cli import words

    found = next((m for m in client.models() if name == m.name or name in m.aliases), None)
    if found is None:
        app.say(f"The server does not list {name}.")
        return
    context = "the model's own" if found.context is None else f"{words.number(found.context)} tokens"
    app.print_pairs(
        [
            ("name", found.name),
            ("aliases", ", ".join(found.aliases) or "-"),
            ("file", found.source),
            ("size", words.size(found.size_bytes)),
            ("engine", f"{found.engine} in a {found.runner}"),
            ("state", found.state),
            ("context", f"{context}, {found.parallel} at a time"),
            ("idle stop", words.idle(found.idle_timeout_s)),
        ]
    )


@contextmanager
def _history(file: Path) -> Iterator[None]:
    """Line editing with the earlier sessions' lines; the file is this user's alone. Without readline: none of it."""
    try:
        import readline
    except ImportError:  # a Python built without it still chats
        yield
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
        readline.set_history_length(HISTORY_LINES)
        readline.clear_history()
        readline.read_history_file(file)
    except OSError as error:
        sys.stderr.write(f"The history in {file} is not kept: {error.strerror}\n")
        yield
        return
    try:
        yield
    finally:
        try:
            readline.write_history_file(file)
        except OSError as error:
            sys.stderr.write(f"The history in {file} is not kept: {error.strerror}\n")
