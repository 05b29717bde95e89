"""How many tokens a request may take, from its body alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.access.sizes import ATTACHMENT, NOTHING, TEMPLATE, bound, limited, size_of

CHAT = "/v1/chat/completions"
PICTURE = "data:image/png;base64," + "A" * 4000


def size(body: Any, path: str = CHAT, context: int | None = None) -> tuple[int, int | None, int]:
    found = size_of(path, json.dumps(body).encode(), context)
    return found.prompt, found.each, found.answers


def test_a_body_bounds_its_prompt() -> None:
    """A token stands for at least one byte of it."""
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 7}
    assert size(body) == (len(json.dumps(body)) + TEMPLATE, 7, 1)
    assert size(body, context=50) == (50, 7, 1)
    assert size({**body, "max_tokens": 900}, context=50) == (50, 50, 1)


@pytest.mark.parametrize(
    ("body", "each"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5}, 5),
        ({"max_output_tokens": 5}, 5),
        ({"n_predict": 5}, 5),
        ({"options": {"num_predict": 5}}, 5),
        ({"max_tokens": 5, "n_predict": 9}, 9),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "5"}, None),
        ({}, None),
    ],
)
def test_the_bound_of_an_answer(body: dict[str, Any], each: int | None) -> None:
    """Each dialect's word for it; null, -1 and nonsense set none."""
    assert bound(body) == each


def test_pictures_are_counted_apart() -> None:
    """Their bytes say nothing of their tokens; a long text in the wrong place does not pass for one."""
    parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert size(body)[0] == len(json.dumps(body)) - len(PICTURE) + ATTACHMENT + TEMPLATE
    far = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]}
    assert size(far)[0] == len(json.dumps(far)) + ATTACHMENT + TEMPLATE - 0
    for hidden in (
        {"messages": [{"role": "user", "content": PICTURE}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": PICTURE}]}]},
        {"messages": [], "data": PICTURE},
        {"messages": [], "tools": [{"type": "image_url", "image_url": {"url": PICTURE}}]},
    ):
        assert size(hidden)[0] >= len(PICTURE)


def test_several_answers_count_several_times() -> None:
    """`n`, and a list of prompts."""
    assert size({"prompt": "a", "n": 3, "max_tokens": 5})[1:] == (5, 3)
    assert size({"prompt": ["a", "b"], "n": 3, "max_tokens": 5})[1:] == (5, 6)
    assert size({"prompt": [1, 2, 3], "max_tokens": 5})[1:] == (5, 1)


def test_what_makes_no_answer() -> None:
    """Embeddings are a prompt only, counting tokens is nothing at all, a form with a file has no text."""
    assert size({"input": ["a", "b"]}, "/v1/embeddings")[1] == 0
    assert size_of("/tokenize", b'{"content": "x"}') == NOTHING
    assert size_of("/upstream/demo/apply-template", b"{}") == NOTHING
    form = size_of("/v1/audio/transcriptions", b"--x\r\n" + b"\0" * 10**6)
    assert (form.prompt, form.each) == (ATTACHMENT + TEMPLATE, ATTACHMENT)


def test_a_bound_is_put_in_where_there_is_none() -> None:
    """Other bytes stay as they are, unless the body says that it wants none."""
    assert limited(b' {"prompt": 1.50}', 9) == b' {"max_tokens": 9, "prompt": 1.50}'
    assert limited(b"{}", 9) == b'{"max_tokens": 9}'
    assert json.loads(limited(b'{"max_tokens": null, "n_predict": -1, "a": "\\ud800"}', 9)) == {
        "a": "\ud800", "max_tokens": 9,
    }  # fmt: skip


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_body_has_a_size(body: Any) -> None:
    """Nothing that JSON can hold breaks it, and text is never overlooked."""
    raw = json.dumps(body).encode()
    found = size_of(CHAT, raw)
    assert found.prompt >= 0 and found.answers >= 1 and found.least >= 0
