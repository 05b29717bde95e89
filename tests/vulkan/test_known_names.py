"""Variables that people set for other programs, seen in what a real engine does with lavapipe, a Vulkan device."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.config.paths import Paths
from support.architecture_files import write
from support.architectures import MID
from support.lavapipe import Driver, lavapipe, vulkan_server
from support.server import Server

pytestmark = [pytest.mark.vulkan, pytest.mark.timeout(900)]  # each start compiles the shaders that it needs
LAYERS = MID.layers + 1
SOME = 2


def config(source: Path) -> str:
    """Nothing in it says anything of GPUs: that is what the variables are for."""
    return (
        f"executables: {{llama.cpp: {vulkan_server()}}}\nheadroom: 0\ntimeouts: {{hang: 10m, start: 10m}}\n"
        f"models: [{{name: m, source: {source}, context: 512, pin: true, args: [-lv, '4', --no-warmup]}}]\n"
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "m.gguf", "llama", MID)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return lavapipe(tmp_path)


def started(server: Server) -> tuple[str, str, str | None, dict[str, str]]:
    """What the model's engine wrote, its placement, why it is degraded, and its own environment."""
    server.client.start("m")
    (unit,) = [each for each in server.client.units() if each.model == "m"]
    assert unit.pid is not None
    pairs = (each.partition("=") for each in Path(f"/proc/{unit.pid}/environ").read_text().split("\0") if each)
    environment = {name: value for name, _, value in pairs}
    return "\n".join(server.client.logs("m", 100_000)), unit.placement, unit.degraded, environment


def test_layers_and_the_backend_by_their_names(paths: Paths, driver: Driver, source: Path) -> None:
    """LLAMA_GPU_LAYERS says how many layers are on the device that LLAMA_VULKAN_ENABLE=1 asks for, by the engine's own
    count; what ROCm needs to know of a card reaches the engine too."""
    names = {"LLAMA_GPU_LAYERS": str(SOME), "LLAMA_VULKAN_ENABLE": "1", "HSA_OVERRIDE_GFX_VERSION": "10.3.0"}
    with Server(paths, config(source), env=driver.env | names) as server:
        text, _, degraded, environment = started(server)
        assert degraded is None
        assert f"offloaded {SOME}/{LAYERS} layers to GPU" in text
        assert environment["HSA_OVERRIDE_GFX_VERSION"] == "10.3.0"
        argv = server.client.plan("m").argv
        assert argv[argv.index("--gpu-layers") + 1] == str(SOME)
        assert argv[argv.index("--device") + 1] == "Vulkan0"


def test_vulkan_turned_off(paths: Paths, driver: Driver, source: Path) -> None:
    """With LLAMA_VULKAN_ENABLE=0 nothing is on the device, although it is there, and that is no fall-back."""
    with Server(paths, config(source), env=driver.env | {"LLAMA_VULKAN_ENABLE": "0"}) as server:
        text, placement, degraded, _ = started(server)
        assert degraded is None and "gpu" not in placement
        assert "llvmpipe" not in text and "Vulkan0" not in text


def test_no_layers(paths: Paths, driver: Driver, source: Path) -> None:
    """LLAMA_GPU_LAYERS=0 leaves all of them on the processor."""
    with Server(paths, config(source), env=driver.env | {"LLAMA_GPU_LAYERS": "0"}) as server:
        text, placement, degraded, _ = started(server)
        assert degraded is None and "gpu" not in placement
        assert not any(f"offloaded {count}/{LAYERS} layers" in text for count in range(1, LAYERS + 1))


def test_which_devices_llama_cpp_takes(paths: Paths, driver: Driver, source: Path) -> None:
    """GGML_VK_VISIBLE_DEVICES reaches the engine: with lavapipe's number it is taken, though the processor plays it;
    without the variable it is not, and the model is on the processor and says so."""
    with Server(paths, config(source), env=driver.env) as server:
        text, placement, degraded, environment = started(server)
        assert (placement, degraded) == ("whole on gpu0", None)
        assert environment["GGML_VK_VISIBLE_DEVICES"] == "0" and "llvmpipe" in text
    alone = {"VK_ICD_FILENAMES": str(driver.manifest)}
    with Server(paths, config(source), env=alone) as server:
        text, placement, degraded, _ = started(server)
        assert placement == "on the processor"
        assert degraded is not None and f"VK_ICD_FILENAMES is {driver.manifest}" in degraded
        assert degraded.endswith("finds no GPU)")
        assert f"offloaded {LAYERS}/{LAYERS} layers to GPU" not in text
