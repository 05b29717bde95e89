"""`corral convert`: a stored GGUF model, made of a safetensors model."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("convert")
@click.argument("model")
@click.option(
    "--to",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"], case_sensitive=False),
    default="bf16",
    show_default=True,
    help="The type of the weights; `corral quantize` makes smaller ones of it.",
)
@click.option("--tag", "-t", "name", required=True, metavar="REF", help="What to call it, such as me/coder:bf16.")
@click.pass_obj
def command(app: App, model: str, to: str, name: str) -> None:
    """Make a stored GGUF model of MODEL: a stored safetensors model, or a folder with one.

    Llama, Mistral, Qwen2 and Qwen3 models with byte-level tokenizers are converted; for others there is llama.cpp's own
    script. The server needs the packages of corral[convert].

    \b
    Example:
      corral convert ./Llama-3.2-1B --to bf16 -t me/llama:bf16
    """
    import os

    from corral.api_store import ConvertAsk
    from corral.cli.own_server import ensure
    from corral.cli.quantize import is_file, show
    from corral.cli.work import absolute, finish

    folder = absolute(model) if is_file(model) or os.path.isdir(model) else None  # noqa: PTH112
    ask = ConvertAsk(to, name, None if folder else model, folder)
    show(app, finish(app, ensure(app).convert(ask)))
