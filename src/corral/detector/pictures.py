"""From a file's bytes to a picture in RGB, upright, and to what the model sees of it. The bytes are not trusted."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from corral.engines.detector_folder import Preprocessing
from corral.errors import BadImage, ImageTooLarge, NotAnImage

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened. Others have decoders that few people ever looked at."""

Tensor = npt.NDArray[np.float32]

_BEGINNINGS: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_BROKEN: Final = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise over bytes that are not right."""

Image.MAX_IMAGE_PIXELS = None  # the bound here is our own, and it is an error at once
ImageFile.LOAD_TRUNCATED_IMAGES = False


def open_picture(data: bytes | memoryview, max_pixels: int) -> Image.Image:
    """The first picture in `data`, in RGB and as it is meant to be seen. Blocks for the decoding: use a thread.

    Transparency is dropped, as transformers does. Raises NotAnImage, ImageTooLarge, BadImage.
    """
    if not data:
        raise BadImage("the picture is empty", hint=_HINT)
    _check_size(_webp_size(data), max_pixels)  # whose decoder makes room for the whole before it tells the size
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if bytes(data[:8]).startswith(_BEGINNINGS):
            raise BadImage("the picture is broken: it begins as one, but cannot be read", hint=_HINT) from None
        raise NotAnImage("this is no picture that can be read", hint=f"send one of {', '.join(FORMATS)}") from None
    except _BROKEN as exc:
        raise BadImage(f"the picture cannot be read: {exc}"[:300], hint=_HINT) from exc
    with image:
        _check_size(image.size, max_pixels)
        try:
            image.load()
            return _rgb(_upright(image))
        except (*_BROKEN, MemoryError) as exc:
            raise BadImage(f"the picture is broken: {exc}"[:300], hint=_HINT) from exc


_HINT: Final = "open it with another program, and save it again"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"the picture has {width} x {height} pixels, and {max_pixels / 1e6:.0f} million are the most",
            hint="make it smaller; the model sees a few hundred pixels of each side anyway",
        )


def _webp_size(data: bytes | memoryview) -> tuple[int, int]:
    """As its header says; nothing for other files. Source: RFC 9649."""
    head = bytes(data[:30])
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return 0, 0
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera says. What it says may be broken: then it says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or in floating point: Pillow itself would make white of all that is above 255."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    most = values.max(initial=0.0)
    if image.mode.startswith("F"):
        whole = 1.0 if most <= 1.0 else 255.0 if most <= 255.0 else most
    else:
        whole = 65535.0 if image.mode.startswith("I;16") or most <= 65535.0 else most
    return Image.fromarray(np.clip(values * (255.0 / whole), 0, 255).astype(np.uint8))


def prepare(image: Image.Image, how: Preprocessing) -> Tensor:
    """What the model sees of `image`: three planes of `how.height` x `how.width`. Blocks."""
    if image.size != (how.width, how.height):
        image = image.resize((how.width, how.height), Image.Resampling(how.resample))
    planes = np.asarray(image).transpose(2, 0, 1)
    tensor: Tensor = np.multiply(planes, np.float32(how.factor), dtype=np.float32)
    if how.mean:
        tensor -= np.asarray(how.mean, np.float32)[:, None, None]
        tensor /= np.asarray(how.std, np.float32)[:, None, None]
    return np.ascontiguousarray(tensor)
