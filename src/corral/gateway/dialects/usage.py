"""What an answer took, read from its end: tokens as the engine counted them. Pure.

Sources: OpenAI's `usage` object, which llama.cpp and vLLM put into plain answers and, when asked, into the last event
of a stream; llama.cpp's `timings`, which is in its last event always; and `usage` as Anthropic's messages and OpenAI's
responses have it, where an engine is asked for these itself.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_MOST = 1 << 53
"""No count is that large. A number of thousands of digits could not even be written again."""
_DECODER = json.JSONDecoder()
_COUNT = rb"(0|[1-9][0-9]{0,14})"
_PLAIN = re.compile(
    rb'"usage":\{"(?:completion_tokens":%b,"prompt_tokens":%b|prompt_tokens":%b,"completion_tokens":%b)'
    rb',"total_tokens":%b(?:,"prompt_tokens_details":\{"cached_tokens":%b\})?\}' % ((_COUNT,) * 6)
)
"""As llama.cpp and others write it: read without a reader of JSON, which takes four times as long."""
_PLAIN_TIMINGS = re.compile(
    rb'"timings":\{"cache_n":%b,"prompt_n":%b,(?:"prompt_[a-z_]+":[0-9.eE+-]+,)*"predicted_n":%b[,}]' % ((_COUNT,) * 3)
)


class Usage(NamedTuple):
    """Tokens of one request. `cached` are those of the prompt that the engine had read before. `answers` is of how many
    answers the engine is known to have counted them."""

    prompt: int
    completion: int
    cached: int = 0
    answers: int = 1


def said(usage: Usage) -> bytes:
    """`usage` as an engine would have said it at the end of its answer."""
    words = b'{"usage":{"completion_tokens":%d,"prompt_tokens":%d,"total_tokens":%d,'
    details = b'"prompt_tokens_details":{"cached_tokens":%d}}}'
    counts = usage.completion, usage.prompt, usage.prompt + usage.completion, usage.cached
    return (words + details) % counts


def usage_of(end: bytes) -> Usage | None:
    """What the last bytes of an answer say, None when they do not. Never raises: an engine may send anything."""
    if (at := end.rfind(b'"usage"')) >= 0 and (plain := _PLAIN.match(end, at)) is not None:
        after, before, first, second, _, cached_tokens = plain.groups()
        return Usage(int(before or first), int(after or second), int(cached_tokens or 0))
    if at >= 0 and (found := _last(end, b'"usage"')) is not None:
        return _read(found)
    if (at := end.rfind(b'"timings"')) >= 0 and (plain := _PLAIN_TIMINGS.match(end, at)) is not None:
        cached, prompt, completion = map(int, plain.groups())
        return Usage(prompt + cached, completion, cached)
    if at >= 0 and (found := _last(end, b'"timings"')) is not None:
        cached = _count(found.get("cache_n"))
        return Usage(_count(found.get("prompt_n")) + cached, _count(found.get("predicted_n")), cached)
    return None


def _read(usage: dict[str, Any]) -> Usage:
    """A `usage` object in whatever dialect."""
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    if "prompt_tokens" in usage:
        return Usage(_count(usage["prompt_tokens"]), completion, cached)
    if "input_tokens" in usage:  # Anthropic counts beside it what was read before
        before = _count(usage.get("cache_read_input_tokens"))
        made = _count(usage.get("cache_creation_input_tokens"))
        return Usage(_count(usage["input_tokens"]) + before + made, completion, cached or before)
    return Usage(max(0, _count(usage.get("total_tokens")) - completion), completion, cached)


def _last(end: bytes, key: bytes) -> dict[str, Any] | None:
    """The object that stands behind the last `key` which has one."""
    at = len(end)
    while (at := end.rfind(key, 0, at)) >= 0:
        value = end[at + len(key) :].lstrip(b" \t\r\n")
        if not value.startswith(b":"):
            continue
        text = value[1:].decode("utf-8", "replace").lstrip()
        if not text.startswith("{"):
            continue
        try:
            found, _ = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0
