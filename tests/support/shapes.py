"""Pictures of discs, squares and triangles on noisy grounds, drawn by a seed, with where each shape is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("disc", "square", "triangle")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture, and each shape's label and box: x_min, y_min, x_max, y_max in pixels."""

    image: Image.Image
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]


def draw(seed: int, width: int = 128, height: int = 128, most: int = 3) -> Scene:
    """The scene of `seed`. Shapes never overlap, so that each can be found."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, 3)
    slope = np.linspace(0.0, 1.0, width)[None, :, None] * rng.integers(-60, 61, 3)
    noise = rng.normal(0.0, rng.uniform(2.0, 14.0), (height, width, 3))
    image = Image.fromarray(np.clip(ground + slope + noise, 0, 255).astype(np.uint8), "RGB")
    pen = ImageDraw.Draw(image)
    labels: list[int] = []
    boxes: list[Box] = []
    unit = min(width, height)
    for _ in range(int(rng.integers(1, most + 1))):
        for _ in range(20):
            size = int(rng.integers(unit // 6, unit // 2))
            x, y = int(rng.integers(0, width - size)), int(rng.integers(0, height - size))
            box = (float(x), float(y), float(x + size), float(y + size))
            if all(_apart(box, other) for other in boxes):
                break
        else:
            continue
        labels.append(int(rng.integers(0, len(LABELS))))
        boxes.append(box)
        _shape(pen, labels[-1], box, _colour(rng, ground))
    return Scene(image, tuple(labels), tuple(boxes))


def _apart(one: Box, other: Box) -> bool:
    return one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def _colour(rng: np.random.Generator, ground: np.ndarray) -> tuple[int, int, int]:
    """One that can be told from the ground."""
    while True:
        colour = rng.integers(0, 256, 3)
        if int(np.abs(colour - ground).sum()) > 180:
            return int(colour[0]), int(colour[1]), int(colour[2])


def _shape(pen: ImageDraw.ImageDraw, label: int, box: Box, colour: tuple[int, int, int]) -> None:
    if label == 0:
        pen.ellipse(box, fill=colour)
    elif label == 1:
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) / 2, box[1])], fill=colour)
