"""`corral image`: the images of engines that run in containers: what is here, built here, fetched, removed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from collections.abc import Callable

_RUNNER = click.option(
    "--runner", type=click.Choice(["podman", "docker"]), help="Whose images. Default: podman where it is installed."
)
_VARIANT = click.option(
    "--variant", metavar="NAME", help="cpu, vulkan, cuda, rocm … Default: what this machine has a GPU for."
)


@click.group("image")
def command() -> None:
    """Build, fetch, list and remove the images of engines that run in containers.

    They are this user's own images; no server is needed. docs/images.md says what they are made of.

    \b
    Examples:
      corral image list
      corral image pull llama.cpp
      corral image build llama.cpp --variant cpu
    """


@command.command("list")
@_RUNNER
@click.pass_obj
def list_(app: App, runner: str | None) -> None:
    """Show the image catalogue: which images are here, and which are locked to a digest.

    \b
    Example:
      corral image list --json
    """
    from corral.cli.table import Cell, Column
    from corral.images import program, shelf
    from corral.units import show_bytes

    found = shelf.standings(app.paths, program.pick(runner))
    if app.json:
        app.print_json(found)
        return
    titles = ("ENGINE", "VARIANT", "IMAGE", "HERE", "LOCKED")
    columns = [*(Column(title) for title in titles), Column("SIZE", right=True)]
    rows = [
        [
            each.engine,
            each.variant,
            each.reference,
            each.origin if each.here else "no",
            Cell("not this one", ("red",)) if each.locked == "other" else each.locked,
            "" if each.bytes is None else show_bytes(each.bytes),
        ]
        for each in found
    ]
    app.print_table(columns, rows)


@command.command("build")
@click.argument("name", default="llama.cpp")
@_VARIANT
@click.option("--base", metavar="REF", help="What the image is made on. Default: a small Debian, or the vendor's.")
@click.option("--build-base", metavar="REF", help="What it is compiled on. Default: BASE, or the vendor's.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Compilers at once. Default: one for each processor.")
@click.option("--network", metavar="NAME", default="", help="The build's network, such as host. Default: the runner's.")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Authorities (PEM) the build is to trust; the image keeps nothing of them. Default: SSL_CERT_FILE's.",
)  # fmt: skip
@click.option(
    "--pip-config", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="pip's configuration in the build, with the index it is to use; not kept. Default: PIP_CONFIG_FILE's.",
)  # fmt: skip
@click.option("--tag", "-t", metavar="REF", help="What to call the image. Default: as the catalogue has it.")
@_RUNNER
@click.pass_obj
def build(
    app: App,
    name: str,
    variant: str | None,
    base: str | None,
    build_base: str | None,
    jobs: int | None,
    network: str,
    ca: Path | None,
    pip_config: Path | None,
    tag: str | None,
    runner: str | None,
) -> None:
    """Build an engine's image here, from sources with a known hash: NAME is llama.cpp, vllm or detector.

    Compiling llama.cpp takes minutes for processors and much longer for GPUs. The output of the build goes to
    standard error.

    \b
    Examples:
      corral image build llama.cpp --variant cpu
      corral image build llama.cpp --variant cuda --jobs 8
      corral image build detector --base localhost/my/debian:12
      corral image build vllm --variant cpu --pip-config ~/.config/pip/pip.conf
    """
    from corral.images import program, shelf
    from corral.units import show_bytes

    entry = shelf.named(app.paths, name, variant)
    order, notes = shelf.order(app.paths, entry, shelf.Wish(base, build_base, jobs, network, ca, tag, pip_config))
    used = program.pick(runner)
    for note in notes:
        app.warn(note)
    if not order.recipe.tried:
        app.warn(f"this image was never built by Corral's own tests: {entry.engine} for {entry.variant}")
    image, warnings = shelf.build(used, order, app.note)
    if app.json:
        app.print_json({"image": order.name, "id": image.id, "bytes": image.bytes, "warnings": list(warnings)})
        return
    app.say(f"{order.name} is here: {image.id[:12]}, {show_bytes(image.bytes)}.")


@command.command("pull")
@click.argument("name", default="llama.cpp")
@_VARIANT
@_RUNNER
@click.pass_obj
def pull(app: App, name: str, variant: str | None, runner: str | None) -> None:
    """Fetch an engine's image: NAME is an engine, or a reference. Where `corral lock` has its digest, that one.

    \b
    Examples:
      corral image pull llama.cpp --variant cuda
      corral image pull ghcr.io/ggml-org/llama.cpp:server
    """
    from corral.images import program, shelf
    from corral.units import show_bytes

    reference = name if "/" in name else shelf.named(app.paths, name, variant).image
    show: Callable[[str], None] | None = None if sys.stderr.isatty() and not app.json else app.note
    image = shelf.fetch(app.paths, program.pick(runner), reference, show)
    if app.json:
        app.print_json({"image": reference, "id": image.id, "bytes": image.bytes, "digests": list(image.digests)})
        return
    app.say(f"{reference} is here: {image.id[:12]}, {show_bytes(image.bytes)}.")


@command.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_VARIANT
@_RUNNER
@click.pass_obj
def rm(app: App, names: tuple[str, ...], variant: str | None, runner: str | None) -> int:
    """Remove images: each NAME is an engine or a reference. One that a container has stays.

    \b
    Example:
      corral image rm llama.cpp --variant cpu
    """
    from corral.images import program, shelf

    used = program.pick(runner)
    removed, missing = [], []
    for name in names:
        references = [name] if "/" in name else list(shelf.named(app.paths, name, variant).references)
        held = used.held(references)
        missing += [] if held else [name]
        for reference in held:
            used.remove(reference)
            removed.append(reference)
            if not app.json:
                app.say(f"{reference} is removed.")
    if app.json:
        app.print_json({"removed": removed, "not_here": missing})
    else:
        for name in missing:
            app.note(f"There is no image for {name} here.")
    return 1 if missing else 0
