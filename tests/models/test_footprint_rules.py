"""Rules that every prediction keeps, whatever the model, the settings and the devices."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.models.formats.gguf import Header, Tensor
from corral.models.memory.predict import predict
from corral.models.memory.run import CACHE_BITS, Run
from support.architectures import ARCHITECTURES, TINY

GPUS = ("gpu0", "gpu1")


@cache
def header(name: str) -> Header:
    """The architecture's header, without a file."""
    model = ARCHITECTURES[name](TINY)
    metadata: dict[str, Any] = {f"{model.arch}.{key}": tuple(value) if isinstance(value, list) else value
                                for key, value in model.keys.items()}  # fmt: skip
    tensors, offset = [], 0
    for tensor, shape in model.tensors.items():
        size = 2
        for edge in shape:
            size *= edge
        tensors.append(Tensor(tensor, tuple(reversed(shape)), "F16", offset, size))
        offset += size
    return Header(3, model.arch, tuple(tensors), 0, offset, MappingProxyType(metadata))


runs = st.builds(
    Run,
    context=st.integers(1, 1 << 18),
    slots=st.integers(1, 9),
    unified=st.booleans(),
    batch=st.integers(1, 4096),
    ubatch=st.integers(1, 4096),
    type_k=st.sampled_from(sorted(CACHE_BITS)),
    type_v=st.sampled_from(sorted(CACHE_BITS)),
    flash=st.sampled_from([None, True, False]),
    swa_full=st.booleans(),
    gpus=st.sampled_from([(), GPUS[:1], GPUS]),
    layers_on_gpus=st.one_of(st.none(), st.integers(0, 9)),
    split=st.sampled_from([(), (3.0, 1.0), (0.0, 1.0), (1.0,)]),
    cache_on_gpus=st.booleans(),
)
names = st.sampled_from(sorted(ARCHITECTURES))
plain = st.builds(Run, context=st.integers(1, 1 << 18), slots=st.integers(1, 9), ubatch=st.integers(1, 2048),
                  unified=st.booleans())  # fmt: skip


@given(names, runs)
@settings(max_examples=60)
def test_parts_add_up(name: str, run: Run) -> None:
    """No part is negative, the total is the sum of its parts, and every device of the run is in it."""
    found = predict(header(name), run)
    assert tuple(found.devices) == ("cpu", *run.gpus)
    parts = [size for each in found.devices.values() for size in (each.weights, each.cache, each.compute)]
    assert min(parts) >= 0
    assert found.total == sum(parts) == found.weights + found.cache + found.compute


@given(names, plain, st.integers(1, 1 << 16))
@settings(max_examples=60)
def test_longer_never_takes_less(name: str, run: Run, more: int) -> None:
    """A longer context never lowers cache or scratch, and leaves the weights alone."""
    short, long = predict(header(name), run), predict(header(name), replace(run, context=run.context + more))
    assert long.weights == short.weights
    assert long.cache >= short.cache
    assert long.compute >= short.compute


@given(names, plain)
@settings(max_examples=60)
def test_slot_more_never_takes_less(name: str, run: Run) -> None:
    """A slot more, each with as many cells as before, never lowers the cache."""
    one = predict(header(name), run)
    context = run.cells * (run.slots if not run.unified else 1)
    more = predict(header(name), replace(run, slots=run.slots + 1, context=context if run.unified else
                                         run.cells * (run.slots + 1)))  # fmt: skip
    assert more.cache >= one.cache


@given(names, plain, st.integers(1, 2048))
@settings(max_examples=60)
def test_larger_batch_never_takes_less(name: str, run: Run, more: int) -> None:
    """More tokens at once never lower the scratch."""
    small, large = predict(header(name), run), predict(header(name), replace(run, ubatch=run.ubatch + more))
    assert large.compute >= small.compute
    assert large.cache >= small.cache


@given(names, st.integers(0, 6))
@settings(max_examples=40)
def test_layers_move_and_nothing_is_lost(name: str, layers: int) -> None:
    """Layers that go to a GPU take their weights and cache along; together there is no less of either."""
    run = Run(context=2048, gpus=GPUS[:1], layers_on_gpus=layers)
    found, more = predict(header(name), run), predict(header(name), replace(run, layers_on_gpus=layers + 1))
    whole = predict(header(name), Run(context=2048))
    assert more.devices["gpu0"].weights >= found.devices["gpu0"].weights
    assert found.weights >= whole.weights
    assert found.cache == pytest.approx(whole.cache, rel=0.5) if layers else found.cache == whole.cache


def test_split_follows_its_shares() -> None:
    """Layers are dealt out by the tensor split, the output as one more: even shares of 4 + 1 are 3 and 1 + 1."""
    shared = predict(header("llama"), Run(context=2048, gpus=GPUS, split=(1, 1)))
    assert shared.devices["gpu0"].cache == 3 * shared.devices["gpu1"].cache
    assert shared == predict(header("llama"), Run(context=2048, gpus=GPUS))
    most = predict(header("llama"), Run(context=2048, gpus=GPUS, split=(3, 1)))
    assert (most.devices["gpu1"].cache, most.devices["gpu1"].weights > 0) == (0, True)
    assert shared.devices["cpu"].cache == 0


def test_window_keeps_the_cache_small() -> None:
    """Layers with a window cache no more than it and a batch, unless the whole is asked for."""
    short = predict(header("gemma3"), Run(context=65_536)).cache
    full = predict(header("gemma3"), Run(context=65_536, swa_full=True)).cache
    assert short < full / 2


def test_latent_cache_is_one_vector() -> None:
    """With latent attention a token's cache is one compressed vector a layer, and values take nothing."""
    found = predict(header("deepseek2"), Run(context=1024))
    assert found.cache == TINY.layers * 1024 * (2 * TINY.key + TINY.key // 2) * 2


def test_hybrid_on_a_gpu_in_part_does_without_flash_attention() -> None:
    """Where a hybrid's attention would be computed away from its cache, llama.cpp does it the slow, large way."""
    name, layers = "granitehybrid", 2  # the block before the first on the GPU attends, and that one keeps a state
    run = Run(context=65_536, gpus=GPUS[:1], layers_on_gpus=layers)
    left = predict(header(name), run)
    forced = predict(header(name), replace(run, flash=True))
    assert left.compute > 4 * forced.compute


ODD: list[Any] = [0, 1, -5, 7, 1 << 31, (1 << 64) - 1, 1.5, float("nan"), True, "", "x", (), (0,) * 9, (3, 1)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from(ODD)), min_size=1, max_size=3),
    runs,
)
def test_odd_figures_are_predicted_too(name: str, odd: list[tuple[int, Any]], run: Run) -> None:
    """Whatever figures a header claims, a prediction comes out, whichever they are."""
    plain = header(name)
    keys = sorted(plain.metadata)
    changed = {keys[number % len(keys)]: value for number, value in odd}
    found = predict(replace(plain, metadata=MappingProxyType({**plain.metadata, **changed})), run)
    assert found.total >= 0


def test_heads_without_keys_are_no_attention() -> None:
    """A header that gives every layer no heads for keys, beside the tensors of attention, is predicted without any."""
    plain = header("llama")
    without = replace(plain, metadata=MappingProxyType({**plain.metadata, "llama.attention.head_count_kv": 0}))
    assert predict(without, Run(context=512)).cache == 0
