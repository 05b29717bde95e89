"""`corral detect`: what is in a picture, and where."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_option
from corral.errors import BadImage, CallerError, CorralError, ImageTooLarge, NotAnImage

if TYPE_CHECKING:
    from corral.client import Client

_OF_ONE = (BadImage, ImageTooLarge, NotAnImage)
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


@click.command("detect")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@model_option("The detector. Default: the only one that is configured.")
@click.option("--confidence", type=click.FloatRange(0, 1), metavar="C", help="The least score. Default: the server's.")
@click.option("--class", "classes", multiple=True, metavar="LABEL", help="Only objects of this class; may be repeated.")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="The surest N of each picture.")
@click.option(
    "--draw", type=click.Path(path_type=Path), metavar="OUT", help="Write the picture with boxes: a .png or .jpg file."
)
@click.pass_obj
def command(
    app: App,
    images: tuple[Path, ...],
    model: str | None,
    confidence: float | None,
    classes: tuple[str, ...],
    most: int | None,
    draw: Path | None,
) -> None:
    """Find objects in pictures: a label, a score and a box in pixels for each.

    \b
    Examples:
      corral detect street.jpg
      corral detect street.jpg --class person --class car --confidence 0.7
      corral detect street.jpg --draw found.png
    """
    kind = _kind(draw, images)
    pictures, failed = _pictures(images)
    asked = {"confidence": confidence, "classes": list(classes) or None, "max_detections": most, "draw": kind}
    wanted = {name: value for name, value in {"model": model, **asked}.items() if value is not None}

    from corral.cli.own_server import ensure
    from corral.cli.spinner import Spinner

    client = ensure(app)
    with Spinner("looking", quiet=app.json):
        answer, images = _looked(client, pictures, wanted, failed)
    found: list[dict[str, Any]] = answer["images"]
    if draw is not None:
        drawn = str(found[0].pop("drawn"))
        _write(draw, base64.b64decode(drawn.partition(",")[2]))
    if app.json:
        named = [{"file": str(path), **each} for path, each in zip(images, found, strict=True)]
        app.print_json({**answer, "images": named})
        if failed:
            raise failed[0]
        return
    for path, each in zip(images, found, strict=True):
        _show(app, path, each, several=len(images) + len(failed) > 1)
    if draw is not None:
        app.note(f"the picture with boxes is {draw}")
    for error in failed[1:]:
        app.error(error)
    if failed:
        raise failed[0]


def _pictures(images: tuple[Path, ...]) -> tuple[list[tuple[Path, str]], list[CorralError]]:
    """What can be read of them, and why the others cannot. Raises CallerError where none can."""
    found: list[tuple[Path, str]] = []
    failed: list[CorralError] = []
    for each in images:
        try:
            found.append((each, base64.b64encode(_read(each)).decode()))
        except CallerError as error:
            failed.append(error)
    if not found:
        raise failed[0]
    return found, failed


def _looked(
    client: Client, pictures: list[tuple[Path, str]], wanted: dict[str, Any], failed: list[CorralError]
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The answer about all that are pictures, and which those are; why the others are none goes to `failed`."""
    try:
        return client.detect({**wanted, "images": [data for _, data in pictures]}), tuple(path for path, _ in pictures)
    except CorralError as error:
        if len(pictures) == 1 or not isinstance(error, _OF_ONE):
            raise
    answers: list[tuple[Path, dict[str, Any]]] = []
    for path, picture in pictures:
        try:
            answers.append((path, client.detect({**wanted, "images": [picture]})))
        except CorralError as error:
            if not isinstance(error, _OF_ONE):
                raise
            error.message = f"{path}: {error.message}"
            failed.append(error)
    if not answers:
        raise failed[0]
    found = [each for _, answer in answers for each in answer["images"]]
    return {**answers[-1][1], "images": found}, tuple(path for path, _ in answers)


def _kind(draw: Path | None, images: tuple[Path, ...]) -> str | None:
    if draw is None:
        return None
    if len(images) > 1:
        raise click.UsageError("--draw takes one picture at a time", click.get_current_context())
    if draw.suffix.lower() not in _KINDS:
        raise click.UsageError(f"--draw writes .png or .jpg, not {draw.name}", click.get_current_context())
    return _KINDS[draw.suffix.lower()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CallerError(f"cannot read {path}: {exc.strerror}", hint="give the path of a picture") from exc


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise CallerError(f"cannot write {path}: {exc.strerror}", hint="give --draw another path") from exc


def _show(app: App, path: Path, found: dict[str, Any], *, several: bool) -> None:
    from corral.cli.table import Column

    if several:
        app.say(f"{path} ({found['width']} x {found['height']})")
    if not found["detections"]:
        app.say("Nothing was found")
    else:
        rows = [
            [each["label"], f"{each['score']:.2f}", *(f"{side:.0f}" for side in each["box"])]
            for each in found["detections"]
        ]
        columns = [Column("LABEL"), *(Column(name, right=True) for name in ("SCORE", "LEFT", "TOP", "RIGHT", "BOTTOM"))]
        app.print_table(columns, rows)
    if several:
        app.say()
