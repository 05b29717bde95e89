"""The engine's cache of earlier prompts: bounded, and counted."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engines.placement import UNKNOWN, Room
from corral.engines.plan import Footprint
from corral.engines.prompts import MOST, SHARE, prompts_of
from corral.models.memory.predict import Parts

MIB, GIB = 1 << 20, 1 << 30


def footprint(cache: int, weights: int = GIB) -> Footprint:
    parts = {"cpu": Parts(weights // 2), "gpu0": Parts(weights - weights // 2, cache)}
    return Footprint(MappingProxyType({n: p.total for n, p in parts.items()}), parts=MappingProxyType(parts))


def room(cpu: int) -> Room:
    return Room(MappingProxyType({"cpu": cpu, "gpu0": 24 * GIB}), ("CUDA0",))


@pytest.mark.parametrize(
    ("cache", "space", "mib"),
    [
        (600 * MIB, room(64 * GIB), 600),  # as much as the slots have
        (600 * MIB - 1, room(64 * GIB), 600),
        (12 * GIB, room(64 * GIB), 4096),  # no more than a share of the memory
        (600 * MIB, room(GIB // 2 + 100 * MIB), 38),
        (600 * MIB, room(GIB // 2 + 10 * MIB), 10),  # no more than is left
        (600 * MIB, room(GIB // 4), 0),
        (40 * GIB, room(640 * GIB), 8192),
        (600 * MIB, UNKNOWN, 600),
        (12 * GIB, UNKNOWN, 1024),
    ],
)
def test_bound(cache: int, space: Room, mib: int) -> None:
    """The cache may hold as much as the slots, within a share of the memory and what the model leaves of it."""
    found = prompts_of((), footprint(cache), space)
    assert found.arguments == ("--cache-ram", str(mib))
    assert found.bytes == mib * MIB
    counted = found.counted(footprint(cache))
    assert counted.bytes_by_device["cpu"] == GIB // 2 + mib * MIB
    assert counted.growth == mib * MIB
    assert counted.parts == footprint(cache).parts


def test_as_asked() -> None:
    """What the user says holds and counts; without a bound nothing can be counted, which is said."""
    asked = prompts_of(("--cache-ram", "512"), footprint(GIB), UNKNOWN)
    assert (asked.bytes, asked.arguments, asked.warnings) == (512 * MIB, (), ())
    assert prompts_of(("-cram", "0"), footprint(GIB), UNKNOWN).bytes == 0
    unbounded = prompts_of(("--cache-ram", "-1"), footprint(GIB), UNKNOWN)
    assert (unbounded.bytes, unbounded.arguments) == (0, ())
    assert "not counted" in unbounded.warnings[0]


@given(cache=st.integers(0, 1 << 42), weights=st.integers(0, 1 << 42), cpu=st.integers(0, 1 << 42))
def test_never_over(cache: int, weights: int, cpu: int) -> None:
    """A model that fits in its room still does with the cache counted, but for the last MiB."""
    before = footprint(cache, weights)
    found = prompts_of((), before, room(cpu))
    assert 0 <= found.bytes <= min(MOST, cpu // SHARE + MIB)
    if before.bytes_by_device["cpu"] <= cpu:
        assert found.counted(before).bytes_by_device["cpu"] < cpu + MIB
