"""Mesa's lavapipe, a real Vulkan device, under a real `llama-server` through Corral: layers on it, and life without."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

import pytest

from corral.api import UnitInfo
from corral.config.paths import Paths
from support.architecture_files import write
from support.architectures import MID
from support.asking import ask as fetched
from support.exposition import read
from support.lavapipe import Driver, faulty, lavapipe, vulkan_server
from support.server import Server

pytestmark = [pytest.mark.vulkan, pytest.mark.timeout(900)]  # each start compiles the shaders that it needs
MIB = 1 << 20
WITHIN_S = 600.0
LAYERS = MID.layers + 1


def config(source: Path, *, memory: str = "{}", model: str = "") -> str:
    return (
        f"executables: {{llama.cpp: {vulkan_server()}}}\nmemory: {memory}\nheadroom: 0\n"
        "timeouts: {hang: 10m, start: 10m}\nmodels:\n"
        f"  - {{name: m, source: {source}, context: 512, pin: true, args: [-lv, '4', --no-warmup], {model}}}\n"
    )


def unit(server: Server) -> UnitInfo:
    (found,) = [each for each in server.client.units() if each.model == "m"]
    return found


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.2)


def ask(server: Server, *, stream: bool = False, tokens: int = 4) -> HTTPResponse:
    body = {"model": "m", "prompt": "Hello", "max_tokens": tokens, "stream": stream, "temperature": 0}
    request = urllib.request.Request(
        f"{server.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=WITHIN_S)
    return answer


def degraded_header(server: Server) -> str | None:
    with ask(server) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] > 0
        return answer.headers["x-corral-degraded"]


def log(server: Server) -> str:
    """What the newest engine wrote."""
    return "\n".join(server.client.logs("m", 100_000))


def on_vulkan(text: str) -> float:
    """MiB of weights that the engine says it has on the device, in its last load."""
    return sum(map(float, re.findall(r"Vulkan0 +model +buffer size = +([\d.]+) MiB", text)))


def told(server: Server) -> tuple[float, float]:
    """By the metrics: whether the engine does without its GPU, and how often one was started so."""
    found = {
        sample.name: sample.value
        for family in read(fetched(server.url, "/metrics").body.decode())
        for sample in family.samples
        if sample.name == "corral_unit_degraded" or sample.labels.get("reason") == "cpu"
    }
    return found["corral_unit_degraded"], found["corral_fallbacks_total"]


def events(server: Server, kind: str) -> list[str]:
    return [each.text for each in server.client.events(model="m") if each.kind == kind]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "m.gguf", "llama", MID)


def test_layers_are_offloaded(paths: Paths, tmp_path: Path, source: Path) -> None:
    """Every layer is on the device, by Corral's word and by the engine's own, and it answers."""
    driver = lavapipe(tmp_path)
    with Server(paths, config(source), env=driver.env) as server:
        server.client.start("m")
        found = unit(server)
        assert (found.placement, found.degraded) == ("whole on gpu0", None)
        assert found.gpu_bytes is not None and found.gpu_bytes > 0
        text = log(server)
        assert f"offloaded {LAYERS}/{LAYERS} layers to GPU" in text
        assert on_vulkan(text) > 10
        assert "llvmpipe" in text
        assert degraded_header(server) is None
        assert _after(server.client.plan("m").argv, "--device") == ["--device", "Vulkan0"]


def _after(argv: list[str], flag: str) -> list[str]:
    at = argv.index(flag)
    return argv[at : at + 2]


@pytest.mark.lasts(40)
def test_without_its_driver_on_the_processor_and_back(paths: Paths, tmp_path: Path, source: Path) -> None:
    """The driver's file is taken away: the same model comes up on the processor, and says so in ps, log, events, the
    metrics and the answer's fields. The file is back: so are the layers, without a restart of Corral."""
    driver = lavapipe(tmp_path)
    with Server(paths, config(source), env=driver.env) as server:
        server.client.start("m")
        assert unit(server).degraded is None
        assert told(server) == (0, 0)
        driver.take_away()
        server.client.restart("m")
        found = unit(server)
        why = f"cpu ({driver.manifest}, which VK_DRIVER_FILES names, is not there)"
        assert found.degraded == why
        assert f"degraded: {why}" in found.warnings
        assert any(f"degraded: {why}" in text for text in events(server, "unit.warning"))
        assert (degraded_header(server) or "").startswith(f"cpu ({driver.manifest}, which ")
        assert told(server) == (1, 1)
        text = log(server)
        assert on_vulkan(text.rpartition("constructing llama_context")[0].rpartition("llama_model_loader")[2]) == 0
        pid, before = server.pid, found.unit
        driver.install()
        until(lambda: _is_back(server, before), "back on the device")
        assert events(server, "unit.gpu_back") == ["m: a GPU is there again"]
        assert unit(server).placement == "whole on gpu0"
        assert degraded_header(server) is None
        assert told(server) == (0, 1)
        assert server.client.status().pid == pid


def _is_back(server: Server, before: str) -> bool:
    found = [each for each in server.client.units() if each.model == "m" and each.state == "ready"]
    return bool(found) and found[0].degraded is None and found[0].unit != before


def test_as_many_layers_as_its_budget_holds(paths: Paths, tmp_path: Path, source: Path) -> None:
    """A budget for the device that holds some of the layers: so many are there, by the engine's own count and bytes."""
    driver = lavapipe(tmp_path)
    with Server(paths, config(source, memory="{gpu0: 30MiB}"), env=driver.env) as server:
        server.client.start("m")
        found = unit(server)
        match = re.fullmatch(rf"([1-{MID.layers}]) of {LAYERS} layers on gpu0", found.placement)
        assert match is not None, found.placement
        assert found.degraded is None
        text = log(server)
        assert f"offloaded {match[1]}/{LAYERS} layers to GPU" in text
        assert 0 < on_vulkan(text) <= 30
        assert found.gpu_bytes is not None and found.gpu_bytes <= 30 * MIB
        assert degraded_header(server) is None


def test_devices_that_are_named_are_taken_or_missed(paths: Paths, tmp_path: Path, source: Path) -> None:
    """By the engine's name or Corral's the device is used; one that is not there leaves the processor, and says so."""
    driver = lavapipe(tmp_path)
    with Server(paths, config(source, model="devices: [Vulkan0], gpu_backend: vulkan"), env=driver.env) as server:
        server.client.start("m")
        assert (unit(server).placement, unit(server).degraded) == ("whole on gpu0", None)
        server.write(config(source, model="devices: [gpu1]"))
        server.client.reload()
        server.client.restart("m")
        assert re.search(r"^cpu \(devices is gpu1, but .* finds gpu0 \(Vulkan0\)\)$", unit(server).degraded or "")
        server.write(config(source, model="gpu_backend: not-vulkan"))
        server.client.reload()
        server.client.restart("m")
        assert on_vulkan(_last_load(server)) == 0


def _last_load(server: Server) -> str:
    return log(server).rpartition("llama_model_loader: loaded meta data")[2]


def broken(folder: Path, how: str) -> Driver:
    driver = faulty(folder)
    driver.fail(how)
    return driver


@pytest.mark.lasts(45)
@pytest.mark.parametrize("how", ["crash", "hang"])
def test_a_driver_that_fails_costs_a_deadline(paths: Paths, tmp_path: Path, source: Path, how: str) -> None:
    """A driver that takes down or holds whoever loads it is met by a child alone: the model comes up on the processor,
    marked, its engine never opens the driver, and the next start does not ask again."""
    driver = broken(tmp_path, how)
    with Server(paths, config(source), env=driver.env) as server:
        server.client.start("m")
        found = unit(server)
        assert found.degraded is not None and "its GPUs cannot be listed" in found.degraded
        assert (degraded_header(server) or "").startswith("cpu (")
        began = time.monotonic()
        server.client.plan("m")
        assert time.monotonic() - began < 15  # the child's deadline is 20 s, and it is not waited for again
        driver.mend()
        driver.install()  # newer than it was
        until(lambda: _is_back(server, found.unit), "on the device after all")


@pytest.mark.lasts(12)
def test_a_device_lost_in_the_middle_of_an_answer(paths: Paths, tmp_path: Path, source: Path) -> None:
    """The GPU is lost while a stream runs. llama.cpp lives on and says so: that is not passed on, another engine comes,
    and the stream goes on to its end on the processor, marked, as is the next answer."""
    driver = faulty(tmp_path)
    with Server(paths, config(source), env=driver.env) as server:
        server.client.start("m")
        assert unit(server).placement == "whole on gpu0"
        with ask(server, stream=True, tokens=200) as answer:
            lines = iter(answer)
            first = next(line for line in lines if line.startswith(b"data: "))
            assert json.loads(first[6:])["choices"]
            driver.fail("lost")
            rest = list(lines)
        assert any(line.startswith(b": corral.resumed unit=m.") for line in rest), rest[-4:]
        assert b"".join(rest).endswith(b"data: [DONE]\n\n") and not any(b'"error"' in line for line in rest)
        assert (degraded_header(server) or "").startswith("cpu (the GPU failed (ErrorDeviceLost")
        found = unit(server)
        assert found.degraded == "cpu (the GPU failed (ErrorDeviceLost))"
        assert found.placement == "on the processor"


def test_a_device_lost_before_the_answer(paths: Paths, tmp_path: Path, source: Path) -> None:
    """A request of whose answer nothing was sent when the GPU was lost is answered all the same, on the processor."""
    driver = faulty(tmp_path)
    with Server(paths, config(source), env=driver.env) as server:
        server.client.start("m")
        assert unit(server).degraded is None
        driver.fail("lost")
        assert (degraded_header(server) or "").startswith("cpu (the GPU failed (ErrorDeviceLost")
        assert events(server, "unit.fallback")
