"""`corral run`: one question, or a chat."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument

STDIN_NOTE_S = 3.0
"""How long standard input may be silent, beside a prompt, before the user is told what is being waited for."""


@click.command("run")
@model_argument()
@click.argument("prompt", nargs=-1)
@click.option("--system", metavar="TEXT", help="What the model is to be.")
@click.option("--temperature", type=click.FloatRange(0), metavar="T", help="0 = always the likeliest word.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="End the answer after so many tokens.")
@click.option("--format", "form", type=click.Choice(["json"]), help="Have the answer be one JSON value.")
@click.option("--no-think", is_flag=True, help="Ask the model not to think before it answers.")
@click.option("--verbose", "-v", is_flag=True, help="Show load time, time to first token and rates.")
@click.pass_obj
def command(
    app: App,
    model: str,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    form: str | None,
    no_think: bool,
    verbose: bool,
) -> None:
    """Ask a model one question, or chat with it when no question is given.

    The question is the PROMPT, or what is piped in, or both: first the prompt, then the piped text.
    Starts a server first when none is up; it ends when it has been idle for 5 minutes.

    \b
    Examples:
      corral run demo "What is Corral?"
      git diff | corral run coder "Review this change."
      corral run demo
    """
    question = _question(app, " ".join(prompt))
    if question is None and (app.json or not sys.stdout.isatty()):
        raise click.UsageError("a chat needs a terminal; give a prompt for one answer", click.get_current_context())

    from corral.cli.own_server import ensure
    from corral.cli.session import Session
    from corral.cli.spinner import Spinner

    parameters: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    session = Session(
        model,
        system=system,
        parameters={name: value for name, value in parameters.items() if value is not None},
        json_format=form == "json",
        think=not no_think,
        verbose=verbose,
    )
    client = ensure(app)
    if question is not None:
        _once(app, session, question)
        return
    from corral.cli.repl import chat

    with Spinner(f"loading {model}"):
        client.start(model)  # a wrong name or a bad file shows now, not after the first question
    chat(app, client, session, lambda: ensure(app))


def _once(app: App, session: Any, question: str) -> None:
    from corral.api import dump
    from corral.cli.answer import Answered, stream

    answered = Answered()
    stream(app, app.client(), session, question, answered)
    if app.json:
        figures = dump(answered.finished)
        app.print_json({"model": session.model, "text": answered.text, "reasoning": answered.reasoning, **figures})


def _question(app: App, prompt: str) -> str | None:
    """The prompt and what is piped in; None when there is neither, and so a chat is meant."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt or None
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return prompt or None
    if prompt and not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return prompt
    piped = _read(app, told=not prompt).strip()
    whole = "\n\n".join(part for part in (prompt, piped) if part)
    if not whole:
        raise click.UsageError("standard input is empty, and there is no prompt", click.get_current_context())
    return whole


def _read(app: App, *, told: bool) -> str:
    import select

    if not told and not select.select([sys.stdin], [], [], STDIN_NOTE_S)[0]:
        app.note("Reading standard input for the rest of the question; </dev/null leaves it out.")
    return sys.stdin.buffer.read().decode("utf-8", "replace")
