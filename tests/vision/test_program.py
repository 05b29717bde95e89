"""The program itself, as a child on a unix socket: it finds what is there, and withstands what it is sent."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from corral.engines import exits
from corral.runners.runner import Exit
from corral.supervisor.reasons import explain
from support.detecting import TINY, Program, encoded, form, iou, running, scene, spawn
from support.shapes import LABELS, Scene

pytestmark = pytest.mark.leaves("one program serves the whole module")


@pytest.fixture(scope="module")
def detector(_short_root: Path) -> Iterator[Program]:
    place = _short_root / "program"
    place.mkdir()
    with running(TINY, place, "--max-pixels", "1000000", "--max-body", "20000000") as found:
        yield found


def matched(found: list[dict[str, Any]], there: Scene) -> int:
    """How many shapes of the scene were found with the right label and place."""
    return sum(
        any(each["label"] == LABELS[label] and iou(each["box"], box) > 0.6 for each in found)
        for label, box in zip(there.labels, there.boxes, strict=True)
    )


def test_finds(detector: Program) -> None:
    """Most shapes of pictures never seen are found with the right label, where they are, in pictures of any size."""
    right = there = 0
    for seed in range(20):
        picture = scene(seed, 60 + 10 * seed, 60 + 10 * seed)
        reply = detector.ask(encoded(picture.image), "image/png", "/detect?confidence=0.4")
        assert reply.status == 200, reply.body
        (image,) = reply.json["images"]
        assert (image["width"], image["height"]) == picture.image.size
        right, there = right + matched(image["detections"], picture), there + len(picture.labels)
    assert right / there > 0.8


def test_shape_of_answer(detector: Program) -> None:
    """The model's name, each picture's size and findings, and how long each part took."""
    whole = detector.ask(encoded(scene().image), "image/png", "/detect?confidence=0.3").json
    assert whole["model"] == "tiny"
    assert set(whole["timings"]) == {"decode_ms", "queue_ms", "inference_ms", "total_ms", "batch"}
    assert whole["timings"]["total_ms"] >= whole["timings"]["inference_ms"] > 0
    found = whole["images"][0]["detections"]
    assert found
    assert all(set(each) == {"label", "label_id", "score", "box"} for each in found)
    assert all(LABELS[each["label_id"]] == each["label"] and 0.3 < each["score"] <= 1 for each in found)
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


def test_every_way_gives_the_same(detector: Program) -> None:
    """A form, JSON and plain bytes say the same of one picture; several pictures are answered in order."""
    one, two = encoded(scene(1).image), encoded(scene(2).image)
    alone = [detector.ask(each, "image/png").json["images"][0] for each in (one, two)]
    kind, body = form([("image", one), ("image", two), ("confidence", "0.5")])
    assert _same(detector.ask(body, kind), alone)
    texts = [base64.b64encode(each).decode() for each in (one, two)]
    assert _same(detector.ask_json(images=texts), alone)
    assert _same(detector.ask_json(image=texts[0], images=[texts[1]], model="whatever"), alone)


def _same(reply: Any, alone: list[dict[str, Any]]) -> bool:
    """Batches of another size round otherwise in the last digits."""
    images = reply.json["images"]
    for image, other in zip(images, alone, strict=True):
        assert (image["width"], image["height"]) == (other["width"], other["height"])
        for each, one in zip(image["detections"], other["detections"], strict=True):
            assert each["label"] == one["label"]
            assert each["score"] == pytest.approx(one["score"], abs=1e-4)
            assert each["box"] == pytest.approx(one["box"], abs=0.02)
    return True


def test_wishes(detector: Program) -> None:
    """Confidence, classes and the number of findings are kept to."""
    data = encoded(scene(4).image)
    low = detector.ask(data, "image/png", "/detect?confidence=0.01").json["images"][0]["detections"]
    assert len(low) > 3
    some = detector.ask(data, "image/png", "/detect?confidence=0.01&max_detections=2").json["images"][0]["detections"]
    assert some == low[:2]
    only = detector.ask(data, "image/png", "/detect?confidence=0.01&classes=square").json["images"][0]["detections"]
    assert only == [each for each in low if each["label"] == "square"]


def test_drawn(detector: Program) -> None:
    """The picture with boxes comes as JPEG, or as PNG where that is wanted, or in base64 beside the findings."""
    data = encoded(scene(1).image)
    for headers, target, kind in (
        ({}, "/detect?draw=1", "JPEG"),
        ({"accept": "image/png"}, "/detect?draw=1", "PNG"),
        ({}, "/detect?draw=png", "PNG"),
    ):
        reply = detector.ask(data, "image/png", target, **headers)
        assert reply.kind == f"image/{kind.lower()}"
        drawn = Image.open(io.BytesIO(reply.body))
        assert (drawn.format, drawn.size) == (kind, scene(1).image.size)
        assert reply.body != data
    beside = detector.ask(data, "image/png", "/detect?draw=1", accept="application/json").json["images"][0]
    assert beside["drawn"].startswith("data:image/png;base64,")
    kind, body = form([("image", data), ("image", data), ("draw", "1")])
    assert detector.ask(body, kind).status == 400


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"no picture", "image/png", 415, "unsupported_media_type"),
        (b"text", "text/plain", 415, "unsupported_media_type"),
        (encoded(scene().image)[:1000], "image/png", 400, "bad_image"),
        (encoded(Image.new("1", (2000, 2000))), "image/png", 413, "image_too_large"),
        (b"\0" * 20_000_001, "image/png", 413, "body_too_large"),
        (b"{", "application/json", 400, "not_json"),
        (b"{}", "application/json", 400, "bad_request"),
    ],
)
def test_errors(detector: Program, body: bytes, kind: str, status: int, code: str) -> None:
    """What is wrong with a request has its own status and code, and the next one is answered."""
    reply = detector.ask(body, kind)
    assert (reply.status, reply.code) == (status, code)
    assert detector.ask(encoded(scene().image), "image/png").status == 200


def test_other_paths(detector: Program) -> None:
    """Health is told; chats are refused in words; nothing else is here."""
    assert detector.ask(b"", "", "/health", "GET").json == {"status": "ok"}
    assert detector.ask(b"", "", "/detect", "GET").status == 405
    assert detector.ask(b"", "", "/nothing", "GET").status == 404
    chat = detector.ask(b"{}", "application/json", "/v1/chat/completions")
    assert (chat.status, chat.code) == (501, "not_offered")


def test_batches_across_requests(detector: Program) -> None:
    """Requests that come at the same time share batches, and each gets its own answer."""
    scenes = [scene(seed) for seed in range(24)]
    alone = [detector.ask(encoded(each.image), "image/png").json["images"][0] for each in scenes]
    with ThreadPoolExecutor(24) as threads:
        replies = list(threads.map(lambda each: detector.ask(encoded(each.image), "image/png"), scenes))
    for reply, one in zip(replies, alone, strict=True):
        assert _same(reply, [one])
    assert max(reply.json["timings"]["batch"] for reply in replies) > 1


def test_connections(detector: Program) -> None:
    """One connection takes requests one after another, chunked ones and pipelined ones too; garbage closes it."""
    data = encoded(scene().image)
    connection = detector.connect()
    for _ in range(3):
        connection.request("POST", "/detect", iter([data[:100], data[100:]]), {"content-type": "image/png"})
        response = connection.getresponse()
        assert (response.status, bool(json.loads(response.read()))) == (200, True)
    connection.close()
    raw = detector.connect()
    assert raw.sock is not None
    raw.sock.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
    got = b""
    while got.count(b'{"status": "ok"}') < 2:
        got += raw.sock.recv(65536)
    raw.sock.sendall(b"\0\0garbage\r\n\r\n")
    assert b"400 Bad Request" in raw.sock.recv(65536)
    assert raw.sock.recv(65536) == b""
    raw.close()


def test_clients_that_leave(detector: Program) -> None:
    """Who leaves in the middle of a body or before the answer does no harm, and nobody waits for them."""
    data = encoded(scene().image)
    for cut in (0, 50, len(data)):
        for _ in range(4):
            connection = detector.connect()
            assert connection.sock is not None
            head = f"POST /detect HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: {len(data)}\r\n\r\n"
            connection.sock.sendall(head.encode() + data[:cut])
            connection.close()
    reply = detector.ask(data, "image/png")
    assert reply.status == 200
    assert reply.json["timings"]["queue_ms"] < 5000


def test_drains(short_tmp: Path) -> None:
    """TERM lets running requests end, takes the socket away, and ends with 0."""
    with running(TINY, short_tmp, "--window-ms", "1000", "--max-batch", "64") as one:
        data = encoded(scene().image)
        half = one.connect()  # whose body is on its way, so that the batch waits
        assert half.sock is not None
        half.sock.sendall(b"POST /detect HTTP/1.1\r\ncontent-type: image/png\r\ncontent-length: 9\r\n\r\n")
        replies: list[int] = []
        asking = threading.Thread(target=lambda: replies.append(one.ask(data, "image/png").status))
        asking.start()
        half.close()
        asking.join(60)
        assert one.end() == 0
        assert replies == [200]
        assert not one.socket.exists()
        assert "corral: stopped" in one.log.read_text()


def test_stuck_ends_it(short_tmp: Path) -> None:
    """A batch that does not end in time ends the program, which its supervisor starts again."""
    with running(TINY, short_tmp, "--stuck-s", "0.001", "--max-batch", "64") as one:
        kind, body = form([("image", encoded(scene().image))] * 64)
        with pytest.raises((http.client.HTTPException, OSError)):
            one.ask(body, kind)
        assert one.process.wait(60) == exits.REFUSED
        assert "a batch was not done within" in one.log.read_text()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"no model"), exits.REFUSED, "could not load"),
        (lambda folder: (folder / "model.onnx").unlink(), exits.REFUSED, "could not load"),
        (lambda folder: (folder / "config.json").write_text("{}"), exits.MODEL_FILE, "of type None"),
        (lambda folder: (folder / "config.json").unlink(), exits.MODEL_FILE, "cannot read"),
    ],
)
def test_bad_models(short_tmp: Path, spoil: Any, code: int, words: str) -> None:
    """What is no model ends it with a code of its own and a last line that says why."""
    folder = short_tmp / "m"
    shutil.copytree(TINY, folder)
    spoil(folder)
    process = spawn(folder, short_tmp / "d.sock")
    assert process.wait(60) == code
    last = (short_tmp / "d.log").read_text().splitlines()[-1]
    assert last.startswith("corral: ")
    assert words in last


def test_bad_starts(short_tmp: Path) -> None:
    """Unknown flags and sockets that cannot be made end it too."""
    taken = short_tmp / "d.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(taken))
    with listener:
        assert spawn(TINY, taken).wait(60) == exits.ADDRESS
    taken.unlink()
    assert "is there already" in (short_tmp / "d.log").read_text()
    assert spawn(TINY, taken, "--colour", "red").wait(60) == exits.FLAG
    assert "does not know '--colour'" in (short_tmp / "d.log").read_text()


def test_no_such_gpu(short_tmp: Path) -> None:
    """One that is to run on a GPU which onnxruntime does not reach ends, and the reason is the GPU: never silently on
    the processor."""
    assert spawn(TINY, short_tmp / "d.sock", "--provider", "cuda").wait(60) == exits.DEVICE
    log = (short_tmp / "d.log").read_text()
    reason = explain(Exit(code=exits.DEVICE), log, "shapes")
    assert reason.kind == "device"
    assert "cannot run it on cuda" in reason.text


def test_report(short_tmp: Path) -> None:
    """The log tells what the load took as llama.cpp does, which Corral reads."""
    from corral.engines.report import is_whole, read_report

    with running(TINY, short_tmp) as one:
        log = one.log.read_text()
    found = read_report(log)
    assert is_whole(log)
    assert found is not None
    parts = found.devices["cpu"]
    assert abs(parts.weights - (TINY / "model.onnx").stat().st_size) < 20_000
    assert 1 << 20 < parts.compute < 1 << 30
