"""What each path answers: pictures in, findings or drawn pictures out."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from PIL import Image

from corral.detector import asked
from corral.detector.asked import Asked, Bytes
from corral.detector.batches import Batches, Seen
from corral.detector.drawing import draw
from corral.detector.findings import Finding, findings
from corral.detector.pictures import Tensor, open_picture, prepare
from corral.detector.server import Answer, Request, of_error, of_json
from corral.engines.detector_flags import Flags
from corral.engines.detector_folder import Detector
from corral.errors import Bug, CallerError, CorralError, MethodNotAllowed, NotFound, NotOffered, QueueFull
from corral.lazy_dataclass import dataclass

T = TypeVar("T")
_LARGE_BYTES = 64 << 10
_HINT = "POST /detect with a picture"


@dataclass(frozen=True, slots=True)
class _Decoded:
    size: tuple[int, int]
    tensor: Tensor
    image: Image.Image | None  # kept only where it will be drawn on
    took_ms: float


class _Coming:
    """How many pictures of one request are not yet with the batches: one until it is known better."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self.count = batches, 1
        batches.expect(1)

    def set(self, count: int) -> None:
        self._batches.expect(max(0, count - self.count))
        if count < self.count:
            self._batches.came(self.count - count)
        self.count = max(0, count)


class Service:
    """Answers requests by `batches`. Decoding runs in threads of its own, a few at a time: a large picture takes much
    memory while it is decoded."""

    def __init__(self, flags: Flags, detector: Detector, batches: Batches, threads: int) -> None:
        self._flags, self._detector, self._batches = flags, detector, batches
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request) -> Answer:
        """Never raises but when it is cancelled."""
        try:
            return await self._answer(request)
        except CorralError as exc:
            return of_error(exc)
        except asyncio.QueueFull:
            return of_error(QueueFull("too many pictures wait already", hint="try again", retry_after_s=1))
        except Exception as exc:  # noqa: BLE001 - a request's end: its client must hear of it, and others go on
            return of_error(Bug(f"the model failed: {type(exc).__name__}: {exc}"[:500], hint="see `corral logs`"))

    async def _answer(self, request: Request) -> Answer:
        if request.path == "/health":
            return of_json({"status": "ok"})
        if request.path == "/detect":
            if request.method != "POST":
                raise MethodNotAllowed(f"{request.method} is not possible on /detect", hint=_HINT)
            return await self._detect(request)
        if request.method == "POST" and request.path.startswith("/v1/"):
            raise NotOffered(f"{self._flags.alias or 'this model'} is a detector, and finds objects only", hint=_HINT)
        raise NotFound(f"there is nothing at {request.path[:200]}", hint=_HINT)

    async def _detect(self, request: Request) -> Answer:
        began = time.monotonic()
        coming = _Coming(self._batches)
        try:
            return await self._detected(request, coming, began)
        finally:
            coming.set(0)

    async def _detected(self, request: Request, coming: _Coming, began: float) -> Answer:
        kind, labels = request.fields.get("content-type", ""), self._detector.labels
        if len(request.body) < _LARGE_BYTES:
            wanted = asked.read(kind, request.query, request.body, labels)
        else:
            wanted = await self._in_thread(lambda: asked.read(kind, request.query, request.body, labels))
        accepts = request.fields.get("accept", "")
        plain = wanted.draw and "application/json" not in accepts
        as_png = wanted.draw == "png" or (wanted.draw == "any" and ("image/png" in accepts or not plain))
        if plain and len(wanted.pictures) > 1:
            words = "several pictures cannot be drawn into one answer"
            raise CallerError(words, hint="send one, or `Accept: application/json` for all in base64", param="draw")
        coming.set(len(wanted.pictures))
        tries = (self._one(each, wanted, coming) for each in wanted.pictures)
        done = await asyncio.gather(*tries, return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        whole = [each for each in done if not isinstance(each, BaseException)]
        if plain:
            decoded, _, found = whole[0]
            assert decoded.image is not None
            image = decoded.image
            body = await self._in_thread(lambda: draw(image, found, "PNG" if as_png else "JPEG"))
            return Answer(200, body, "image/png" if as_png else "image/jpeg")
        images = [await self._told(*each, "PNG" if as_png else "JPEG") for each in whole]
        took_ms = (time.monotonic() - began) * 1000
        return of_json({"model": self._flags.alias, "images": images, "timings": _timings(whole, took_ms)})

    async def _one(self, data: Bytes, wanted: Asked, coming: _Coming) -> tuple[_Decoded, Seen, list[Finding]]:
        try:
            decoded = await self._in_thread(lambda: self._decode(data, keep=bool(wanted.draw)))
            waiting = self._batches.put(decoded.tensor)
        finally:
            coming.set(coming.count - 1)
        try:
            seen = await waiting.seen
        finally:
            self._batches.drop(waiting)
        found = findings(
            seen.logits,
            seen.boxes,
            self._detector.labels,
            decoded.size,
            confidence=self._flags.confidence if wanted.confidence is None else wanted.confidence,
            most=wanted.most,
            classes=wanted.classes,
            focal=self._detector.focal,
        )
        return decoded, seen, found

    def _decode(self, data: Bytes, *, keep: bool) -> _Decoded:
        began = time.monotonic()
        image = open_picture(data, self._flags.max_pixels)
        tensor = prepare(image, self._detector.preprocessing)
        return _Decoded(image.size, tensor, image if keep else None, (time.monotonic() - began) * 1000)

    async def _told(self, decoded: _Decoded, seen: Seen, found: list[Finding], drawn: str) -> dict[str, Any]:
        told: dict[str, Any] = {
            "width": decoded.size[0],
            "height": decoded.size[1],
            "detections": [
                {
                    "label": each.label,
                    "label_id": each.number,
                    "score": round(each.score, 6),
                    "box": [round(side, 3) for side in each.box],
                }
                for each in found
            ],
        }
        if (image := decoded.image) is not None:
            body = await self._in_thread(lambda: draw(image, found, drawn))
            told["drawn"] = f"data:image/{drawn.lower()};base64,{base64.b64encode(body).decode()}"
        return told

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _timings(whole: list[tuple[_Decoded, Seen, list[Finding]]], took_ms: float) -> dict[str, Any]:
    """The longest of each, because pictures of one request go side by side; `batch` is the largest that one was in."""
    return {
        "decode_ms": round(max(decoded.took_ms for decoded, _, _ in whole), 2),
        "queue_ms": round(max(seen.queue_ms for _, seen, _ in whole), 2),
        "inference_ms": round(max(seen.inference_ms for _, seen, _ in whole), 2),
        "total_ms": round(took_ms, 2),
        "batch": max(seen.batch for _, seen, _ in whole),
    }
