"""`corral engine install detector-export`: what makes ONNX of detectors in safetensors. Real pip, with tiny wheels."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.cli.check_environments import environments
from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.detector import DetectorAdapter, exporter
from corral.engines.plan import Endpoint
from corral.environments.shelf import Shelf
from corral.errors import EngineMissing
from environments.conftest import Command
from support import wheels
from support.server import until

pytestmark = pytest.mark.timeout(600)  # each environment takes seconds where nobody else works

TINY = Path(__file__).parents[1] / "vision" / "tiny"


@pytest.fixture
def published(tmp_path: Path) -> ModelSettings:
    """A detector as it is published, without ONNX."""
    folder = tmp_path / "published"
    shutil.copytree(TINY, folder)
    (folder / "model.onnx").unlink()
    return ModelSettings(name="shapes", source=folder, engine="detector", parallel=16)


def exports_with(adapter: DetectorAdapter, settings: ModelSettings) -> str:
    plan = adapter.plan(Start(settings, generation=1, endpoint=Endpoint(socket=Path("/run/x.sock"))))
    return plan.argv[plan.argv.index("--export-with") + 1]


def test_starts_export_with_the_current_one(
    engine: Command, short_tmp: Path, paths: Paths, published: ModelSettings, tmp_path: Path
) -> None:
    """Each next start takes what is current then, without a new server; without one, or with one whose Python is gone,
    the error says which command makes it.

    Ctrl-C in the middle of an installation leaves nothing: a start then still says what is missing, and the next
    installation makes it whole. Where no lock ships, an index is asked for transformers together with onnx and a torch
    for the processor.
    """
    adapter = DetectorAdapter(None, tmp_path / "cache", lambda: exporter(paths.data_dir), environment={})
    with pytest.raises(EngineMissing, match="nothing here can make one") as missing:
        exports_with(adapter, published)
    assert "`corral engine install detector-export`" in missing.value.hint

    heavy = short_tmp / "heavy"
    wheels.torch(heavy)
    wheels.onnx(heavy)
    wheels.transformers(heavy, ballast=64 << 20)
    place = paths.engines_dir / "detector-export"
    child = engine.start("install", "detector-export", "--wheels", heavy)
    try:
        until(lambda: list(place.glob("[0-9a-f]*/lock.txt")), "pip has begun", 200)
        os.kill(child.pid, signal.SIGINT)
        child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert [each for each in place.iterdir() if each.is_dir()] == []
    with pytest.raises(EngineMissing, match="nothing here can make one"):
        exports_with(adapter, published)

    made = engine.json("install", "detector-export", "--wheels", heavy)
    first = made["environment"]
    assert made["made"] and first["python_program"].startswith(str(place))
    assert (first["engine"], first["variant"], first["version"]) == ("detector-export", "cpu", "5.23.0")
    assert exports_with(adapter, published) == first["python_program"]
    newer = short_tmp / "newer"
    wheels.torch(newer)
    wheels.onnx(newer)
    wheels.transformers(newer, "5.24.0")
    env = {"PIP_FIND_LINKS": str(newer)}
    second = engine.json("install", "detector-export", "--version", "5.24.0", env=env)["environment"]
    assert (second["origin"], second["version"], second["packages"]) == ("index", "5.24.0", 3)
    lock = (Path(second["path"]) / "lock.txt").read_text()
    assert all(each in lock for each in ("onnx==1.23.2", "torch==2.13.0+cpu", "transformers==5.24.0"))
    assert exports_with(adapter, published) == second["python_program"]
    listed = engine.json("list", "detector-export")
    assert [(each["version"], each["state"]) for each in listed] == [("5.23.0", "kept"), ("5.24.0", "current")]
    assert engine.json("rollback", "detector-export")["current"]["id"] == first["id"]
    assert exports_with(adapter, published) == first["python_program"]
    assert engine.json("path", "detector-export")["id"] == first["id"]

    Path(first["python_program"]).unlink()
    with pytest.raises(EngineMissing, match=r"5\.23\.0.*does not work any more") as broken:
        exports_with(adapter, published)
    again = f"corral engine remove detector-export {first['id']} && corral engine install detector-export"
    assert again in broken.value.hint
    assert engine.json("remove", "detector-export", first["id"])["current"] == second["id"]
    assert engine.json("remove", "detector-export", second["id"])["current"] is None
    code, _, err = engine("path", "detector-export")
    assert (code, "corral engine install detector-export" in err) == (6, True)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere the common index has a torch for the processor")
def test_an_index_without_a_torch_for_the_processor(engine: Command, short_tmp: Path, paths: Paths) -> None:
    """What it has instead is not fetched; the error says where the right one is."""
    lacking = short_tmp / "lacking"
    wheels.torch(lacking, "2.13.0", "cuda")
    wheels.onnx(lacking)
    wheels.transformers(lacking, "5.22.0")
    env = {"PIP_FIND_LINKS": str(lacking)}
    code, _, err = engine("install", "detector-export", "--version", "5.22.0", env=env)
    assert (code, "no torch==2.13.0+cpu for this Python" in err, "PyTorch's own index" in err) == (6, True, True), err
    assert Shelf(paths.engines_dir, "detector-export").all() == []


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as bound:  # not listening: it refuses, and nobody else gets it
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("version", [(), ("--version", "5.22.0")], ids=["locked", "index"])
def test_without_a_network(engine: Command, paths: Paths, nobody: int, version: tuple[str, ...]) -> None:
    """That the index was not reached is said, not that it lacks something; nothing is left."""
    env = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": f"http://127.0.0.1:{nobody}/simple", "PIP_RETRIES": "1"}
    code, _, err = engine("install", "detector-export", *version, env=env)
    assert (code, "cannot be reached" in err, "--wheels DIR" in err) == (6, True, True), err
    shelf = Shelf(paths.engines_dir, "detector-export")
    assert (shelf.all(), shelf.unfinished(), shelf.current()) == ([], [], None)


def test_the_doctor_says_what_each_is_for(paths: Paths) -> None:
    """An environment that is not there is told with its own purpose and variants."""
    found = {each.name: each for each in environments(paths)}
    assert found.keys() == {"vllm", "detector-export"}
    assert "make ONNX" in found["detector-export"].text
    assert found["detector-export"].fix == "corral engine install detector-export --variant cpu"
    assert found["vllm"].text == "not installed; it is for safetensors models"
    assert found["vllm"].fix == "corral engine install vllm --variant cpu   (or cuda, or rocm)"
