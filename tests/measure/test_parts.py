"""Ways to serve a model by device, energy from samples, and lists of numbers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.measure.backends import file_of, kept_flags, ways_of
from corral.measure.power import Power, joules


@dataclass
class Engine:
    state: str
    path: str
    devices: list[str] = field(default_factory=list)


def test_each_backend_of_each_program_is_a_way() -> None:
    """The processor with the model's own engine first; a program with GPUs brings the processor with it as well."""
    engines = [
        Engine("embedded", "/x/xllamacpp.so"),
        Engine("built", "/a/llama-server", ["Vulkan0: Radeon", "Vulkan1: llvmpipe", "CUDA0: RTX", "RPC0[box]: far"]),
        Engine("on PATH", "/b/llama-server"),
        Engine("broken: no", "/c/llama-server", ["Vulkan0: x"]),
        Engine("built", "/d/llama-server", ["cannot be asked: it hangs", "Vulkan0: llvmpipe (LLVM 15)"]),
    ]
    found = ways_of(engines, "embedded")
    assert [(way.name, way.program, way.backend) for way in found] == [
        ("cpu", "embedded", None),
        ("cpu-2", "/a/llama-server", None),
        ("vulkan", "/a/llama-server", "vulkan"),
        ("cuda", "/a/llama-server", "cuda"),
        ("cpu-3", "/d/llama-server", None),
        ("vulkan-2", "/d/llama-server", "vulkan"),
    ]
    assert found[2].devices == ("Vulkan0: Radeon", "Vulkan1: llvmpipe")
    assert [way.software for way in found] == [False, False, False, False, False, True]
    assert found[2].settings == {"executable": "/a/llama-server", "gpu_backend": "vulkan"}
    assert (found[0].settings["executable"], found[0].settings["gpu_layers"]) == ("embedded", 0)
    assert (
        found[1].settings["env"]["CUDA_VISIBLE_DEVICES"] == "-1"
    )  # the processor alone: nothing is computed elsewhere


def test_without_gpus_there_is_the_processor() -> None:
    """Once, with the model's own program."""
    found = ways_of([Engine("embedded", "/x.so"), Engine("on PATH", "/b/llama-server")], "/b/llama-server")
    assert [(way.name, way.program) for way in found] == [("cpu", "/b/llama-server")]
    assert file_of(["llama-server", "--model", "/m.gguf", "-c", "1"]) == "/m.gguf" and file_of(["x", "-m"]) is None
    assert kept_flags(["x", "--threads", "4", "--ctx-size", "9", "-fa", "on", "-t"]) == ["--threads", "4", "-fa", "on"]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1000)), min_size=2, max_size=20))
def test_energy_lies_between_least_and_most_power(samples: list[tuple[float, float]]) -> None:
    """Over the time from the first to the last sample."""
    found = sorted(samples)
    took = found[-1][0] - found[0][0]
    energy = joules(found)
    assert energy is not None
    assert min(w for _, w in found) * took - 1e-6 <= energy <= max(w for _, w in found) * took + 1e-6


def test_energy_is_of_devices_that_tell() -> None:
    """Constant power is power by time; a device that says nothing adds nothing, and none at all is not zero."""
    looked = threading.Semaphore(0)

    def read() -> dict[str, float | None]:
        looked.release()
        return {"gpu0": 50.0, "cpu": None}

    with Power(read, every_s=0.005) as power:
        for _ in range(5):
            assert looked.acquire(timeout=30)
    assert power.devices == ["gpu0"] and power.watts == pytest.approx(50.0)
    assert power.joules == pytest.approx(50.0 * (power.samples[-1][0] - power.samples[0][0]))
    with Power(lambda: {"cpu": None}) as silent:
        pass
    assert silent.joules is None and silent.watts is None and silent.devices == []
    assert joules([(1.0, 5.0)]) is None
