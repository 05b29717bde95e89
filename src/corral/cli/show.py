"""`corral show`: a stored model's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.cli.arguments import stored_argument

if TYPE_CHECKING:
    from corral.api_store import ModelCard


@click.command("show")
@stored_argument()
@click.option("--template", is_flag=True, help="Print the chat template alone.")
@click.option("--license", "license_", is_flag=True, help="Print the licence alone.")
@click.option("--metadata", is_flag=True, help="Print what the weights' own header says.")
@click.pass_obj
def command(app: App, model: str, template: bool, license_: bool, metadata: bool) -> None:
    """Show what a stored model is, what it can do, and whether it fits this machine.

    \b
    Examples:
      corral show ai/smollm2
      corral show ai/smollm2 --template
    """
    from corral.cli.own_server import ensure

    card = ensure(app).show(model)
    if app.json:
        app.print_json(card)
    elif template:
        app.say(card.template_text or "")
    elif license_:
        app.say(card.license_text or ", ".join(card.licenses))
    elif metadata:
        app.print_pairs([(key, _short(value)) for key, value in card.metadata.items()] or [("-", "-")])
    else:
        _show(app, card)


def _show(app: App, card: ModelCard) -> None:
    from corral.cli import words
    from corral.cli.table import Cell, Column

    pairs = [
        ("name", card.name),
        ("title", card.title),
        ("also called", ", ".join(name for name in card.names if name != card.name)),
        ("digest", card.digest),
        ("format", f"{card.format} ({card.flavour})" if card.format else card.flavour),
        ("architecture", card.architecture),
        ("parameters", words.count(card.parameters)),
        ("quantization", card.quantization),
        ("size", words.size(card.size_bytes)),
        ("made", card.lineage),
        ("context", words.number(card.context_length)),
        ("served with", f"{card.context_size} tokens" if card.context_size else ""),
        ("capabilities", ", ".join(card.capabilities)),
        ("template", {"layer": "of its own", "header": "in the weights", "none": "none"}.get(card.template, "")),
        ("licence", "; ".join(card.licenses)),
        ("system", _short(card.system or "")),
        ("parameters set", ", ".join(f"{key}={_short(value)}" for key, value in card.params.items())),
    ]
    app.print_pairs([(name, value) for name, value in pairs if value not in ("", "-")])
    app.say()
    columns = [Column("FILE", cut=True), Column("ROLE"), Column("SIZE", right=True)]
    app.print_table(columns, [[each.path, each.role, words.size(each.size)] for each in card.files])
    if card.footprint:
        app.say()
        columns = [
            Column("CONTEXT", right=True),
            Column("MEMORY", right=True),
            Column("HERE"),
            Column("ON GPU", rank=1),
        ]
        rows: list[list[Cell | str]] = [
            [
                str(each.context),
                "~" + words.size(each.bytes),
                Cell(each.fit, (_FIT_STYLES.get(each.fit, "dim"),)),
                "-" if each.fits_gpu is None else "fits" if each.fits_gpu else "no",
            ]
            for each in card.footprint
        ]
        app.print_table(columns, rows)
        if card.memory_bytes is not None:
            app.note(f"available here now: {words.size(card.memory_bytes)}")
    for note in card.notes:
        app.note(note)


_FIT_STYLES = {"fits": "green", "fits when memory is freed": "yellow", "does not fit": "red"}


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:119] + "…"
