"""The unit's table of states."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.supervisor.machine import RESIDENT, TABLE, Event, IllegalTransition, Machine, State, diagram

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for (before, _), after in TABLE.items():
            if before is here and after not in found:
                found.add(after)
                todo.append(after)
    return found


def test_every_state_is_reached() -> None:
    """From stopped, events lead to every state."""
    assert reachable(State.STOPPED) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_leads_back(state: State) -> None:
    """From every state, events lead back to stopped: no unit is stuck for ever."""
    assert State.STOPPED in reachable(state)


@pytest.mark.parametrize("state", sorted(RESIDENT - {State.STOPPING}))
def test_whatever_runs_can_be_stopped(state: State) -> None:
    """A stop may be asked in every state that has a process, except where it was asked already."""
    assert TABLE[state, Event.STOP_ASKED] is State.STOPPING


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_only_the_table_moves(events: list[Event]) -> None:
    """Any sequence of events follows the table; a missing pair raises with the history and moves nothing."""
    machine = Machine("m")
    for event in events:
        before = machine.state
        expected = TABLE.get((before, event))
        if expected is None:
            assert not machine.allows(event)
            with pytest.raises(IllegalTransition) as caught:
                machine.move(event, at_wall_s=0.0, generation=1)
            assert machine.state is before
            assert len(caught.value.details["history"]) == len(machine.history)
        else:
            step = machine.move(event, at_wall_s=0.0, generation=1, why="x")
            assert (step.before, step.after) == (before, expected)
            assert str(before) in str(step)
            assert str(machine.state) in repr(machine)


def test_the_docs_show_the_table() -> None:
    """The diagram in docs/architecture.md is the one made from the table."""
    assert f"```mermaid\n{diagram()}\n```" in ARCHITECTURE.read_text(encoding="utf-8"), (
        "run: python tools/architecture.py"
    )
