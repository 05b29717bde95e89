"""`corral quantize`: a stored model with smaller weights, made of another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api_store import Remade


@click.command("quantize")
@click.argument("model", required=False)
@click.option("--to", metavar="TYPE", help="The type of the weights, such as Q4_K_M.")
@click.option("--tag", "-t", "name", metavar="REF", help="What to call it; without, MODEL's name with TYPE as its tag.")
@click.option("--imatrix", metavar="FILE", help="An importance matrix, which the smallest types need.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="How many threads; without, llama.cpp's own choice."
)
@click.option("--requantize", is_flag=True, help="Also take a model that is quantized already, and lose more.")
@click.option("--list", "list_", is_flag=True, help="Show the types there are.")
@click.pass_obj
def command(
    app: App,
    model: str | None,
    to: str | None,
    name: str | None,
    imatrix: str | None,
    threads: int | None,
    requantize: bool,
    list_: bool,
) -> None:
    """Make a stored model with smaller weights of MODEL: a stored GGUF model, or a GGUF file (of a split one the
    first). It is done by llama.cpp's own llama-quantize; template, licence and projector go along.

    \b
    Examples:
      corral quantize me/coder:bf16 --to Q4_K_M -t me/coder:q4
      corral quantize ./coder-f16.gguf --to Q8_0 -t me/coder:q8
      corral quantize --list
    """
    from corral.cli.own_server import ensure
    from corral.errors import CallerError

    if list_:
        _list(app)
        return
    if model is None or to is None:
        missing = "which model?" if model is None else "to which type?"
        raise CallerError(missing, hint="corral quantize MODEL --to Q4_K_M; corral quantize --list shows the types")
    from corral.api_store import QuantizeAsk
    from corral.cli.work import absolute, finish

    file = absolute(model) if is_file(model) else None
    ask = QuantizeAsk(
        to, None if file else model, file, name, threads, absolute(imatrix) if imatrix else None, requantize
    )
    show(app, finish(app, ensure(app).quantize(ask)))


def show(app: App, done: Remade) -> None:
    """What became of it."""
    from corral.cli import words

    if app.json:
        app.print_json(done)
        return
    app.say(f"{done.name} is {done.digest}")
    app.note(f"{words.size(done.base_bytes)} became {words.size(done.bytes)}; {done.lineage}")
    for note in done.notes:
        app.note(note)


def is_file(text: str) -> bool:
    """Whether `text` means a file or folder here, and no name of the store."""
    return text.startswith(("/", "./", "../", "~")) or (text.lower().endswith(".gguf") and os.path.exists(text))  # noqa: PTH110


def _list(app: App) -> None:
    from corral.cli.own_server import ensure
    from corral.cli.table import Column

    found = ensure(app).quantizer()
    if app.json:
        app.print_json(found)
        return
    app.print_table([Column("TYPE"), Column("ABOUT")], [[each.name, each.about] for each in found.types])
    app.note(f"by {found.path}, {found.version}")
