"""Agreement with transformers' own image processor, post-processing and pipeline, and its export, for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from corral.config.paths import Paths
from corral.engines.detector_folder import exported, read_detector
from corral.environments.lock import parse
from corral.environments.shelf import Shelf
from corral.environments.variants import shipped, variant_of
from support.detecting import EXPORTERS, TINY, encoded, iou, running, scene
from support.server import Server
from vision.test_detect_route import picture

pytestmark = [pytest.mark.vision, pytest.mark.timeout(600)]


@pytest.fixture
def python() -> Path:
    found = os.environ.get("CORRAL_TEST_VISION_PYTHON")
    if found is None:
        pytest.skip("there is no torch and transformers here: `make vision` makes them")
    return Path(found)


def pictures(folder: Path) -> list[Path]:
    """Pictures of different sizes, proportions and kinds."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "wide.png": encoded(scene(1, 320, 120).image),
        "high.png": encoded(scene(2, 90, 240).image),
        "large.jpg": encoded(scene(3, 900, 700).image, "JPEG", quality=92),
        "turned.jpg": encoded(scene(4, 200, 150).image, "JPEG", exif=exif),
        "grey.png": encoded(scene(5).image.convert("L")),
        "palette.png": encoded(scene(6).image.convert("P", palette=Image.Palette.ADAPTIVE)),
        "print.jpg": encoded(scene(7).image.convert("CMYK"), "JPEG"),
        "alpha.webp": encoded(scene(8).image.convert("RGBA"), "WEBP", lossless=True),
        "exact.png": encoded(scene(9, 96, 96).image),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def said_by_transformers(python: Path, files: list[Path]) -> dict[str, Any]:
    command: list[str | Path] = [python, "-W", "ignore", Path(__file__).with_name("reference.py"), TINY, *files]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.lasts(14)
def test_agreement(python: Path, short_tmp: Path) -> None:
    """Scores agree to 1e-3 and boxes to a thousandth of the picture with its post-processing; the pipeline, which
    cuts boxes down to whole pixels, has the same labels, scores and boxes."""
    files = pictures(short_tmp)
    theirs = said_by_transformers(python, files)
    compared = 0
    with running(TINY, short_tmp) as ours:
        for file, told in zip(files, theirs["pictures"], strict=True):
            reply = ours.ask(file.read_bytes(), "application/octet-stream", "/detect?confidence=0.05")
            (image,) = reply.json["images"]
            width, height = told["size"]
            assert (image["width"], image["height"]) == (width, height)
            near = [each for each in image["detections"] if each["score"] > 0.051]
            wanted = list(zip(told["scores"], told["labels"], told["boxes"], strict=True))
            assert len(wanted) >= len(near) >= sum(score > 0.052 for score in told["scores"])
            for each in near:
                score, label, box = min(wanted, key=lambda one: _far(one, each, (width, height)))
                assert label == each["label_id"]
                assert each["score"] == pytest.approx(score, abs=1e-3)
                assert each["box"][0::2] == pytest.approx(box[0::2], abs=1e-3 * width)
                assert each["box"][1::2] == pytest.approx(box[1::2], abs=1e-3 * height)
                compared += 1
            for one in told["pipeline"]:
                box = [one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
                best = min(near, key=lambda each: (each["label"] != one["label"], abs(each["score"] - one["score"])))
                assert best["label"] == one["label"]
                assert best["score"] == pytest.approx(one["score"], abs=1e-3)
                assert best["box"] == pytest.approx(box, abs=1.01)
    assert compared > 40


def _far(one: Any, each: dict[str, Any], size: tuple[int, int]) -> tuple[bool, float]:
    score, label, box = one
    sides = zip(box, each["box"], (*size, *size), strict=True)
    return label != each["label_id"], abs(score - each["score"]) + sum(abs(a - b) / side for a, b, side in sides)


@pytest.fixture
def exporters(paths: Paths) -> Shelf:
    """The server's data directory has what `make vision` made by `corral engine install detector-export`."""
    if Shelf(EXPORTERS, "detector-export").current() is None:
        pytest.skip("there is no environment that exports: `make vision` installs it")
    paths.engines_dir.mkdir(parents=True)
    (paths.engines_dir / "detector-export").symlink_to(EXPORTERS / "detector-export")
    return Shelf(paths.engines_dir, "detector-export")


def test_the_environment_is_the_locked_one(exporters: Shelf, corral_env: dict[str, str]) -> None:
    """What `make vision` installed by the lock that ships, where one does, is there already for a second command."""
    command = [sys.executable, "-P", "-m", "corral", "--json", "engine", "install", "detector-export"]
    env = {**os.environ, "CORRAL_DATA_DIR": str(EXPORTERS.parent)}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    made = exporters.current()
    assert made is not None
    assert (told["made"], told["environment"]["id"]) == (False, made.id)
    lock = parse((made.path / "lock.txt").read_text())
    variant = variant_of("detector-export", "cpu")
    assert shipped(variant, "", made.python) in (None, lock)
    names = ("importlib.metadata.version('transformers')", "importlib.metadata.version('torch')")
    script = f"import importlib.metadata; print({', '.join(names)})"
    said = subprocess.run([made.interpreter, "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.split() == [lock.version("transformers"), lock.version("torch")]


@pytest.mark.lasts(26)
def test_export(exporters: Shelf, paths: Paths, tmp_path: Path) -> None:
    """A published folder without ONNX is exported at its first start, by the environment made for it, and kept by its
    digest for the next; what the export finds is what the file made before finds."""
    folder = tmp_path / "published"
    shutil.copytree(TINY, folder)
    (folder / "model.onnx").unlink()
    config = f"timeouts: {{start: 500}}\nmodels: [{{name: shapes, source: {folder}, engine: detector}}]"
    with Server(paths, config) as server:
        first = picture(server)
        assert first.status == 200, first.body
        (made,) = (paths.cache_dir / "detector").iterdir()
        assert made == exported(read_detector(folder), paths.cache_dir / "detector")
        assert made.suffix == ".onnx" and made.stem.isalnum() and len(made.stem) == 64
        written = made.stat().st_mtime_ns
        assert any("exporting" in line for line in server.client.logs("shapes", 200))
        server.client.restart("shapes")
        second = picture(server)
        assert second.json["images"] == first.json["images"]
        assert server.client.units()[0].generation == 2
        assert not any("exporting" in line for line in server.client.logs("shapes", 200))
        assert made.stat().st_mtime_ns == written
        server.write(config.replace(str(folder), str(TINY)))
        server.client.reload()
        before = picture(server).json["images"][0]["detections"]
    for one, two in zip(first.json["images"][0]["detections"], before, strict=True):
        assert one["label"] == two["label"]
        assert one["score"] == pytest.approx(two["score"], abs=1e-4)
        assert iou(one["box"], two["box"]) > 0.999
