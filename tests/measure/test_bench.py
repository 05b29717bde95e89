"""`corral bench concurrency` with a real engine, and what it says when requests fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.cli.main import run as corral
from corral.config.paths import Paths
from corral.connection import Address
from corral.measure.load import Work, run
from support.server import Server

CONFIG = "models: [{name: demo, source: 'builtin:demo', parallel: 4, context: 512, executable: embedded}]"


@pytest.mark.timeout(600)
def test_both_ways_are_measured(paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each level through Corral and straight to its engine, all tokens made and no request failed."""
    with Server(paths, CONFIG):
        asked = [
            "bench",
            "concurrency",
            "demo",
            "--most",
            "2",
            "--runs",
            "2",
            "--each",
            "1",
            "--words",
            "8",
            "--tokens",
            "3",
        ]
        assert corral(["--json", *asked]) == 0
        found = json.loads(capsys.readouterr().out)
        assert set(found["points"]) == {"corral", "direct"}
        for points in found["points"].values():
            assert [each["level"] for each in points] == [1, 2]
            assert [each["requests"] for each in points] == [2, 4]
            assert all(each["failed"] == 0 and each["tokens_per_s"] > 0 for each in points)
        assert corral([*asked, "--no-direct"]) == 0
        shown = capsys.readouterr().out
        assert "AT ONCE" in shown and "corral: " in shown and "direct" not in shown


@pytest.mark.timeout(300)
async def test_what_fails_is_in_its_shot(paths: Paths) -> None:
    """A model that is not there, and a server that is not: the shots say so, and nothing is counted as a token."""
    with Server(paths, CONFIG) as server:
        refused = await run(Address(port=int(server.url.rpartition(":")[2])), Work("nope"), 2, 3)
        assert len(refused.shots) == 3 and not refused.good and "404" in refused.shots[0].problem
    nobody = await run(Address(socket=Path("/nonexistent.sock")), Work("demo"), 1, 1)
    assert "FileNotFoundError" in nobody.shots[0].problem and nobody.tokens_per_s == 0.0
