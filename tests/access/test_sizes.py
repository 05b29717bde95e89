"""How many tokens a request may take, from its body alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.access.sizes import ATTACHMENT, NOTHING, TEMPLATE, limited, size_of
from corral.errors import CallerError, NotJson

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
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


BOTH = ("llama.cpp", "vllm")


@pytest.mark.parametrize(
    ("path", "engine", "body", "each", "told"),
    [
        # What the engine reads, and nothing else is there: it stays.
        (COMPLETIONS, "llama.cpp", {"max_tokens": 5}, 5, False),
        (COMPLETIONS, "llama.cpp", {"n_predict": 5}, 5, False),
        (COMPLETIONS, "llama.cpp", {"n_predict": 0}, 1, False),
        (COMPLETIONS, "llama.cpp", {"n_predict": 5.5}, 6, False),
        (COMPLETIONS, "vllm", {"max_tokens": 5}, 5, False),
        (CHAT, "vllm", {"max_completion_tokens": 5}, 5, False),
        (RESPONSES, "llama.cpp", {"max_output_tokens": 5}, 5, False),
        (MESSAGES, "llama.cpp", {"max_tokens": 5}, 5, False),
        # What some builds or engines read: they are told.
        (CHAT, "llama.cpp", {"max_completion_tokens": 5}, 5, True),
        (CHAT, None, {"n_predict": 5}, 5, True),
        # Several: what the engine goes by.
        (CHAT, "llama.cpp", {"max_tokens": 5, "n_predict": 9}, 9, True),
        (CHAT, "llama.cpp", {"max_tokens": 5, "n_predict": -1}, None, True),
        (CHAT, "llama.cpp", {"max_tokens": 5, "n_predict": None}, 5, True),
        (CHAT, "vllm", {"max_tokens": 5, "max_completion_tokens": 7}, 7, True),
        (COMPLETIONS, "vllm", {"max_tokens": None, "max_completion_tokens": 7}, None, True),
        (RESPONSES, "llama.cpp", {"max_output_tokens": None, "max_tokens": 1}, None, True),
        (RESPONSES, "vllm", {"max_output_tokens": 8, "n_predict": -1}, 8, True),
        # What nobody reads there, or what is no bound.
        *((COMPLETIONS, engine, body, None, bool(name)) for engine in BOTH for name, body in (
            ("", {}), ("", {"options": {"num_predict": 1}}), ("", {"generation_config": {"max_output_tokens": 1}}),
            *((name, {name: 1}) for name in (
                "max_new_tokens", "max_tokens_to_sample", "num_predict", "max_output_tokens",
            )),
            *((" ", {"max_tokens": value}) for value in (None, -1, -4294967291, True, "5", [5], float("inf"))),
        )),
        (COMPLETIONS, "vllm", {"n_predict": 1}, None, True),
        (CHAT, "llama.cpp", {"max_tokens": 10**400}, 1 << 31, False),
        (CHAT, "llama.cpp", {"max_tokens": 1e300}, 1 << 31, False),
    ],
)  # fmt: skip
def test_the_bound_of_an_answer(
    path: str, engine: str | None, body: dict[str, Any], each: int | None, told: bool
) -> None:
    """It is the one that the engine obeys at this path; what might be read otherwise is put in anew."""
    found = size_of(path, json.dumps(body).encode(), None, engine)
    assert (found.each, found.told) == (each, told)


def test_no_answer_is_longer_than_the_context() -> None:
    """The engine is told, because one that moves its context on would write more."""
    found = size_of(CHAT, b'{"max_tokens": 900}', 50, "llama.cpp")
    assert (found.each, found.told) == (50, True)


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
    """`n` by whatever name, and a list of prompts in whatever form; but a list with a number in it is one prompt."""
    assert size({"prompt": "a", "n": 3, "max_tokens": 5})[1:] == (5, 3)
    for name in ("n", "n_cmpl", "best_of"):
        assert size({"prompt": "a", name: 3, "max_tokens": 5}, COMPLETIONS)[1:] == (5, 3)
    for prompts in (["a", "b"], [{"prompt_string": "a"}] * 2, ["a", [1, 2]], [[1], [2]], [None, "a"], [True, "a"]):
        for path in (COMPLETIONS, "/completion", "/completions", "/upstream/m/completion"):
            assert size({"prompt": prompts, "n": 3, "max_tokens": 5}, path)[1:] == (5, 6)
        assert size({"prompt": prompts, "max_tokens": 5}, COMPLETIONS, 10)[0] == 20
    mixed = ["a", [1, 2], {"prompt_string": "x"}]
    assert size({"prompt": mixed, "max_tokens": 5}, COMPLETIONS)[1:] == (5, 3)
    for prompt in ([1, 2, 3], ["a", 1, "b"], {"prompt_string": "x"}, [], "a"):
        assert size({"prompt": prompt, "max_tokens": 5}, COMPLETIONS)[1:] == (5, 1)
    assert size({"prompt": ["a", "b"], "messages": [], "max_tokens": 5}, COMPLETIONS)[2] == 2
    assert size({"prompt": ["a", "b"], "messages": [], "max_tokens": 5}, CHAT)[2] == 1
    assert size({"input": [{}, {}], "max_output_tokens": 5}, RESPONSES)[2] == 1


@pytest.mark.parametrize("value", [-4294967294, -1, 2.9, 4.0, "4", True, [2], 10**400])
@pytest.mark.parametrize("name", ["n", "n_cmpl", "best_of"])
def test_a_number_of_answers_that_is_none_is_refused(name: str, value: object) -> None:
    """llama.cpp reads the first as 2, the third as 2 as well; vLLM takes texts."""
    with pytest.raises(CallerError, match=f"{name} must be a whole number"):
        size({"prompt": "a", name: value}, COMPLETIONS)
    assert size({"prompt": "a", name: None}, COMPLETIONS)[2] == 1


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"\xff", b"--x\r\ncontent-disposition: form-data", b'{"a":' * 100_000,
     b'{"prompt": ["a", "b"], "x": %b}' % (b"1" * 5000), b"\x1f\x8b"],
    ids=["list", "cut", "no text", "form", "deep", "long number", "packed"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    """An engine may read what we do not: a form, for one."""
    with pytest.raises(NotJson, match="tokens are counted"):
        size_of(COMPLETIONS, body)


def test_a_question_is_read_with_each_document() -> None:
    """Not once, as the body has it."""
    body = {"query": "q" * 1000, "documents": ["d"] * 50}
    assert size(body, "/v1/rerank")[0] >= 50 * 1000
    assert size({"text_1": "q" * 1000, "text_2": ["d"] * 50}, "/score")[0] >= 50 * 1000
    assert size(body, "/v1/rerank", 600)[0] == 50 * 600
    long = {"query": "q", "documents": ["d" * 10_000] * 20}
    assert size(long, "/v1/rerank")[0] < 2 * len(json.dumps(long))


def test_several_texts_are_several_prompts_wherever_an_engine_looks() -> None:
    """So that each may fill a context."""
    for name in ("input", "content", "prompt"):
        assert size({name: ["a" * 100] * 5}, "/v1/embeddings", 50)[0] == 250


def test_pictures_are_found_wherever_an_engine_finds_them() -> None:
    """vLLM goes by the key of a part without a type, and llama.cpp's completions have theirs beside the prompt."""
    part = {"image_url": {"url": "http://x/y.png"}}
    assert size({"messages": [{"role": "user", "content": [part]}]})[0] > ATTACHMENT
    prompt = {"prompt_string": "x", "multimodal_data": ["QUFB", "QUFB"]}
    for one in (prompt, [prompt]):
        assert 2 * ATTACHMENT < size({"prompt": one}, COMPLETIONS)[0] < 3 * ATTACHMENT
    text = {"type": "file", "file": {"file_data": PICTURE}}
    assert size({"messages": [{"role": "user", "content": [text]}]})[0] > ATTACHMENT + len(PICTURE)


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
    assert limited(b"{}", 9, RESPONSES) == b'{"max_output_tokens": 9}'
    assert json.loads(limited(b'{"n_predict": 7, "max_tokens": 8}', 9, RESPONSES)) == {"max_output_tokens": 9}
    assert json.loads(limited(b'{"max_tokens": null, "n_predict": -1, "a": "\\ud800"}', 9)) == {
        "a": "\ud800", "max_tokens": 9,
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
NAMES = st.sampled_from(["prompt", "input", "messages", "documents", "max_tokens", "n_predict", "images", "content"])


@given(st.dictionaries(st.text(), JSON) | st.dictionaries(NAMES, JSON), st.sampled_from([CHAT, COMPLETIONS, "/rerank"]))
def test_any_body_has_a_size(body: Any, path: str) -> None:
    """Nothing that JSON can hold breaks it, and text is never overlooked; what asks for no whole number of answers is
    refused."""
    raw = json.dumps(body).encode()
    try:
        found = size_of(path, raw)
    except CallerError as error:
        assert error.details["param"] in ("n", "n_cmpl", "best_of") and error.hint
        return
    assert found.prompt >= 0 and found.answers >= 1 and found.least >= 0
    assert json.loads(limited(raw, 9))["max_tokens"] == 9
