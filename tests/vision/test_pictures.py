"""Files of every kind become upright pictures in RGB, or an error that says what is wrong with them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corral.detector.pictures import open_picture, prepare
from corral.engines.detector_folder import Preprocessing
from corral.errors import BadImage, CorralError, ImageTooLarge, NotAnImage
from support.detecting import encoded, scene

MOST = 1_000_000


def corner(image: Image.Image) -> tuple[int, ...]:
    found = image.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


def halves(mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right, 40 x 20."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_kinds(kind: str) -> None:
    """Every kind that is opened gives the same picture."""
    more: dict[str, Any] = (
        {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    )
    image = open_picture(encoded(halves(), kind, **more), MOST)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert np.abs(np.asarray(image).astype(int) - np.asarray(halves()).astype(int)).max() <= (
        60 if kind == "JPEG" else 0
    )


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
     ("YCbCr", "JPEG"), ("PA", "TIFF"), ("RGBA", "WEBP")],
)  # fmt: skip
def test_modes(mode: str, kind: str) -> None:
    """Palettes, transparency, print colours and grey come out as RGB."""
    image = Image.new("RGB", (30, 30), (200, 100, 50)).convert(mode if mode != "PA" else "P")
    found = corner(open_picture(encoded(image, kind), MOST))
    wanted = corner(image.convert("RGB"))
    assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) <= 6


def test_transparency_is_dropped() -> None:
    """What is transparent has the colour that the file gives it, as transformers has it."""
    image = Image.new("RGBA", (8, 8), (10, 200, 30, 0))
    assert corner(open_picture(encoded(image), MOST)) == (10, 200, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """A picture is turned as its camera says: what was drawn upright comes back upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = halves() if back is None else halves().transpose(back)
    image = open_picture(encoded(stored, "PNG", exif=exif), MOST)
    assert image.size == (40, 20)
    assert corner(image) == (255, 0, 0)


def test_broken_orientation() -> None:
    """What a camera says in broken words is not believed, and nothing else is lost."""
    image = open_picture(encoded(halves(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"), MOST)
    assert image.size == (40, 20)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind: str) -> None:
    """Grey of 16 bits keeps its shades; above 255 is not all white."""
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    found = np.asarray(open_picture(encoded(Image.fromarray(values), kind), MOST))[..., 0]
    assert np.abs(found.astype(int) - (values >> 8)).max() <= 1


def test_floating_point() -> None:
    """Grey in floating point, from 0 to 1 or to more, keeps its shades; what is no number is black."""
    values = np.linspace(0, 1, 256).astype(np.float32).reshape(16, 16)
    values[0, 0] = np.nan
    for factor in (1, 200, 100_000):
        found = np.asarray(open_picture(encoded(Image.fromarray(values * factor), "TIFF"), MOST))[..., 0]
        assert found[0, 0] == 0
        assert found[-1, -1] >= 199
        assert 90 <= found[8, 0] <= 135


def test_animated() -> None:
    """Of an animated picture, the first frame counts."""
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        more: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
        assert corner(open_picture(data, MOST)) == (255, 0, 0)


def _png_that_says(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda: _png_that_says(100_000, 100_000),
        lambda: encoded(Image.new("1", (1001, 1000)), "PNG"),
        lambda: encoded(Image.new("1", (1001, 1000)), "TIFF", compression="group4"),
        lambda: encoded(Image.new("P", (1001, 1000)), "GIF"),
        lambda: encoded(Image.new("RGB", (1001, 1000)), "JPEG"),
        lambda: encoded(Image.new("RGB", (1001, 1000)), "WEBP"),
        lambda: encoded(Image.new("RGB", (1001, 1000)), "WEBP", lossless=True),
        lambda: encoded(Image.new("RGBA", (1001, 1000)), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"),
        lambda: b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff" + b"\0" * 60,
    ],
)
def test_bombs(made: Callable[[], bytes]) -> None:
    """More pixels than are allowed are refused by what the header says, before any of them is made."""
    with pytest.raises(ImageTooLarge, match="1 million are the most"):
        open_picture(made(), MOST)


def test_just_within() -> None:
    """As many pixels as are allowed are fine."""
    assert open_picture(encoded(Image.new("1", (1000, 1000))), MOST).size == (1000, 1000)


@cache
def whole(kind: str) -> bytes:
    return encoded(scene().image, kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_cut_off(kind: str, share: float) -> None:
    """A file that was cut off is a broken picture, never half a picture."""
    data = whole(kind)
    with pytest.raises(BadImage):
        open_picture(data[: int(len(data) * share)], MOST)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"%PDF-1.4 and so on", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 1000, b"GGUF" + b"\0" * 99,
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)  # fmt: skip
def test_no_picture(data: bytes) -> None:
    """What is no picture, or of a kind that is not opened, is told so."""
    with pytest.raises(NotAnImage) as error:
        open_picture(data, MOST)
    assert (error.value.status, error.value.code) == (415, "unsupported_media_type")


def test_empty() -> None:
    """Nothing is no picture."""
    with pytest.raises(BadImage, match="empty"):
        open_picture(b"", MOST)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_anything(kind: str, changes: list[tuple[float, bytes]]) -> None:
    """Whatever is done to a file's bytes, it gives a picture within the bound or one of our errors."""
    data = bytearray(whole(kind))
    for share, new in changes:
        at = int(share * (len(data) - 1))
        data[at : at + len(new)] = new
    try:
        image = open_picture(bytes(data), 100_000)
    except CorralError as exc:
        assert exc.status in (400, 413, 415)
    else:
        assert image.mode == "RGB"
        assert image.size[0] * image.size[1] <= 100_000


def test_prepare() -> None:
    """The model sees planes of its own size, in its own numbers."""
    image = Image.new("RGB", (50, 30), (255, 128, 0))
    plain = prepare(image, Preprocessing(32, 64))
    assert (plain.shape, str(plain.dtype), plain.flags["C_CONTIGUOUS"]) == ((3, 32, 64), "float32", True)
    assert np.allclose(plain[:, 0, 0], [1.0, 128 / 255, 0.0], atol=1e-6)
    normal = prepare(image, Preprocessing(32, 64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0)))
    assert np.allclose(normal[:, 0, 0], [1.0, (128 / 255 - 0.5) / 0.25, -0.5], atol=1e-6)


def test_memory_is_not_the_files() -> None:
    """The bytes may be part of a larger body."""
    data = encoded(halves())
    assert open_picture(memoryview(b"head" + data + b"tail")[4:-4], MOST).size == (40, 20)
    assert io.BytesIO(data).read() == data
