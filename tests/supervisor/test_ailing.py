"""What an engine's error says of the engine, and that nobody can have it said by asking for it."""

from __future__ import annotations

import json

import pytest

from corral.supervisor import ailing, reasons


def body(message: str, kind: str = "server_error", code: int = 500) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind}}).encode()


def found(answer: bytes) -> str:
    return ailing.ailment(ailing.in_answer(answer))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("std::bad_alloc", "memory"),
        ("decode() failed: std::bad_alloc", "memory"),
        ("Failed to initialize samplers: std::bad_alloc", "memory"),
        (
            "Unable to generate parser for this template. Automatic parser generation failed: std::bad_alloc",
            "memory",
        ),
        ("decode() failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", "memory"),
        ("decode() failed: vk::Queue::submit: ErrorDeviceLost", "device"),
        ("CUDA error: out of memory\n  current device: 0, in function alloc", "memory"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB", "memory"),
        ("failed to allocate CUDA0 buffer of size 1073741824", "memory"),
        ("failed to allocate compute buffers", "memory"),
        ("bad allocation", "memory"),
    ],
)
def test_what_an_engine_says_of_itself(message: str, kind: str) -> None:
    """Its own words are recognised in a body and in an event, and are of the right kind for what follows."""
    assert found(body(message)) == message
    events = b'data: {"choices": []}\n\ndata: ' + body(message) + b"\n\n"
    assert ailing.ailment(ailing.in_event(events)) == message
    reason = reasons.of_itself(message, "m")
    assert (reason.kind, reason.text.startswith("m ended: ")) == (kind, True)
    assert reason.hint


@pytest.mark.parametrize(
    "message",
    [
        "Invalid tool_choice: std::bad_alloc",
        "Unsupported role: decode() failed: std::bad_alloc",
        "std::bad_alloc is not a valid grammar",
        "[json.exception.parse_error.101] parse error at line 1: last read: 'std::bad_alloc'",
        "Failed to initialize samplers: failed to parse grammar",
        "Unable to generate parser for this template. Automatic parser generation failed: \n----\nWhile executing "
        "CallExpression at line 1, column 3 in source:\n{{ raise_exception('std::bad_alloc')\nError: std::bad_alloc",
        "request (419 tokens) exceeds the available context size (256 tokens), try increasing it",
        "Value is not callable: Out of memory",
        "tell me: failed to allocate CUDA0 buffer of size 12",
        "",
    ],
)
def test_what_a_client_had_it_quote_says_nothing(message: str) -> None:
    """An error over what was asked stays an answer, whatever words of the client's it repeats."""
    assert found(body(message, "invalid_request_error", 400)) == ""
    assert found(body(message)) == ""
    assert not ailing.stumbled(message)


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"[]", b"{", b'"std::bad_alloc"', b'{"message": "std::bad_alloc"}', b"[" * 100_000, b"\xff"],
)
def test_what_is_no_error_says_nothing(answer: bytes) -> None:
    """Bodies that are no error object, or no JSON, are nobody's message."""
    assert ailing.in_answer(answer) == ""
    assert ailing.in_event(b"data: " + answer + b"\n\n") == ""


def test_words_in_an_answer_are_no_error() -> None:
    """A model that writes of errors is not taken for an engine that has one."""
    said = json.dumps({"choices": [{"delta": {"content": '{"error":{"message":"std::bad_alloc"}}'}}]}).encode()
    assert ailing.in_event(b"data: " + said + b"\n\n") == ""
