"""`corral start --dry-run`: what a start would run is shown by the code that starts, and nothing is started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from corral.config.paths import Paths
from corral.errors import CorralError
from support.ggufs import write_chain
from support.server import Server


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    source = write_chain(module_paths.state_dir.parent / "m.gguf", ["a"])
    m = f"{{name: m, source: '{source}', context: 256, env: {{OMP_NUM_THREADS: '1'}}}}"
    with Server(module_paths, f"models: [{m}, {{name: demo, source: 'builtin:demo'}}]") as started:
        yield started


def test_a_plan_is_what_then_runs(server: Server) -> None:
    """Nothing runs by it; the engine that is started next has that very command line, socket and footprint."""
    planned = server.client.plan("m")
    assert server.client.units() == [] and not list(server.paths.units_dir.iterdir())
    assert (planned.unit, planned.runner, planned.image, planned.context) == ("m.1", "process", None, 256)
    assert planned.command == planned.argv and planned.env["OMP_NUM_THREADS"] == "1"
    assert [each.source for each in planned.mounts] == [str(server.paths.state_dir.parent / "m.gguf")]
    assert planned.footprint["cpu"] > 0
    server.client.start("m")
    [unit] = server.client.units()
    assert (unit.unit, unit.endpoint, unit.footprint_bytes) == (
        "m.1",
        planned.endpoint,
        sum(planned.footprint.values()),
    )
    assert unit.pid is not None
    ran = Path(f"/proc/{unit.pid}/cmdline").read_bytes().decode().split("\0")
    assert set(planned.argv[planned.argv.index("--model") :]) <= set(ran)
    assert server.client.plan("m").unit == "m.2"


def test_the_command_shows_it(server: Server) -> None:
    """A command line to copy, or JSON; over TCP it is refused, because it names files and variables."""
    command = [sys.executable, "-m", "corral"]
    words = subprocess.run(
        [*command, "start", "demo", "--dry-run"], env=server.environment, capture_output=True, text=True, check=True
    ).stdout
    assert "--model" in words and "demo.1" in words and "footprint" in words
    told = subprocess.run(
        [*command, "--json", "start", "demo", "--dry-run"],
        env=server.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(told)["unit"] == "demo.1"
    assert httpx2.get(f"{server.url}/control/plan/demo").status_code == 403
    with pytest.raises(CorralError) as error:
        server.client.plan("nobody")
    assert error.value.code == "model_not_found"
