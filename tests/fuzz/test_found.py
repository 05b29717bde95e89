"""What the fuzzer found, each as the rule that was broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral.errors import BadReference, CallerError
from corral.gateway.dialects.anthropic.request import read as read_messages
from corral.gateway.dialects.ollama.modelfile import read_create
from corral.gateway.dialects.ollama.times import keep_alive_s
from corral.gateway.dialects.reasoning.clean import Cleaned
from corral.gateway.dialects.reasoning.harmony import Harmony
from corral.gateway.dialects.reasoning.think import Think
from corral.gateway.dialects.usage import Usage, usage_of
from corral.gateway.path.peek import glance
from corral.refs_parse import split_authority


def event(text: str, choice: int = 0) -> bytes:
    chunk = {"choices": [{"index": choice, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def said(made: bytes) -> list[tuple[int, str, Any]]:
    choices = [json.loads(each[6:])["choices"][0] for each in made.split(b"\n\n") if each]
    return [(each["index"], *pair) for each in choices for pair in each["delta"].items()]


def test_a_second_message_is_set_apart_however_it_comes() -> None:
    """Two messages to the user have an empty line between them, whichever events their words come in."""
    cleaned = Cleaned(Harmony)
    texts = ("<|channel|>final<|message|>", "one", "<|end|><|start|>assistant<|channel|>final<|message|>", "two")
    out = said(b"".join(cleaned.events(event(text)) for text in texts))
    assert "".join(text for _, kind, text in out if kind == "content") == "one\n\ntwo"


def test_each_choice_has_thoughts_of_its_own() -> None:
    """That one choice has come to its answer says nothing of another, which only begins to think."""
    cleaned = Cleaned(lambda: Think(opened=True))
    first = "".join(("hm</think>", "so"))
    out = said(cleaned.events(event(first, 1)) + cleaned.events(event("well", 1)) + cleaned.events(event("let me")))
    assert out[-1] == (0, "reasoning_content", "let me")
    assert (1, "content", "well") in out


def test_thoughts_of_an_odd_kind_are_no_trouble() -> None:
    """An engine that says its thoughts or calls in a shape of its own still has its answer relayed."""
    message = {"content": "hm</think>so", "reasoning_content": [1], "tool_calls": 5}
    _, body = Cleaned(lambda: Think(opened=True)).body(200, json.dumps({"choices": [{"message": message}]}).encode())
    assert json.loads(body)["choices"][0]["message"] == {**message, "content": "so", "reasoning_content": "hm"}


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\x0b", "\x1f"])
def test_only_json_s_own_spaces_end_a_body(space: str) -> None:
    """What other readers would refuse is not taken at a glance."""
    assert glance(b'{"model": "m"} \r\n\t') == ("m", False, {"model": "m"})
    assert glance(b'{"model": "m"}' + space.encode()) is None


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1e999", "NaN"])
def test_a_number_beyond_all_bounds_is_refused(number: str) -> None:
    """With a word about it, in every dialect."""
    with pytest.raises(CallerError, match=r"temperature|not JSON"):
        read_messages(b'{"messages": [{"role": "user", "content": ""}], "max_tokens": 1, "temperature": %b}'
                      % number.encode())  # fmt: skip
    with pytest.raises(CallerError, match="num_ctx"):
        read_create({"model": "m", "from": "a", "parameters": {"num_ctx": json.loads(number)}})


def test_a_keep_alive_beyond_all_bounds_is_for_ever() -> None:
    """No moment could be named at which it ends."""
    assert keep_alive_s(10**400) == float("inf")
    assert keep_alive_s(-(10**400)) == float("inf")


def test_counts_of_thousands_of_digits_are_none() -> None:
    """Two of them could not even be added and written again."""
    digits = b"9" * 4300
    assert usage_of(b'{"usage": {"prompt_tokens": %b, "completion_tokens": 2}}' % digits) == Usage(0, 2)


def test_a_host_that_is_none_is_refused_at_once() -> None:
    """However long it is: nobody keeps the server busy with a name (before, this one took years)."""
    for host in ("2" * 47 + "(" + "2" * 14, "a" * 252 + "!", "a-" * 100, "a" * 64):
        with pytest.raises(BadReference):
            split_authority(host)
    assert split_authority("A" * 63 + ".b-c.example:5000") == ("a" * 63 + ".b-c.example", 5000)
