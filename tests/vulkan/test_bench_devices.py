"""`corral bench devices` with a real Vulkan device: Mesa's lavapipe beside the processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import uvloop

from corral.cli.main import run as corral
from corral.config.paths import Paths
from support.architecture_files import write
from support.architectures import MID
from support.lavapipe import lavapipe, vulkan_server
from support.server import Server

# Each start compiles the shaders that it needs.
pytestmark = [pytest.mark.vulkan, pytest.mark.lasts(40), pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True, scope="module")
def _loops_have_been_made() -> None:
    """libuv makes a pipe with the first loop of a process and keeps it: before anybody counts what is left."""
    uvloop.new_event_loop().close()


def test_the_processor_and_vulkan_side_by_side(
    paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Both with the same program, layers really on the device, figures of both; and it is said that this is no GPU."""
    for name, value in lavapipe(tmp_path).env.items():
        monkeypatch.setenv(name, value)
    source = write(tmp_path / "m.gguf", "llama", MID)
    config = f"""
        executables: {{llama.cpp: {vulkan_server()}}}
        headroom: 0
        timeouts: {{hang: 10m, start: 10m}}
        models: [{{name: m, source: {source}, context: 512, gpu_layers: 0, args: [--threads, '1']}}]
    """
    page = tmp_path / "devices.html"
    with Server(paths, config):
        asked = ["--no-cold", "--runs", "2", "--prompt-tokens", "32", "--output-tokens", "8", "--html", str(page)]
        assert corral(["--json", "bench", "devices", "m", *asked]) == 0
        found = json.loads(capsys.readouterr().out)
    subjects = found["subjects"]
    assert list(subjects) == ["cpu", "vulkan"]
    assert subjects["cpu"]["program"] == subjects["vulkan"]["program"]
    assert subjects["vulkan"]["degraded"] is None and subjects["vulkan"]["placement"] == "whole on gpu0"
    assert any("Vulkan0: llvmpipe" in device for device in subjects["vulkan"]["devices"])
    assert any("the processor behind a GPU's interface" in note for note in found["notes"])
    names = {"prompt_per_s", "generation_per_s", "engine_generation_per_s"}
    # A device that computes shaders on a processor is slow to watch; an answer of the processor's may come all at once.
    at_once = {"generation_per_s"} if any("came all at once" in note for note in found["notes"]) else set()
    for subject, seen in (("cpu", names - at_once), ("vulkan", names)):
        for name in seen:
            rates = [f for f in found["figures"] if (f["subject"], f["name"], f["at"]) == (subject, name, 0.0)]
            assert len(rates) == 1 and len(rates[0]["values"]) == 2 and min(rates[0]["values"]) > 0
    gpu = [f for f in found["figures"] if (f["subject"], f["name"]) == ("vulkan", "gpu_bytes")]
    assert gpu and gpu[0]["median"] > 1 << 20 and "<svg" in page.read_text()
