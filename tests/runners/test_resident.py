"""What running engines hold, read from the warden's records."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from corral.config.paths import Paths
from corral.engines.plan import Footprint
from corral.models.memory.predict import Parts
from corral.runners.record import dump_plan
from corral.runners.resident import held_now
from support.engines import plan_of
from support.server import Server


def record(folder: Path, name: str, pid: int, **more: object) -> None:
    parts = {"cpu": Parts(100, 20, 3), "gpu0": Parts(1000, 200, 30)}
    footprint = Footprint({device: each.total for device, each in parts.items()}, parts=parts)
    plan = dump_plan(replace(plan_of("x"), footprint=footprint))
    (folder / f"{name}.json").write_text(json.dumps({"unit": "m.1", "pid": pid, "plan": plan, **more}))


def test_only_what_runs_counts(tmp_path: Path) -> None:
    """Engines that have ended, records of dead processes and foreign files count nothing; mapped weights neither."""
    record(tmp_path, "one", os.getpid())
    record(tmp_path, "ended", os.getpid(), exit={"code": 0})
    record(tmp_path, "dead", 1 << 22)
    (tmp_path / "odd.json").write_text("[1]")
    (tmp_path / "torn.json").write_text('{"pid": 1')
    assert held_now(tmp_path) == {"cpu": 23, "gpu0": 1230}
    assert held_now(tmp_path / "none") == {}


def test_an_engine_of_a_server_counts(paths: Paths) -> None:
    """A model that a real server has loaded is found, and no more once it was stopped."""
    with Server(paths) as server:
        server.client.start("demo")
        assert held_now(paths.warden_dir)["cpu"] > 0
        server.client.stop("demo")
        assert held_now(paths.warden_dir) == {}
