"""Launch plans as JSON: round trips, and what other versions may have written."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engines.placement import RUNGS, Room, Step
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Limits, Mount, Probe
from corral.models.memory.predict import Parts
from corral.runners.record import dump_plan, load_plan
from support.engines import plan_of

texts = st.text(max_size=12)
paths = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12).map(Path)
sizes = st.integers(0, 1 << 50)

plans = st.builds(
    LaunchPlan,
    unit=texts,
    model=texts,
    generation=sizes,
    engine=texts,
    engine_version=texts,
    argv=st.lists(texts).map(tuple),
    endpoint=st.builds(Endpoint, socket=st.none() | paths, host=texts, port=st.integers(0, 65535)),
    footprint=st.builds(
        Footprint,
        st.dictionaries(texts, sizes, max_size=3),
        st.sampled_from(["estimated", "probed", "measured"]),
        st.dictionaries(texts, st.builds(Parts, sizes, sizes, sizes), max_size=2),
    ),
    probe=st.builds(Probe, texts, st.floats(allow_nan=False, allow_infinity=False)),
    env=st.dictionaries(texts, texts, max_size=3),
    cwd=st.none() | paths,
    mounts=st.lists(st.builds(Mount, paths, texts, st.booleans()), max_size=2).map(tuple),
    devices=st.lists(texts, max_size=2).map(tuple),
    context=sizes,
    slots=sizes,
    leash=st.sampled_from(["survive", "die-with-daemon"]),
    warnings=st.lists(texts, max_size=2).map(tuple),
    room=st.builds(
        Room,
        st.dictionaries(texts, sizes, max_size=3),
        st.lists(texts, max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        texts,
    ),
    step=st.builds(Step, sizes, sizes, sizes, texts, st.booleans()),
    left=st.lists(st.sampled_from(RUNGS), unique=True).map(tuple),
    placement=texts,
    degraded=texts,
    awaits_gpu=st.booleans(),
    image=texts,
    image_id=texts,
    nodes=st.lists(texts, max_size=2).map(tuple),
    shared_bytes=sizes,
    makes_code=st.booleans(),
    says_more=st.booleans(),
    sleep=st.integers(0, 2),
    sandbox=st.sampled_from(["", "bubblewrap"]),
    limits=st.one_of(st.none(), st.builds(Limits, st.integers(1, 1 << 50), st.integers(1, 1 << 20))),
)


@given(plans)
def test_round_trip(plan: LaunchPlan) -> None:
    """Every plan comes back from JSON as it was."""
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == plan


def test_strategy_covers_every_field() -> None:
    """The property above speaks of all fields: a new one must be added to it."""
    data = dump_plan(plan_of("x"))["launch_plan"]
    assert set(data) == {field.name for field in fields(LaunchPlan)}
    assert len(fields(LaunchPlan)) == 33, "add the new field to `plans` above"


def test_older_and_newer_records_load() -> None:
    """A field that this version does not know is ignored; one that is missing takes its default."""
    plan = replace(plan_of("x"), slots=1)
    data = dump_plan(plan)
    data["launch_plan"]["of_the_future"] = {"x": 1}
    del data["launch_plan"]["slots"]
    assert load_plan(data) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"argv": "x"},
        {"argv": [1]},
        {"generation": "1"},
        {"generation": True},
        {"leash": "long"},
        {"footprint": None},
        {"endpoint": {"socket": 3}},
        {"mounts": [{"source": "/x"}]},
    ],
)
def test_wrong_data_is_a_value_error(change: dict[str, Any]) -> None:
    """A record whose values are of the wrong kind is refused, never half believed."""
    data = dump_plan(plan_of("x"))
    data["launch_plan"] |= change
    with pytest.raises(ValueError, match="plan"):
        load_plan(data)


@pytest.mark.parametrize("data", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "launch_plan": {}}, "x"])
def test_foreign_data_is_a_value_error(data: object) -> None:
    """What is no plan at all is refused."""
    with pytest.raises(ValueError, match="plan"):
        load_plan(data)
