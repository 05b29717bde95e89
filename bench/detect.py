"""Detection: pictures a second through Corral, against onnxruntime itself with the same model, pictures and threads."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.frame import Figure, main, median, sized
from bench.serving import Corral, corral, scratch
from corral.config.paths import find_paths
from corral.detector.findings import findings
from corral.detector.pictures import open_picture, prepare
from corral.detector.session import Session
from corral.engines.detector_flags import Flags
from corral.engines.detector_folder import read_detector
from support.detecting import TINY
from support.shapes import draw

WHAT = (
    "JPEG pictures of 1280 x 720 a second. `bare`: one process that decodes, resizes, calls onnxruntime with batches "
    "of 8 and makes findings of what it says; `corral`: the same pictures by 16 connections over TCP through the "
    "gateway, the engine with as many threads and batches of up to 8; `model_only`: onnxruntime alone, its tensors "
    "ready. In turns; the ratio is the median of each round's. `r18`: the shape of RT-DETRv2 R18 with fresh "
    "weights at 640 x 640 (`make vision` makes it); `tiny`: the tests' model at 96 x 96, where decoding is most of it."
)
BATCH = 8
CONNECTIONS = 16
MOST_PIXELS = 64_000_000


def pictures(count: int) -> list[bytes]:
    found = []
    for seed in range(count):
        out = io.BytesIO()
        draw(seed, 1280, 720).image.save(out, "JPEG", quality=85)
        found.append(out.getvalue())
    return found


def bare(folder: Path, threads: int, files: Sequence[Path]) -> dict[str, float]:
    """Seconds for all of `files`, whole and in the model alone. Run in a process of its own."""
    detector = read_detector(folder)
    session = Session(Flags(model=str(detector.onnx), folder=str(folder), threads=threads))
    data = [file.read_bytes() for file in files]

    def see(each: Sequence[bytes]) -> float:
        images = [open_picture(one, MOST_PIXELS) for one in each]
        batch = np.stack([prepare(image, detector.preprocessing) for image in images])
        began = time.perf_counter()
        logits, boxes = session.run(batch)
        took = time.perf_counter() - began
        for at, image in enumerate(images):
            findings(logits[at], boxes[at], detector.labels, image.size, confidence=0.5, focal=detector.focal)
        return took

    see(data[:1])
    began = time.perf_counter()
    inside = sum(see(data[at : at + BATCH]) for at in range(0, len(data), BATCH))
    return {"whole_s": time.perf_counter() - began, "model_s": inside}


def bare_apart(folder: Path, threads: int, files: Sequence[Path]) -> dict[str, float]:
    """The same in a session of its own, as Corral's engines have."""
    command = [sys.executable, "-m", "bench.detect", "--bare", str(folder), str(threads), *map(str, files)]
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def through(server: Corral, model: str, data: Sequence[bytes]) -> float:
    """Seconds for all of `data`, over connections that are kept."""
    shares = [data[at::CONNECTIONS] for at in range(CONNECTIONS)]

    def send(share: Sequence[bytes]) -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=600)
        for each in share:
            connection.request("POST", f"/detect?model={model}", each, {"content-type": "image/jpeg"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {body[:300]!r}")
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        began = time.perf_counter()
        list(threads.map(send, [share for share in shares if share]))
        return time.perf_counter() - began


def measure(quick: bool) -> list[Figure]:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usual = find_paths().cache_dir / "vision" / "r18"
    folders = {"tiny": TINY} | ({"r18": usual} if (usual / "model.onnx").is_file() else {})
    rounds = sized(quick, 5, 2)
    figures = []
    with scratch() as place:
        lines = [
            f"  - {{name: {name}, source: {folder}, engine: detector, idle_timeout: never, "
            f"args: [--threads, '{threads}', --max-batch, '{BATCH}']}}"
            for name, folder in folders.items()
        ]
        with corral(place, "\n".join(["models:", *lines])) as server:
            for name, folder in folders.items():
                count = sized(quick, 480, 64, 4) if name == "tiny" else sized(quick, 48, 16, 2)
                data = pictures(count)
                files = [place / f"{number}.jpg" for number in range(count)]
                for file, each in zip(files, data, strict=True):
                    file.write_bytes(each)
                through(server, name, data[:1])
                figures += figures_of(name, [
                    (bare_apart(folder, threads, files), through(server, name, data)) for _ in range(rounds)
                ], count)  # fmt: skip
                server.stop(name)
    return figures


def figures_of(name: str, rounds: Sequence[tuple[dict[str, float], float]], count: int) -> list[Figure]:
    goal = "≥ 0.95" if name == "r18" else ""
    whole, model = [one["whole_s"] for one, _ in rounds], [one["model_s"] for one, _ in rounds]
    ours = [each for _, each in rounds]
    ratios = [one / each for one, each in zip(whole, ours, strict=True)]
    return [
        Figure(f"{name}_vs_bare", median(ratios), goal, f"{count} pictures, {len(rounds)} rounds"),
        Figure(f"{name}_vs_model_only", median([one / each for one, each in zip(model, ours, strict=True)])),
        Figure(f"{name}_corral_per_s", count / median(ours)),
        Figure(f"{name}_bare_per_s", count / median(whole)),
        Figure(f"{name}_model_only_per_s", count / median(model)),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        print(json.dumps(bare(Path(sys.argv[2]), int(sys.argv[3]), [Path(each) for each in sys.argv[4:]])))
        sys.exit(0)
    sys.exit(main("detect", WHAT, measure))
