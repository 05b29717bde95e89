"""Who is passed over by an engine, as far as its own words show it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from corral.supervisor.fairness import Slot, late, passed_over, still
from corral.supervisor.looks import slots_in


@dataclass
class Request:
    after: int
    chunks: int = 0
    judged: bool = True


def test_one_is_late_when_more_than_twice_the_slots_were_answered_meanwhile() -> None:
    """What has begun to answer is not, nor what may last as long as it likes; a single slot has nobody to prefer."""
    assert not late([Request(after=0)], answered=8, slots=4)
    assert late([Request(after=0)], answered=9, slots=4)
    assert not late([Request(after=1), Request(after=9)], answered=9, slots=4)
    assert not late([Request(after=0, chunks=1), Request(after=0, judged=False)], answered=99, slots=4)
    assert not late([Request(after=0)], answered=99, slots=1)


def test_what_stands_still_between_two_readings_is_passed_over() -> None:
    """Not what read or wrote something, what has another request now, or what does nothing."""
    still_there, reads, new, writes, idle = (
        Slot(0, 3, True, 16, 0), Slot(1, 4, True, 16, 0), Slot(2, 5, True, 0, 0), Slot(3, 6, True, 8, 1),
        Slot(4, 1, False, 0, 0),
    )  # fmt: skip
    before = [still_there, reads, new, writes, idle]
    now = [still_there, reads._replace(read=32), new._replace(task=9), writes, idle]
    assert passed_over(before, now) == {3}
    assert passed_over([], now) == passed_over(before, []) == frozenset()
    assert still(frozenset({3}), now)
    assert not still(frozenset({3}), [still_there._replace(written=1)])
    assert not still(frozenset({3}), [still_there._replace(task=12)])


def test_slots_are_read_from_every_build_s_words() -> None:
    """One has the answer's tokens in a list, another in an object; anything else tells nothing."""
    slot = {"id": 7, "id_task": 42, "is_processing": True, "n_prompt_tokens_processed": 64}
    for next_token in ([{"n_decoded": 3}], {"n_decoded": 3}):
        assert slots_in(json.dumps([slot | {"next_token": next_token}]).encode()) == (Slot(7, 42, True, 64, 3),)
    assert slots_in(json.dumps([slot]).encode()) == (Slot(7, 42, True, 64, 0),)
    assert slots_in(b'{"error": 1}') == slots_in(b"no") == ()
