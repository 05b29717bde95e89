"""From what the model says of one picture to findings. Pure.

Source: transformers 5.23, `RTDetrImageProcessor.post_process_object_detection`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from corral.lazy_dataclass import dataclass

Numbers = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One object: `box` is x_min, y_min, x_max, y_max in pixels, and may reach beyond the picture a little."""

    label: str
    number: int
    score: float
    box: Box


def findings(
    logits: Numbers,
    boxes: Numbers,
    labels: Sequence[str],
    size: tuple[int, int],
    *,
    confidence: float,
    most: int | None = None,
    classes: Collection[int] | None = None,
    focal: bool = True,
) -> list[Finding]:
    """Those above `confidence`, the surest first: of `classes` alone where there are any, and `most` of them at most.

    `logits` is queries x labels, `boxes` queries x 4 (centre and sides as shares of the picture), `size` width, height.
    """
    count = len(logits)
    if focal:
        scores = _sigmoid(logits).ravel()
        order = np.argsort(-scores, kind="stable")[:count]
        scores, numbers, queries = scores[order], order % logits.shape[1], order // logits.shape[1]
    else:
        each = _softmax(logits)[:, :-1]
        order = np.argsort(-each.max(1), kind="stable")
        scores, numbers, queries = each.max(1)[order], each.argmax(1)[order], order
    found: list[Finding] = []
    width, height = size
    for score, number, query in zip(scores.tolist(), numbers.tolist(), queries.tolist(), strict=True):
        if score <= confidence or (most is not None and len(found) >= most):
            break
        if classes is not None and number not in classes:
            continue
        x, y, w, h = (float(side) for side in boxes[query])
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        label = labels[number] if number < len(labels) else str(number)
        found.append(Finding(label, number, score, box))
    return found


def _sigmoid(values: Numbers) -> Numbers:
    # The same on both sides of zero, without an overflow on either.
    small = np.exp(-np.abs(values))
    scores: Numbers = np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    return scores


def _softmax(values: Numbers) -> Numbers:
    raised = np.exp(values - values.max(1, keepdims=True))
    shares: Numbers = (raised / raised.sum(1, keepdims=True)).astype(np.float32)
    return shares
