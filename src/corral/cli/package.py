"""`corral package`: a stored model of files."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.command("package")
@click.argument("path")
@click.option("--tag", "-t", "name", required=True, metavar="REF", help="What to call it, such as ghcr.io/me/coder:v1.")
@click.option("--license", "license_", metavar="FILE", help="A licence to put in.")
@click.option("--template", metavar="FILE", help="A Jinja chat template that takes the place of the model's own.")
@click.option("--mmproj", metavar="FILE", help="The projector for images or sound.")
@click.option("--lora", metavar="FILE", help="A LoRA adapter.")
@click.option("--context-size", type=click.IntRange(1), metavar="TOKENS", help="The context to serve it with.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker", "cncf"]),
    default="docker",
    show_default=True,
    help="Docker's artifact format, or the CNCF's ModelPack.",
)
@click.pass_obj
def command(
    app: App,
    path: str,
    name: str,
    license_: str | None,
    template: str | None,
    mmproj: str | None,
    lora: str | None,
    context_size: int | None,
    form: str,
) -> None:
    """Make a stored model of a GGUF file (of a split one the first), a safetensors file, or a directory with either.

    The file is linked or reflinked into the store where the file system allows, else copied.

    \b
    Example:
      corral package coder-q4.gguf -t ghcr.io/me/coder:q4 --license LICENSE --context-size 16384
    """
    from corral.api_store import PackageAsk
    from corral.cli.own_server import ensure
    from corral.cli.work import absolute, finish

    def file(given: str | None) -> str | None:
        return None if given is None else absolute(given)

    ask = PackageAsk(absolute(path), name, file(license_), file(template), file(mmproj), file(lora), context_size, form)
    done = finish(app, ensure(app).package(ask))
    if app.json:
        app.print_json(done)
    else:
        app.say(f"{done.name} is {done.digest}")
