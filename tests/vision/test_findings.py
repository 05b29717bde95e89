"""What the model says becomes findings as transformers has them: by score, in pixels."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from corral.detector.drawing import draw
from corral.detector.findings import Finding, findings

LABELS = ("disc", "square", "triangle")
BOXES = np.array([[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.5, 0.5]], np.float32)


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def scores(*rows: tuple[float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([[logit(each) for each in row] for row in rows], np.float32)


def test_pixels_and_order() -> None:
    """Boxes are corners in pixels of the picture; the surest comes first."""
    found = findings(scores((0.1, 0.6, 0.1), (0.9, 0.1, 0.2)), BOXES, LABELS, (200, 100), confidence=0.5)
    assert [(each.label, each.number, round(each.score, 4)) for each in found] == [("disc", 0, 0.9), ("square", 1, 0.6)]
    assert found[0].box == pytest.approx((0, 50, 100, 100))
    assert found[1].box == pytest.approx((80, 30, 120, 70))


def test_a_box_may_reach_beyond_the_picture() -> None:
    """As transformers has it, and docs/vision.md says: sides below 0 and above the size are not cut off."""
    edges = np.array([[0.1, 0.95, 0.25, 0.2], [0.5, 0.5, 1.1, 1.2]], np.float32)
    found = findings(scores((0.9, 0.1, 0.1), (0.8, 0.1, 0.1)), edges, LABELS, (300, 100), confidence=0.5)
    assert found[0].box == pytest.approx((-7.5, 85, 67.5, 105), abs=1e-3)
    assert found[1].box == pytest.approx((-15, -10, 315, 110), abs=1e-3)


def test_one_query_may_be_two_things() -> None:
    """Scores are of single classes: one box may have several, but there are no more findings than queries."""
    found = findings(scores((0.9, 0.8, 0.7), (0.6, 0.1, 0.1)), BOXES, LABELS, (10, 10), confidence=0.5)
    assert [each.label for each in found] == ["disc", "square"]
    assert found[0].box == found[1].box


def test_bounds() -> None:
    """The confidence itself is not enough; `most` keeps the surest; classes leave others out uncounted."""
    said = scores((0.9, 0.1, 0.1), (0.1, 0.5, 0.7))
    assert [each.number for each in findings(said, BOXES, LABELS, (9, 9), confidence=0.0)] == [0, 2]
    surest = findings(said, BOXES, LABELS, (9, 9), confidence=0.0)[1].score
    assert len(findings(said, BOXES, LABELS, (9, 9), confidence=surest)) == 1
    assert [each.number for each in findings(said, BOXES, LABELS, (9, 9), confidence=0.5, most=1)] == [0]
    only = findings(said, BOXES, LABELS, (9, 9), confidence=0.5, most=1, classes={2})
    assert [each.number for each in only] == [2]


def test_extremes() -> None:
    """Logits of any size give scores from 0 to 1 and no warning."""
    said = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = findings(said, BOXES, LABELS, (1, 1), confidence=0.4)
    assert [(each.label, each.score) for each in found] == [("disc", 1.0), ("triangle", 0.5)]


def test_without_focal_loss() -> None:
    """Where the last class means nothing, the others share the rest by softmax."""
    said = np.array([[5, 0, 0, 0], [0, 0, 0, 9]], np.float32)
    found = findings(said, BOXES, LABELS, (10, 10), confidence=0.5, focal=False)
    assert [each.label for each in found] == ["disc"]
    assert found[0].score == pytest.approx(math.exp(5) / (math.exp(5) + 3), abs=1e-5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_drawing(kind: str) -> None:
    """The picture keeps its size and is changed where boxes are, even where they reach beyond it."""
    image = Image.new("RGB", (120, 80), "white")
    found = [
        Finding("disc", 0, 0.9, (20, 20, 60, 60)),
        Finding("square", 1, 0.8, (-50, -50, 500, 500)),
        Finding("triangle", 2, 0.7, (200, 200, 300, 300)),
    ]
    drawn = Image.open(io.BytesIO(draw(image, found, kind)))
    assert (drawn.size, drawn.format) == ((120, 80), kind)
    assert drawn.convert("RGB").getpixel((20, 40)) != (255, 255, 255)
    assert image.getpixel((20, 40)) == (255, 255, 255)
