"""The picture with its findings drawn in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from corral.detector.findings import Finding

_COLOURS: Final = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#000075")


def draw(image: Image.Image, found: Sequence[Finding], kind: str) -> bytes:
    """A copy of `image` with a box and words for each of `found`, as a PNG or JPEG (`kind`). Blocks."""
    picture = image.copy()
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 400))
    font = ImageFont.load_default(max(10, round(max(picture.size) / 50)))
    for each in reversed(found):  # the surest on top
        colour = _COLOURS[each.number % len(_COLOURS)]
        x, y, right, bottom = _inside(each, picture.size)
        pen.rectangle((x, y, right, bottom), outline=colour, width=line)
        words = f"{each.label} {each.score:.2f}"
        left, top, wide, low = pen.textbbox((0, 0), words, font=font)
        at = (x, max(0.0, y - low - 2 * line))
        pen.rectangle((at[0], at[1], at[0] + wide - left + 2 * line, at[1] + low + 2 * line), fill=colour)
        pen.text((at[0] + line, at[1] + line - min(0, top)), words, fill="white", font=font)
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
    return out.getvalue()


def _inside(each: Finding, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Its box as far as it is in the picture, and never inside out."""
    x, y, right, bottom = each.box
    x, y = min(max(x, 0), size[0] - 1), min(max(y, 0), size[1] - 1)
    return x, y, max(x, min(right, size[0] - 1)), max(y, min(bottom, size[1] - 1))
