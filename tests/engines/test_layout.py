"""Where a model goes in a given room, what that is called, and the flags that make an engine do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.config.settings import HEADROOM, ModelSettings, Rung
from corral.engines import gpus_for, layout
from corral.engines.executables import Build
from corral.engines.placement import RUNGS, TOP, Room, Step, next_step
from corral.engines.rooms import Machine, room_of
from corral.errors import CannotFit
from corral.hardware.devices import Device, Listed
from corral.models.formats.gguf import Header, read_header
from support.architecture_files import write
from support.architectures import MID

MIB = 1 << 20
GIB = 1 << 30
SERVER = Build("llama-server", Path("/llama-server"), "b1", {"--fit": 1, "--device": 1}, ())
OLD = Build("llama-server", Path("/llama-server"), "b1", {}, ())
EMBEDDED = Build("embedded", Path("/x.so"), "1", {}, ())


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    found = read_header(write(tmp_path_factory.mktemp("layout") / "m.gguf", "llama", MID))
    return replace(found, metadata=MappingProxyType({**found.metadata, "llama.context_length": 131072}))


def model(**changes: Any) -> ModelSettings:
    return ModelSettings("m", Path("/m.gguf"), **changes)


def room(**sizes: int) -> Room:
    names = tuple(f"CUDA{number}" for number in range(len(sizes) - 1))
    return Room(MappingProxyType(sizes), names)


def whole(header: Header, context: int, *gpus: str) -> dict[str, int]:
    """What a context takes on each device when everything is on `gpus`."""
    sizes = {"cpu": 1 << 50, **dict.fromkeys(gpus, 1 << 50)}
    return dict(layout.lay_out(model(context=context), header, room(**sizes), TOP).footprint.bytes_by_device)


def test_whole_on_one_gpu_says_nothing(header: Header) -> None:
    """The best place is no news: all layers and the model's own context on one GPU, without a warning."""
    made = layout.lay_out(model(), header, room(cpu=GIB, gpu0=200 * GIB, gpu1=201 * GIB), TOP)
    assert (made.words, made.context, made.warnings, made.devices) == ("whole on gpu1", 131072, (), ("gpu1",))
    assert made.left == ("batch", "context", "layers", "cpu")


def test_an_auto_context_is_what_the_gpu_holds(header: Header) -> None:
    """Where the model's own context does not fit, the longest that does is taken, in steps of 256, and it is said."""
    size = whole(header, 24576, "gpu0")["gpu0"]
    made = layout.lay_out(model(), header, room(cpu=100 * GIB, gpu0=size), TOP)
    assert (made.context, made.words) == (24576, "whole on gpu0")
    assert made.warnings == ("context 24576 of 131072: more does not fit on gpu0",)
    less = layout.lay_out(model(), header, room(cpu=100 * GIB, gpu0=size - 1), TOP)
    assert less.context == 24576 - 256


def test_a_configured_context_is_never_shortened(header: Header) -> None:
    """With a context in the configuration, layers give way, and it is said how many and for want of how much."""
    size = whole(header, 24576, "gpu0")["gpu0"]
    made = layout.lay_out(model(context=24576), header, room(cpu=100 * GIB, gpu0=size // 2), TOP)
    assert made.context == 24576
    assert made.on_gpus is not None and 0 < made.on_gpus < made.layers
    assert made.devices == ("gpu0", "cpu")
    (said,) = made.warnings
    assert said.startswith(f"{made.on_gpus} of {made.layers} layers on gpu0: ")
    assert said.endswith(" are missing for all")


def test_two_gpus_are_better_than_a_short_context(header: Header) -> None:
    """A context that is longer on two GPUs together than on one is split over both."""
    size = whole(header, 24576, "gpu0")["gpu0"]
    few = model(args=("--ubatch-size", "64"))  # several GPUs keep what goes in four times
    made = layout.lay_out(few, header, room(cpu=100 * GIB, gpu0=size, gpu1=size), TOP)
    assert made.words == "split over gpu0, gpu1"
    assert made.context > 24576
    assert any("are missing on gpu0 alone" in each for each in made.warnings)


def test_a_gpu_too_small_for_the_shortest_context_takes_some_layers(header: Header) -> None:
    """Layers leave a GPU only when not even the shortest context lets it hold them all."""
    size = whole(header, layout.SHORTEST, "gpu0")["gpu0"]
    assert layout.lay_out(model(), header, room(cpu=100 * GIB, gpu0=size), TOP).context == layout.SHORTEST
    made = layout.lay_out(model(), header, room(cpu=100 * GIB, gpu0=size - 1), TOP)
    assert made.on_gpus is not None
    assert made.context >= layout.SHORTEST


def test_no_room_at_all_is_said_with_what_is_missing(header: Header) -> None:
    """Where not even the shortest context fits, an auto one is an error; a configured one is a loud warning."""
    with pytest.raises(CannotFit, match=r"m does not fit: .* are missing even for a context of 2048 tokens") as caught:
        layout.lay_out(model(), header, room(cpu=MIB), TOP)
    assert "corral fit m" in caught.value.hint
    made = layout.lay_out(model(context=512), header, room(cpu=MIB), TOP)
    assert made.warnings[0].startswith("on the processor, where it does not fit: ")


def test_without_gpus_flags_are_the_engines_own(header: Header) -> None:
    """On a machine without GPUs nothing is passed but that nothing is to be fitted, where the engine knows that."""
    made = layout.lay_out(model(), header, room(cpu=200 * GIB), TOP)
    assert gpus_for.arguments(model(), SERVER, made, room(cpu=1), TOP) == ("--fit", "off")
    assert gpus_for.arguments(model(), OLD, made, room(cpu=1), TOP) == ()
    asked = model(gpu_layers=7)
    assert gpus_for.arguments(asked, EMBEDDED, made, room(cpu=1), TOP) == ("--gpu-layers", "7", "--fit", "off")
    left = layout.left_to_engine(model(), header, ("gpu0",), TOP)
    assert gpus_for.arguments(model(), SERVER, left, Room(), TOP) == ()


@pytest.mark.parametrize(
    ("build", "sizes", "flags"),
    [
        (SERVER, {"gpu0": 2.0}, "--gpu-layers 999 --device CUDA0 --fit off"),
        (EMBEDDED, {"gpu0": 2.0}, "--gpu-layers 999 --fit off"),
        (SERVER, {"gpu0": 0.1, "gpu1": 2.0}, "--gpu-layers 999 --device CUDA1 --fit off"),
        (EMBEDDED, {"gpu0": 0.1, "gpu1": 2.0}, "--gpu-layers 999 --split-mode none --main-gpu 1 --fit off"),
        (OLD, {"gpu0": 0.1, "gpu1": 2.0}, "--gpu-layers 999 --split-mode none --main-gpu 1"),
        (SERVER, {"gpu0": 0.8, "gpu1": 0.8}, "--gpu-layers 999 --device CUDA0,CUDA1 --tensor-split 37,37 --fit off"),
        (SERVER, {"gpu0": 0.01}, "--gpu-layers 0 --device none --fit off"),
        (EMBEDDED, {"gpu0": 0.01}, "--gpu-layers 0 --fit off"),
    ],
)
def test_flags(header: Header, build: Build, sizes: dict[str, float], flags: str) -> None:
    """Each place becomes the flags of a build, as far as it knows them."""
    asked = model(context=2048, args=("--ubatch-size", "64"))
    size = layout.lay_out(asked, header, room(cpu=GIB, gpu0=GIB), TOP).prediction.devices["gpu0"].total
    given = room(cpu=100 * GIB, **{name: int(size * share) for name, share in sizes.items()})
    made = layout.lay_out(asked, header, given, TOP)
    assert " ".join(gpus_for.arguments(asked, build, made, given, TOP)) == flags


def test_a_step_without_gpus_hides_them_from_every_build(header: Header) -> None:
    """After a GPU failed no layer goes there, whether or not the room still has it."""
    step = TOP.without_gpus("it failed")
    made = layout.lay_out(model(), header, room(cpu=200 * GIB), step)
    said = gpus_for.arguments(model(), SERVER, made, room(cpu=200 * GIB), step)
    assert said == ("--gpu-layers", "0", "--device", "none", "--fit", "off")
    assert gpus_for.found(SERVER, model(), step).degraded == "cpu (it failed)"


def test_each_step_is_smaller_and_said(header: Header) -> None:
    """A smaller batch, a shorter context, fewer layers: each is what it says, in flags and figures."""
    given = room(cpu=200 * GIB, gpu0=200 * GIB)
    best = layout.lay_out(model(), header, given, TOP)
    batch = layout.lay_out(model(), header, given, Step(batch=1))
    assert (batch.batch, batch.run.ubatch) == (128, 128)
    assert batch.warnings == ("batch 128 instead of 512: memory was not enough for more",)
    assert batch.prediction.compute < best.prediction.compute
    assert "batch" not in batch.left
    context = layout.lay_out(model(), header, given, Step(context=2))
    assert (context.context, context.run.context) == (32768, 32768)
    assert context.warnings == ("context 32768 of 131072: memory was not enough for more",)
    layers = layout.lay_out(model(), header, given, Step(layers=2))
    assert layers.on_gpus == layers.layers // 2
    assert layers.warnings == (f"{layers.words}: memory was not enough for more",)
    assert layers.prediction.devices["gpu0"].total < best.prediction.devices["gpu0"].total


def test_a_configured_context_is_no_rung_unless_it_is_named(header: Header) -> None:
    """Running out of memory shortens a configured context only where the configuration lists it."""
    given = room(cpu=GIB)
    assert layout.lay_out(model(context=8192), header, given, TOP).left == ("batch",)
    named = model(context=8192, on_out_of_memory=("context",))
    assert layout.lay_out(named, header, given, TOP).left == ("batch", "context")


@given(
    st.integers(60, 400), st.integers(0, 300), st.integers(0, 300), st.sampled_from([None, 512, 8192]),
    st.permutations(RUNGS),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_steps_lead_to_an_end_and_never_up(
    header: Header, cpu: int, gpu0: int, gpu1: int, context: int | None, order: list[Rung]
) -> None:
    """From any place, each step takes no more of any kind than the one before, and after few there is none left."""
    given = room(cpu=cpu * MIB, gpu0=gpu0 * MIB, gpu1=gpu1 * MIB)
    asked, step = model(context=context, on_out_of_memory=tuple(order)), TOP
    try:
        made = layout.lay_out(asked, header, given, step)
    except CannotFit:
        return
    for _ in range(16):
        if (found := next_step(step, made.left, order, "full")) is None:
            return
        step, _ = found
        if step.cpu:  # another room, and so another context
            given = room(cpu=1 << 50)
        less = layout.lay_out(asked, header, given, step)
        assert step.cpu or less.context <= made.context
        assert step.cpu or (less.on_gpus or less.layers) <= (made.on_gpus or made.layers)
        assert less.run.ubatch <= made.run.ubatch
        made = less
    raise AssertionError("no end")


def test_room() -> None:
    """A device's room is its budget, or what it has less headroom and what others use, in whole parts of it."""
    cpu = Device("cpu", "", "the processor", 32 * GIB, 20 * GIB, "test")
    gpu = Device("gpu0", "nvidia", "NVIDIA Big", 16 * GIB, 9 * GIB, "test")
    listed = (Listed("CUDA0", "NVIDIA Big", 16 * GIB, 3 * GIB), Listed("RPC0", "10.0.0.1:1", 8 * GIB, 8 * GIB))
    machine = Machine((cpu, gpu), MappingProxyType({"cpu": 10 * GIB}), ours=MappingProxyType({"gpu0": 6 * GIB}))
    found = room_of(machine, listed)
    assert dict(found.bytes_by_device) == {
        "cpu": 10 * GIB,
        "gpu0": 15 * GIB - HEADROOM,  # one is somebody else's
        "gpu1": 8 * GIB - HEADROOM,
    }
    assert found.engine_names == ("CUDA0", "RPC0")
    a_little_more = replace(machine, devices=(cpu, replace(gpu, free_bytes=9 * GIB + 100 * MIB)))
    assert room_of(a_little_more, listed) == found


def test_memory_that_a_gpu_shares_with_the_processor_counts_once(header: Header) -> None:
    """A GPU without memory of its own and the processor hold together no more than the machine has."""
    cpu = Device("cpu", "", "the processor", 2 * GIB, 2 * GIB, "test")
    gpu = Device("gpu0", "intel", "Arc", 2 * GIB, 2 * GIB, "test", shared=True)
    found = room_of(Machine((cpu, gpu)), (Listed("Vulkan0", "Arc", 2 * GIB, 2 * GIB),))
    assert found.shared == ("gpu0",)
    made = layout.lay_out(model(), header, found, TOP)
    assert made.prediction.total <= found.bytes_by_device["cpu"]
    apart = layout.lay_out(model(), header, replace(found, shared=()), TOP)
    assert apart.prediction.total >= made.prediction.total


def test_what_is_not_known_is_left_to_the_engine() -> None:
    """Without the machine's memory, or with a GPU of unknown size, there is no room to plan in."""
    cpu = Device("cpu", "", "the processor", GIB, GIB, "test")
    assert not room_of(Machine(), ())
    assert not room_of(Machine((cpu,)), (Listed("CUDA0", "odd"),))


def test_a_gpu_shown_twice_counts_once() -> None:
    """Of one GPU that two backends list, Vulkan's is left out."""
    cpu = Device("cpu", "", "the processor", GIB, GIB, "test")
    listed = (Listed("CUDA0", "NVIDIA Big", 4 * GIB), Listed("Vulkan0", "NVIDIA Big", 4 * GIB))
    assert room_of(Machine((cpu,)), listed).engine_names == ("CUDA0",)
