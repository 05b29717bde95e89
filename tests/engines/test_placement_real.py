"""Planned layouts, run by a real `llama-server` whose GPUs are ggml's RPC devices, or by one short of memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines import layout
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint
from corral.engines.probing import probed
from corral.engines.rooms import Machine
from corral.hardware.devices import Device
from corral.models.formats.gguf import read_header
from corral.supervisor.gpu_return import GpuReturn
from corral.supervisor.unit import Unit
from support.architecture_files import write
from support.architectures import MID
from support.http import unix_request
from support.llama import llama_server
from support.rpc import free_port, rpc_server
from support.unit_world import world

pytestmark = pytest.mark.engines
MIB = 1 << 20
GIB = 1 << 30
LOUD = ("--no-warmup", "-lv", "4")


def machine(**budgets: int) -> Machine:
    cpu = Device("cpu", "", "the processor", 64 * GIB, 64 * GIB, "test")
    return Machine((cpu,), MappingProxyType(budgets))


def settings(source: Path, *ports: int, **more: object) -> ModelSettings:
    remotes = ("--rpc", ",".join(f"127.0.0.1:{port}" for port in ports))
    return ModelSettings("m", source, executable=str(llama_server()), args=(*remotes, *LOUD), **more)  # type: ignore[arg-type]


async def said_on_loading(paths: Paths, model: ModelSettings, adapter: LlamaCpp) -> tuple[Unit, str]:
    """The unit after a start that went well, ended again, and its engine's log."""
    async with world(paths, adapter=adapter) as w:
        await w.unit.start(model, 1)
        assert w.state == "ready", w.unit.last_error
        assert w.unit.log is not None
        return w.unit, await asyncio.to_thread(w.unit.log.read_text, errors="replace")


def buffers(log: str, port: int) -> float:
    """MiB of weights that the engine says it put on the RPC server."""
    found = re.findall(rf"RPC\d+\[127\.0\.0\.1:{port}\] +model +buffer size = +([\d.]+) MiB", log)
    return sum(map(float, found))


@pytest.mark.parametrize(
    ("budgets", "words", "devices"),
    [
        ({"gpu0": 400 * MIB, "gpu1": 300 * MIB}, "whole on gpu0", ("gpu0",)),
        ({"gpu0": 300 * MIB, "gpu1": 400 * MIB}, "whole on gpu1", ("gpu1",)),
        ({"gpu0": 28 * MIB, "gpu1": 28 * MIB}, "split over gpu0, gpu1", ("gpu0", "gpu1")),
        ({"gpu0": 25 * MIB, "gpu1": 1 * MIB}, "of 7 layers on gpu0", ("gpu0", "cpu")),
        ({"gpu0": 1 * MIB, "gpu1": 1 * MIB}, "on the processor", ("cpu",)),
    ],
)
async def test_layers_go_where_they_are_planned(
    paths: Paths, tmp_path: Path, budgets: Mapping[str, int], words: str, devices: tuple[str, ...]
) -> None:
    """Each place of the order is one that the engine really takes, with as many bytes on each device as planned; asked
    without loading, it says the same."""
    source, ports = write(tmp_path / "m.gguf", "llama", MID), (free_port(), free_port())
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(rpc_server(llama_server(), port))
        model = settings(source, *ports, context=512)
        model = replace(model, args=(*model.args, "--ubatch-size", "64"))
        unit, log = await said_on_loading(paths, model, LlamaCpp(lambda: machine(**budgets)))
        plan = unit.plan
        assert plan is not None
        best = layout.best(model, read_header(source), plan.room).least_bad
        told = await asyncio.to_thread(probed, model, 512, best.run, best.prediction, plan.room)
    for device, parts in plan.footprint.parts.items():
        assert told.devices[device].total == pytest.approx(parts.total, abs=MIB // 10)
    assert words in plan.placement
    assert plan.devices == devices
    assert plan.room.engine_names == ("RPC0", "RPC1")
    for number, port in enumerate(ports):
        there = plan.footprint.parts.get(f"gpu{number}")
        expected = there.weights / MIB if there is not None else 0.0
        assert buffers(log, port) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("keys", "words", "shares"),
    [
        ({"devices": ("gpu1",)}, "whole on gpu1", (0.0, 1.0)),
        ({"split": "layer"}, "split over gpu0, gpu1", (0.5, 0.5)),
        ({"split": "row", "tensor_split": (3.0, 1.0)}, "split over gpu0, gpu1", (0.75, 0.25)),
        ({"split": "none", "devices": ("gpu1", "gpu0")}, "whole on gpu0", (1.0, 0.0)),
    ],
)
async def test_devices_and_shares_are_those_that_are_asked_for(
    paths: Paths, tmp_path: Path, keys: dict[str, object], words: str, shares: tuple[float, float]
) -> None:
    """devices, split and tensor_split decide on which device a real engine puts how much, as planned."""
    source, ports = write(tmp_path / "m.gguf", "llama", MID), (free_port(), free_port())
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(rpc_server(llama_server(), port))
        model = settings(source, *ports, context=512, **keys)
        unit, log = await said_on_loading(
            paths,
            model,
            LlamaCpp(lambda: machine(gpu0=400 * MIB, gpu1=400 * MIB if "devices" not in keys else 300 * MIB)),
        )
    plan = unit.plan
    assert plan is not None
    assert plan.placement == words
    assert any("cannot split by rows" in said for said in plan.warnings) is ("row" in keys.values())
    found = [buffers(log, port) for port in ports]
    for number, size in enumerate(found):
        there = plan.footprint.parts.get(f"gpu{number}")
        assert size == pytest.approx(there.weights / MIB if there is not None else 0.0, abs=0.02)
        assert size / sum(found) == pytest.approx(shares[number], abs=0.2)  # whole layers


async def test_a_gpu_that_dies_is_done_without_until_it_is_back(paths: Paths, tmp_path: Path) -> None:
    """An engine whose GPU vanishes ends; it comes back on the processor, degraded, and on the GPU once that is back."""
    source, port = write(tmp_path / "m.gguf", "llama", MID), free_port()
    model = settings(source, port, context=512)
    adapter = LlamaCpp(lambda: machine())
    async with world(paths, adapter=adapter) as w:
        with rpc_server(llama_server(), port) as gpu:
            await w.unit.start(model, 1)
            assert w.state == "ready", w.unit.last_error
            assert w.unit.plan is not None
            assert w.unit.plan.devices == ("gpu0",)
            gpu.kill()
            socket = w.unit.endpoint.socket
            assert socket is not None
            with pytest.raises(OSError, match=r".*"):
                await asyncio.to_thread(unix_request, socket, "POST", "/completion", {"prompt": [1, 2], "n_predict": 1})
            await w.told.until(lambda: bool(w.told.ended))
        assert w.told.ended[-1][2] is None
        await w.unit.start(model, 2)
        assert w.state == "ready", w.unit.last_error
        assert w.unit.plan.devices == ("cpu",)
        assert "RPC server crashed" in w.unit.plan.degraded
        socket = w.unit.endpoint.socket
        assert socket is not None
        status, _, _ = await asyncio.to_thread(
            unix_request, socket, "POST", "/completion", {"prompt": [1, 2], "n_predict": 1}
        )
        assert status == 200
        asked = []
        back = GpuReturn(
            lambda: [w.unit], {"llama.cpp": adapter}, w.events, is_busy=lambda model: False,
            restart=lambda unit, why: asked.append(why),
        )  # fmt: skip
        w.unit.fallback.look_at = 0.0
        await back.look()
        assert asked == []
        with rpc_server(llama_server(), port):
            w.unit.fallback.look_at = 0.0
            await back.look()
            assert asked == ["a GPU is there again"]
            await w.unit.stop("a GPU is there again")
            await w.unit.start(model, 3)
            assert w.state == "ready", w.unit.last_error
            assert (w.unit.plan.devices, w.unit.plan.degraded) == (("gpu0",), "")
            await w.unit.stop("enough")


def test_remote_devices_are_listed_by_the_engine(tmp_path: Path) -> None:
    """`--rpc` in a model's args is part of what its engine is asked for GPUs, and a plan can be made again alone."""
    source, port = write(tmp_path / "m.gguf", "llama", MID), free_port()
    model = settings(source, port)
    adapter = LlamaCpp(lambda: machine(gpu0=64 * MIB))
    with rpc_server(llama_server(), port):
        one = adapter.plan(Start(model, generation=1, endpoint=Endpoint(socket=tmp_path / "s")))
    again = LlamaCpp().plan(Start(model, generation=1, endpoint=Endpoint(socket=tmp_path / "s"), room=one.room))
    assert one == again


async def limited(paths: Paths, source: Path, folder: Path) -> Path:
    """A `llama-server` that may have 300 MiB more of address space than it takes with a short context."""
    program = folder / "llama-server"
    # One arena: how many threads meet in malloc, each of which reserves 64 MiB then, is chance.
    start = f'export MALLOC_ARENA_MAX=1\nexec {llama_server()} "$@"\n'
    program.write_text(f"#!/bin/sh\n{start}")
    program.chmod(0o755)
    async with world(paths, adapter=LlamaCpp(lambda: machine())) as w:
        await w.unit.start(ModelSettings("m", source, executable=str(program), context=512), 1)
        assert w.state == "ready", w.unit.last_error
        assert w.unit.running is not None
        status = await asyncio.to_thread(Path(f"/proc/{w.unit.running.pid}/status").read_text)
        await w.unit.stop("enough")
    most = int(re.findall(r"VmPeak:\s+(\d+) kB", status)[0]) + (300 << 10)
    program.write_text(f"#!/bin/sh\nulimit -v {most}\n{start}")
    return program


async def test_an_engine_short_of_memory_comes_back_with_a_shorter_context(paths: Paths, tmp_path: Path) -> None:
    """A real allocation that fails: the next starts take less of what may be made smaller, until one runs."""
    source = write(tmp_path / "m.gguf", "llama", MID)
    program = str(await limited(paths, source, tmp_path))
    model = ModelSettings("m", source, executable=program, context=131072, on_out_of_memory=("context", "cpu"))
    async with world(paths, adapter=LlamaCpp(lambda: machine())) as w:
        await w.unit.start(model, 1)
        assert (w.state, w.told.ended[-1][2]) == ("backoff", None)
        assert w.unit.reason is not None
        assert "the memory was not enough" in w.unit.reason
        generation = 2
        while w.state == "backoff" and generation < 8:
            await w.unit.start(model, generation)
            generation += 1
        assert w.state == "ready", w.unit.last_error
        plan = w.unit.plan
        assert plan is not None
        assert plan.context < 131072
        assert f"context {plan.context} of 131072: memory was not enough for more" in plan.warnings
        await w.unit.stop("enough")


async def test_after_the_last_step_a_real_engine_counts_as_failed(paths: Paths, tmp_path: Path) -> None:
    """Where a configured context stays as it is and nothing else helps, the unit has failed, with what was tried."""
    source = write(tmp_path / "m.gguf", "llama", MID)
    model = ModelSettings("m", source, executable=str(await limited(paths, source, tmp_path)), context=131072)
    async with world(paths, adapter=LlamaCpp(lambda: machine())) as w:
        generation = 1
        while generation < 6:  # a thread that finds no memory ends it in other words than an allocation
            await w.unit.start(model, generation)
            generation += 1
            if w.state != "backoff":
                break
        assert w.state == "failed", w.unit.last_error
        error = w.told.ended[-1][2]
        assert error is not None
        assert error.message.endswith("tried with a smaller batch")
