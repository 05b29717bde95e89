"""Sharing out a file among connections."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from corral.models.fetching.spans import MOST_CHUNKS, Span, Spans

CHUNK = 10


@given(st.integers(0, 400), st.integers(0, 2**32))
def test_every_missing_byte_is_fetched_once_whatever_happens(size: int, seed: int) -> None:
    """However workers come, fail and go, each byte that was missing is written once, and the counts are right."""
    chance = random.Random(seed)
    states = [chance.choice((0, 0, 1)) for _ in range(-(-size // CHUNK))]
    spans = Spans(size, CHUNK, states)
    written = [bool(states[at // CHUNK]) for at in range(size)]
    finished: list[int] = []
    workers: list[Span] = []
    while not spans.done:
        step = chance.choice(("take", "write", "write", "write", "fail"))
        if step == "take" and len(workers) < 4:
            wants = spans.more_to_take()
            taken = spans.take(chance.randint(1, 4))
            assert wants == (taken is not None)
            if taken is not None:
                assert 0 < taken.left <= MOST_CHUNKS * CHUNK
                workers.append(taken)
        elif workers:
            span = chance.choice(workers)
            if step == "write":
                count = chance.randint(0, min(span.left, CHUNK))
                assert not any(written[span.position : span.position + count])
                written[span.position : span.position + count] = [True] * count
                spans.advance(span, count, finished.append)
            if step == "fail" or span.left == 0:
                workers.remove(span)
                spans.give_back(span)
        assert spans.have_bytes == sum(written)
        front = spans.frontier
        assert all(written[:front])
        assert front == size or not written[front]
    assert all(written)
    assert sorted(finished) == [index for index, state in enumerate(states) if not state]
    assert spans.frontier == size


def test_one_that_has_nothing_to_do_takes_half_of_the_longest() -> None:
    """The last part is not left to one slow connection."""
    spans = Spans(8 * CHUNK, CHUNK, [0] * 8)
    slow = spans.take(1)
    assert slow is not None
    assert (slow.position, slow.stop) == (0, 40)
    while (span := spans.take(1)) is not None and span.position >= 40:
        spans.advance(span, span.left, lambda index: None)
        spans.give_back(span)
    assert span is not None
    assert (span.position, span.stop) == (20, 40)
    assert slow.stop == 20


def test_spans_get_shorter_towards_the_end() -> None:
    """Workers end at about the same time, because the last parts are small."""
    spans = Spans(64 * CHUNK, CHUNK, [0] * 64)
    lengths: list[int] = []
    while (span := spans.take(2)) is not None and len(lengths) < 40:
        lengths.append(span.left // CHUNK)
        spans.advance(span, span.left, lambda index: None)
        spans.give_back(span)
    assert lengths[0] == MOST_CHUNKS
    assert lengths[-1] == 1
    assert lengths == sorted(lengths, reverse=True)
