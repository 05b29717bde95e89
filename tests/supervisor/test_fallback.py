"""Steps down after memory or a GPU failed: the order, the memory of it, and units that take them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Rung
from corral.engines.adapter import Start
from corral.engines.placement import RUNGS, TOP, Step, next_step
from corral.engines.plan import Endpoint, LaunchPlan
from corral.errors import StartFailed
from corral.runners.runner import Exit
from corral.supervisor.fallback import LOOK_AFTER_S, Fallback, gave_up
from corral.supervisor.gpu_return import GpuReturn
from corral.supervisor.reasons import GPU_MEMORY, explain
from corral.supervisor.unit import Unit
from support.fake_adapter import FakeAdapter
from support.unit_world import world

MODEL = ModelSettings("m", Path("/nowhere"))
GPU_FULL = StartFailed("m ended: the GPU's memory was not enough (cudaMalloc failed: out of memory)", kind="memory")
RAM_FULL = StartFailed("m ended: the memory was not enough (std::bad_alloc)", kind="memory")
GPU_GONE = StartFailed("m ended: the GPU failed (CUDA error: unspecified launch failure)", kind="device")


def plan(step: Step = TOP, left: tuple[Rung, ...] = RUNGS, devices: tuple[str, ...] = ("gpu0",)) -> LaunchPlan:
    made = FakeAdapter().plan(Start(MODEL, generation=1, endpoint=Endpoint(), step=step))
    return replace(made, left=left, devices=devices)


def fallback(model: ModelSettings = MODEL) -> Fallback:
    made = Fallback()
    made.for_start(model)
    return made


def test_without_a_configured_order_batch_goes_first_and_gpus_last() -> None:
    """Each failure for want of the GPU's memory takes the next of batch, context, layers and processor."""
    found, left = fallback(), list(RUNGS)
    said = []
    while (words := found.after(GPU_FULL, plan(found.step, tuple(left)), 0.0)) is not None:
        said.append(words)
        left.pop(0)
    assert said == [
        "with a smaller batch", "with a shorter context", "with fewer layers on GPUs", "without GPUs",
    ]  # fmt: skip
    assert found.step == Step(1, 1, 1, "the GPU's memory was not enough")
    assert found.exhausted
    assert found.told(GPU_FULL).message.endswith("tried " + ", then ".join(said))


@given(st.permutations(RUNGS), st.integers(0, 4), st.dictionaries(st.sampled_from(RUNGS), st.integers(0, 3)))
def test_steps_keep_to_the_order_and_end(order: list[Rung], length: int, depth: dict[Rung, int]) -> None:
    """Only what is allowed is made smaller, in its order, as far as there is something, and then it is over."""
    allowed, step, taken = tuple(order[:length]), TOP, list[Rung]()
    for _ in range(20):
        left = [rung for rung in RUNGS if taken.count(rung) < depth.get(rung, 0)]
        found = next_step(step, left, allowed, "why")
        if found is None:
            break
        step, rung = found
        taken.append(rung)
    assert taken == [rung for rung in allowed for _ in range(depth.get(rung, 0))]


def test_the_machines_own_memory_is_not_spared_by_leaving_gpus() -> None:
    """Where it was not the GPU that was full, layers stay on it."""
    found = fallback()
    assert found.after(RAM_FULL, plan(left=("layers", "cpu")), 0.0) is None
    assert found.after(RAM_FULL, plan(left=("context", "layers", "cpu")), 0.0) == "with a shorter context"


def test_never_means_never() -> None:
    """An empty order leaves the failure as it is, and nothing is said to have been tried."""
    found = fallback(replace(MODEL, on_out_of_memory=()))
    assert found.after(GPU_FULL, plan(), 0.0) is None
    assert not found.exhausted
    assert found.told(GPU_FULL) is GPU_FULL


def test_it_is_remembered_until_the_configuration_changes_or_the_unit_rested() -> None:
    """The next start is as far down as the last, unless the model is configured otherwise or was not needed."""
    found = fallback()
    found.after(GPU_FULL, plan(), 0.0)
    assert found.for_start(MODEL) == Step(batch=1)
    assert found.for_start(replace(MODEL, context=512)) == TOP
    found.after(GPU_FULL, plan(), 0.0)
    found.rested()
    assert found.for_start(replace(MODEL, context=512)) == TOP


def test_a_lost_gpu_is_done_without_and_looked_for() -> None:
    """After a GPU failed the next start does without, and it is looked for; each further loss doubles the time."""
    found = fallback()
    assert found.after(GPU_GONE, plan(), 100.0) == "without GPUs"
    assert found.step.cpu == "the GPU failed (CUDA error: unspecified launch failure)"
    assert found.look_at == 100.0 + LOOK_AFTER_S
    found.gpu_back()
    assert found.for_start(MODEL) == TOP
    assert not found.look_at
    found.after(GPU_GONE, plan(), 200.0)
    assert found.look_at == 200.0 + 2 * LOOK_AFTER_S
    found.gpu_back()
    found.after(GPU_GONE, plan(), 90_000.0)
    assert found.look_at == 90_000.0 + LOOK_AFTER_S


@pytest.mark.parametrize(
    ("model", "made"),
    [(replace(MODEL, cpu_fallback=False), plan()), (MODEL, plan(devices=("cpu",)))],
    ids=["not allowed", "no GPU was used"],
)
def test_a_gpu_is_not_always_done_without(model: ModelSettings, made: LaunchPlan) -> None:
    """Without cpu_fallback, or where no GPU was used, a GPU's failure stays a failure."""
    found = fallback(model)
    assert found.after(GPU_GONE, made, 0.0) is None
    assert found.step == TOP


@pytest.mark.parametrize(
    ("line", "kind", "on_gpu"),
    [
        ("CUDA error: out of memory", "memory", True),
        ("ROCm error: out of memory", "memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "memory", True),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: out of memory",
         "memory", True),
        ("llama_model_load: error loading model: unable to allocate Vulkan0 buffer", "memory", True),
        ("ggml_vulkan: Device memory allocation of size 9 failed.", "memory", True),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9", "memory", False),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory", False),
        ("CUDA error: an illegal memory access was encountered", "device", False),
        ("ROCm error: unspecified launch failure", "device", False),
        ("vk::Queue::submit: ErrorDeviceLost", "device", False),
        ("Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x2", "device", False),
        ("Remote RPC server crashed or returned malformed response", "device", False),
        ('error while handling argument "--device": invalid device: CUDA0', "device", False),
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "exit", False),
    ],
)  # fmt: skip
def test_what_engines_say_when_memory_or_a_gpu_fails(line: str, kind: str, on_gpu: bool) -> None:
    """A GPU's memory, the machine's own and a failed GPU are told apart by the engine's last words."""
    reason = explain(Exit(1, None), f"0.00.001.002 E {line}\n", "m")
    assert reason.kind == kind
    assert (GPU_MEMORY in reason.text) is on_gpu


FULL = ("--say", "alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: out of memory", "--exit-code", "1")


class Smaller(FakeAdapter):
    """Runs out of the GPU's memory until two rungs down."""

    rungs = ("batch", "layers", "cpu")
    well_at = 2
    devices = ("gpu0",)


async def test_a_start_that_ran_out_of_memory_comes_back_smaller(paths: Paths) -> None:
    """It fails, is free to start again at once, twice, each time smaller; then it is ready, and nobody got an error."""
    async with world(paths, *FULL, adapter=Smaller()) as w:
        for generation in (1, 2):
            await w.unit.start(w.model, generation)
            assert w.state == "backoff"
            _, _, error, retry_at = w.told.ended[-1]
            assert error is None
            assert retry_at <= clock.monotonic()
        await w.unit.start(w.model, 3)
        assert w.state == "ready"
        said = [event.data["next"] for event in w.events.since() if event.kind == "unit.fallback"]
        assert said == ["with a smaller batch", "with fewer layers on GPUs"]
        assert w.unit.plan is not None
        assert w.unit.plan.step == Step(batch=1, layers=1)
        await w.unit.stop("making room for another")
        await w.unit.start(w.model, 4)
        assert w.state == "ready"
        await w.unit.stop("it was idle")
        assert w.unit.fallback.step == TOP


async def test_after_the_last_step_it_failed_with_the_story(paths: Paths) -> None:
    """When nothing can be made smaller, the unit counts as failed at once, and its error says what was tried."""
    adapter = Smaller()
    adapter.well_at = 99
    async with world(paths, *FULL, adapter=adapter) as w:
        for generation in range(1, 5):
            await w.unit.start(w.model, generation)
        assert w.state == "failed"
        error = w.told.ended[-1][2]
        assert error is not None
        assert error.message.endswith("tried with a smaller batch, then with fewer layers on GPUs, then without GPUs")
        assert [each[2] for each in w.told.ended[:-1]] == [None, None, None]


async def test_a_lost_gpu_and_its_return(paths: Paths) -> None:
    """A unit whose GPU failed runs without it, marked degraded; once the GPU is back and it is idle, it starts anew."""
    adapter = FakeAdapter()
    adapter.devices, adapter.well_at = ("gpu0",), 1
    restarted = []
    async with world(paths, "--say", "CUDA error: unknown error", "--exit-code", "1", adapter=adapter) as w:
        await w.unit.start(w.model, 1)
        await w.unit.start(w.model, 2)
        assert w.state == "ready"
        assert w.unit.plan is not None
        assert w.unit.plan.degraded == "cpu (the GPU failed (CUDA error: unknown error))"
        busy = True

        def restart(unit: Unit, why: str) -> None:
            restarted.append((unit.model.name, why))

        back = GpuReturn(
            lambda: [w.unit], {"llama.cpp": adapter}, w.events, is_busy=lambda model: busy, restart=restart
        )
        adapter.gpus_there = True
        await back.look()
        assert restarted == []  # not yet time
        w.unit.fallback.look_at = 0.0
        await back.look()
        assert restarted == []  # in use
        busy, adapter.gpus_there = False, False
        await back.look()
        assert restarted == []  # not there
        adapter.gpus_there, w.unit.fallback.look_at = True, 0.0
        await back.look()
        assert restarted == [("m", "a GPU is there again")]
        assert w.unit.fallback.for_start(w.model) == TOP


def test_a_start_that_finds_no_gpu_tells_what_it_gave_up_and_a_step_down_has_told() -> None:
    assert gave_up(plan()) == {}
    assert gave_up(replace(plan(), degraded="cpu (no GPU)")) == {"gave_up": "cpu"}
    assert gave_up(replace(plan(TOP.without_gpus("it was lost")), degraded="cpu (it was lost)")) == {}
