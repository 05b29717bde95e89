"""Loads measured by a real server: what it finds, and what the next one knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.api import UnitInfo
from corral.config.paths import Paths
from corral.ledger.ledger import read_ledger
from support.architecture_files import write
from support.architectures import MID
from support.ggufs import write_random
from support.llama import llama_server
from support.rpc import free_port, models_yaml, rpc_server
from support.server import Server, until


def unit(server: Server) -> UnitInfo:
    (found,) = [each for each in server.client.units() if each.state != "stopped"]
    return found


def verbose(server: Server) -> bool:
    return any("buffer size =" in line for line in server.client.logs("m", 10_000))


def test_measured_and_remembered(paths: Paths, tmp_path: Path) -> None:
    """The first load is measured from the engine's own words, and shown; the next server knows the figure and starts
    the engine without them; a kill of the server in between loses neither the figure nor the engine."""
    model = write_random(tmp_path / "m.gguf")
    config = f"models: [{{name: m, source: '{model}', executable: embedded, context: 256}}]"
    with Server(paths, config) as server:
        server.client.start("m")
        until(lambda: unit(server).footprint_origin == "measured", "the measure")
        measured, pid = unit(server).footprint_bytes, unit(server).pid
        assert measured is not None
        assert measured > model.stat().st_size // 2
        assert verbose(server)
        assert any(each.kind == "unit.measured" for each in server.client.events())
        (device,) = [each for each in server.client.devices() if each.name == "cpu"]
        assert device.total_bytes is not None
        assert device.free_bytes is not None
        assert 0 < device.used_bytes < device.total_bytes
        assert device.free_bytes <= device.total_bytes
        (figures,) = until(lambda: read_ledger(paths.state_dir), "the file").values()
        assert figures.loads == 1
        assert figures.load_s is not None
        server.kill()
        server.start()
        assert unit(server).pid == pid  # said more than it would have to now, and is adopted all the same
        assert unit(server).footprint_bytes == measured
        server.client.restart("m")
        assert unit(server).footprint_origin == "measured"
        assert unit(server).footprint_bytes == measured
        assert not verbose(server)
        until(lambda: [each.loads for each in read_ledger(paths.state_dir).values()] == [2], "the measure")


@pytest.mark.engines
def test_by_device(paths: Paths, tmp_path: Path) -> None:
    """What a `llama-server` reports of a GPU is that GPU's, by the name that Corral has for it."""
    source, port = write(tmp_path / "m.gguf", "llama", MID), free_port()
    config = models_yaml(llama_server(), port, source)
    with rpc_server(llama_server(), port), Server(paths, config) as server:
        server.client.start("m")
        assert unit(server).device == "gpu0"
        until(lambda: unit(server).footprint_origin == "measured", "the measure")
        (figures,) = until(lambda: read_ledger(paths.state_dir), "the file").values()
        assert set(figures.devices) == {"cpu", "gpu0"}
        assert figures.devices["gpu0"]["weights"] > source.stat().st_size // 2
        assert {"cache", "compute"} <= set(figures.devices["gpu0"])
