"""Where a model goes, on devices of any size."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st

from corral.models.formats.gguf import Header, Tensor
from corral.models.memory.fit import Fit, fit
from corral.models.memory.predict import predict
from corral.models.memory.run import Run
from support.architectures import ARCHITECTURES, MID

RUN = Run(context=2048)
LONGEST = 8192


@cache
def llama() -> Header:
    model = ARCHITECTURES["llama"](MID)
    tensors = []
    for name, shape in model.tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        tensors.append(Tensor(name, tuple(reversed(shape)), "F16", 0, 2 * count))
    metadata = {f"llama.{key}": value for key, value in model.keys.items()}
    return Header(3, "llama", tuple(tensors), 0, 0, MappingProxyType(metadata))


WHOLE = predict(llama(), RUN).total


def place(longest: int = LONGEST, **room: int) -> Fit:
    return fit(llama(), RUN, room, longest)


def test_one_gpu_that_holds_it_all_is_taken() -> None:
    """Whole on one GPU is best, on the one with the most room, and nothing else is tried."""
    found = place(cpu=WHOLE, gpu0=WHOLE, gpu1=2 * WHOLE)
    assert [each.words for each in found.tried] == ["whole on gpu1"]
    assert (found.on_gpus, found.layers) == (MID.layers + 1, MID.layers + 1)


def test_two_gpus_share_what_one_cannot_hold() -> None:
    """Where no GPU holds it alone, all together do, and the answer says what was missing on the one."""
    run = Run(context=2048, ubatch=64)  # several GPUs keep inputs four times: with few tokens at once that is little
    alone = predict(llama(), replace(run, gpus=("gpu0",)))
    half = alone.devices["gpu0"].total * 9 // 10
    found = fit(llama(), run, {"cpu": WHOLE, "gpu0": half, "gpu1": half}, LONGEST)
    assert [each.words for each in found.tried] == ["whole on gpu0", "split over gpu0, gpu1"]
    assert found.tried[0].missing == {"gpu0": alone.devices["gpu0"].total - half}


def test_a_small_gpu_takes_as_many_layers_as_fit() -> None:
    """What does not fit whole goes in part: so many layers fit, and one more would not."""
    small = predict(llama(), Run(context=2048, gpus=("gpu0",))).devices["gpu0"].total * 2 // 3
    found = place(cpu=WHOLE, gpu0=small)
    assert found.place is not None
    assert 0 < found.on_gpus < found.layers
    assert found.place.words == f"{found.on_gpus} of {found.layers} layers on gpu0"
    more = predict(llama(), Run(context=2048, gpus=("gpu0",), layers_on_gpus=found.on_gpus + 1))
    assert found.place.prediction.devices["gpu0"].total <= small < more.devices["gpu0"].total


def test_a_useless_gpu_leaves_the_processor() -> None:
    """A GPU without room for one layer is passed over."""
    found = place(cpu=WHOLE, gpu0=1000)
    assert found.place is not None
    assert (found.place.words, found.on_gpus) == ("on the processor", 0)


def test_nowhere() -> None:
    """Where it fits nowhere, there is no place, each try says what was missing, and a shorter context may still fit."""
    found = place(cpu=WHOLE - 1)
    assert found.place is None
    assert found.tried[-1].missing == {"cpu": 1}
    assert found.largest_context is not None
    assert found.largest_context < 2048
    assert place(cpu=1000).largest_context is None


def test_largest_context_is_the_models_own_where_there_is_room() -> None:
    """Nothing is gained by more context than the model was made for."""
    assert place(cpu=10 * WHOLE).largest_context == LONGEST
    assert place(longest=300, cpu=10 * WHOLE).largest_context == 300


@given(st.integers(0, 3 * WHOLE), st.integers(0, 2 * WHOLE), st.integers(0, 2 * WHOLE))
@settings(max_examples=25)
def test_a_place_is_never_too_small(cpu: int, gpu0: int, gpu1: int) -> None:
    """What is said to fit does, on every device, and the largest context fits while one step more does not."""
    room = {"cpu": cpu, "gpu0": gpu0, "gpu1": gpu1}
    found = fit(llama(), RUN, room, LONGEST)
    if found.place is not None:
        assert all(parts.total <= room[name] for name, parts in found.place.prediction.devices.items())
        assert (found.largest_context or 0) >= 2048
    if found.largest_context is not None:
        assert fit(llama(), Run(context=found.largest_context), room, 1).place is not None
        assert (
            found.largest_context == LONGEST
            or not fit(llama(), Run(context=found.largest_context + 256), room, 1).place
        )
