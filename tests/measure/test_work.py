"""Prompts of exact length, by words whose cost is known."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from corral.measure.work import OPENING, PLAIN, WAYS, Vocabulary, Work

costs = st.dictionaries(st.sampled_from(["river", "stone", "a", "of", "music"]), st.integers(1, 7), min_size=1)


@given(costs, st.integers(1, 9), st.integers(0, 400), st.integers(0, 99))
def test_texts_have_the_length_that_was_asked(found: dict[str, int], opening: int, tokens: int, seed: int) -> None:
    """Exactly, where the words' costs allow it; else the least more. The same seed gives the same text."""
    vocabulary = Vocabulary(found, opening)
    text = vocabulary.text(tokens, random.Random(seed))
    count = vocabulary.count(text)
    assert text.startswith(OPENING) and text == vocabulary.text(tokens, random.Random(seed))
    if tokens <= opening:
        assert count == opening
    else:
        assert tokens <= count < tokens + max(found.values())
        assert count == tokens or 1 not in found.values()


def test_bodies_differ_and_can_be_had_again() -> None:
    """No two requests of a run have the same prompt, nor do two runs; the same seed has the same ones."""
    work = Work("m", words=12)
    one, again, other = work.bodies(20, "a"), work.bodies(20, "a"), work.bodies(20, "b")
    assert one == again and len({*one, *other}) == 40


def test_fields_are_those_that_the_server_takes() -> None:
    """The usual ones, and without what one of them refuses."""
    asked = json.loads(Work("m", tokens=7).asking("hello"))
    assert asked == {
        "model": "m", "max_tokens": 7, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    bare = json.loads(Work("m", tokens=7, fields=WAYS[-1], path=PLAIN).asking("hello"))
    assert bare == {"model": "m", "max_tokens": 7, "stream": True, "prompt": "hello"}
