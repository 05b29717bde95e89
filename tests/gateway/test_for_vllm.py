"""Chat requests as vLLM reads them."""

from __future__ import annotations

from typing import Any

import pytest

from corral.gateway.dialects.for_vllm import counting, shaped
from corral.gateway.http.headers import upward

HI = [{"role": "user", "content": "hi"}]


def test_what_has_another_name_is_renamed() -> None:
    """llama.cpp's names become vLLM's; its own win where both are given."""
    made, ignored = shaped({"messages": HI, "repeat_penalty": 1.1, "n_predict": 5, "cache_prompt": True})
    assert made == {"messages": HI, "repetition_penalty": 1.1, "max_tokens": 5} and ignored == ()
    assert shaped({"n_predict": 5, "max_tokens": 7})[0]["max_tokens"] == 7


def test_what_it_does_not_do_is_told() -> None:
    """vLLM would ignore it without a word."""
    made, ignored = shaped({"messages": HI, "mirostat": 1, "typical_p": 0.5, "top_k": 3})
    assert made == {"messages": HI, "top_k": 3} and ignored == ("mirostat", "typical_p")


@pytest.mark.parametrize(
    ("more", "goes_on"),
    [({}, True), ({"add_generation_prompt": True}, False), ({"continue_final_message": True}, True)],
)
def test_a_begun_answer_is_gone_on_with(more: dict[str, Any], goes_on: bool) -> None:
    """Dialects begin an answer with a last message of the assistant's; who says how it is meant is obeyed."""
    begun = [*HI, {"role": "assistant", "content": "Well"}]
    made, _ = shaped({"messages": begun, **more})
    assert made.get("continue_final_message", False) is goes_on
    assert "continue_final_message" not in shaped({"messages": HI})[0]


def test_counting_asks_for_the_prompt_alone() -> None:
    """Only what the prompt is made of goes to /tokenize."""
    asked = {"model": "m", "messages": HI, "max_tokens": 5, "stream": True, "tools": [], "mirostat": 1}
    assert counting(asked) == {"model": "m", "messages": HI, "tools": []}


def test_a_form_is_called_json() -> None:
    """curl says of every body that it is a form, and vLLM refuses what is not called JSON. The id stays last."""
    form = (b"content-type", b"application/x-www-form-urlencoded")
    up = upward([(b"accept", b"*/*"), form], b"id", identity=True)
    assert up == [(b"accept", b"*/*"), (b"content-type", b"application/json"), (b"x-request-id", b"id")]
    other = (b"content-type", b"multipart/form-data; boundary=x")
    assert other in upward([other], b"id", identity=True)
    for says_a_body in ((b"content-length", b"2"), (b"transfer-encoding", b"chunked")):
        assert (b"content-type", b"application/json") in upward([says_a_body], b"id", identity=True), "nothing was said"
    for none in ([], [(b"content-length", b"0")]):
        assert b"content-type" not in dict(upward(none, b"id", identity=True))
