"""Charts as one PNG picture, drawn with Pillow: the optional part `corral[bench]`."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Final

from corral.errors import CallerError
from corral.measure.chart import HIGH, PAPER, WIDE, Chart, Disc, Line, Mark, charts, colours_of, marks
from corral.measure.report import Report

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SCALE: Final = 2
"""Pixels for each of a chart's units: sharp on screens that are."""
_ACROSS: Final = 2


def ready() -> None:
    """Raises CallerError where Pillow is not installed: said before anything is measured."""
    try:
        import PIL.ImageDraw  # noqa: F401
    except ImportError as error:
        raise CallerError(
            "a PNG needs Pillow, which is not installed",
            hint="pip install 'corral[bench]', or write a page: --html FILE",
        ) from error


def png(report: Report) -> bytes:
    """All charts of the report, two beside each other. Raises CallerError where there is none, or no Pillow."""
    ready()
    from PIL import Image

    drawn = charts(report)
    if not drawn:
        raise CallerError("there is no chart to draw of it", hint="measure at several levels, or several models")
    across = min(_ACROSS, len(drawn))
    size = (WIDE * across * SCALE, HIGH * math.ceil(len(drawn) / across) * SCALE)
    image = Image.new("RGB", size, PAPER)
    colours = colours_of(report)
    for number, chart in enumerate(drawn):
        image.paste(_one(chart, colours), (WIDE * SCALE * (number % across), HIGH * SCALE * (number // across)))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _one(chart: Chart, colours: dict[str, str]) -> Image.Image:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDE * SCALE, HIGH * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    for mark in marks(chart, colours):
        _draw(pen, mark)
    return image


def _draw(pen: ImageDraw.ImageDraw, mark: Mark) -> None:
    from PIL import ImageFont

    if isinstance(mark, Line):
        place = (mark.x1 * SCALE, mark.y1 * SCALE, mark.x2 * SCALE, mark.y2 * SCALE)
        pen.line(place, fill=mark.colour, width=max(1, round(mark.wide * SCALE)))
    elif isinstance(mark, Disc):
        x, y, r = mark.x * SCALE, mark.y * SCALE, mark.r * SCALE
        pen.ellipse((x - r, y - r, x + r, y + r), fill=mark.colour)
    else:
        font = ImageFont.load_default(mark.size * SCALE)
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
        pen.text((mark.x * SCALE, mark.y * SCALE), mark.text, fill=mark.colour, font=font, anchor=anchor,
                 stroke_width=1 if mark.bold else 0)  # fmt: skip
