"""`corral fit`: whether a model fits on this machine, where, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument

if TYPE_CHECKING:
    from corral.fitting import Answer


@click.command("fit")
@model_argument()
@click.option(
    "--context", type=click.IntRange(min=1), help="Tokens per slot. Default: as configured, else as many as fit."
)
@click.option("--slots", type=click.IntRange(min=1), help="Requests at once.")
@click.option("--probe", is_flag=True, help="Ask the engine too, which loads nothing for it.")
@click.pass_obj
def command(app: App, model: str, context: int | None, slots: int | None, probe: bool) -> int:
    """Say whether MODEL fits on this machine: where, with how many layers, up to which context, and why.

    MODEL is a name of models.yaml, a stored model or a GGUF file. No server is needed, and nothing is loaded. Each
    figure says where it comes from: estimated from the file, probed (asked of the engine) or measured.

    Ends with 1 when the model fits nowhere.

    \b
    Examples:
      corral fit demo
      corral fit ./model.gguf --context 32768 --slots 4
    """
    from corral.fitting import look

    answer = look(model, app.paths, context=context, slots=slots, ask_engine=probe)
    if app.json:
        app.print_json(answer)
    else:
        _show(app, answer)
    return 0 if answer.fits else 1


def _show(app: App, answer: Answer) -> None:
    from corral.cli.table import Column
    from corral.fitting import why
    from corral.units import show_bytes

    slots = "one slot" if answer.slots == 1 else f"{answer.slots} slots"
    asked = f"with {answer.context} tokens for {slots}"
    app.say(f"{answer.model} fits {asked}: {answer.place}." if answer.fits else f"{answer.model} does not fit {asked}.")
    if answer.largest_context is None:
        app.say("No context is short enough.")
    elif answer.largest_context != answer.context:
        app.say(f"The largest context that fits is {answer.largest_context} tokens per slot.")
    if answer.layers_on_gpus:
        app.say(f"Layers on GPUs: {answer.layers_on_gpus} of {answer.layers}, the output counted as one.")
    app.say()

    def _size(count: int | None) -> str:
        return "?" if count is None else show_bytes(count)

    right = [Column(name, right=True) for name in ("WEIGHTS", "CACHE", "COMPUTE", "TOTAL")]
    app.print_table(
        [Column("DEVICE"), *right, Column("ORIGIN")],
        [
            [
                each.device,
                show_bytes(each.weights_bytes),
                show_bytes(each.cache_bytes),
                show_bytes(each.compute_bytes),
                show_bytes(each.total_bytes),
                each.origin,
            ]
            for each in answer.shares
        ],
    )
    app.say()
    app.print_table(
        [Column("DEVICE"), *(Column(name, right=True) for name in ("MEMORY", "FREE", "MAY USE")), Column("ORIGIN")],
        [
            [
                each.name,
                _size(each.total_bytes),
                _size(each.free_bytes),
                show_bytes(each.room_bytes),
                each.origin,
            ]
            for each in answer.devices
        ],
    )
    app.say()
    app.say("Why:")
    for line in why(answer):
        app.say(f"  {line}")
    alone = sorted({each.left_alone_bytes for each in answer.devices})
    app.note(f"{' or '.join(map(show_bytes, alone))} of each device are left alone.")
    for note in answer.notes:
        app.note(note)
