"""What an answer took, read from its end: the quick way finds what a reader of JSON finds."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.dialects.usage import Usage, usage_of

COUNT = st.one_of(st.integers(0, 1 << 54), st.sampled_from([-1, True, None, 1.5, "3", 10**15]))


def _count(value: object) -> int:
    return value if type(value) is int and 0 < value < 1 << 53 else 0


@given(
    COUNT, COUNT, st.one_of(st.none(), COUNT), st.booleans(), st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")])
)
def test_counts_are_read_in_whatever_way_they_are_written(
    prompt: object, completion: object, cached: object, turned: bool, quoted: bool, marks: tuple[str, str]
) -> None:
    """In either order, with more or less beside them, near or after words that look alike."""
    pairs = [("prompt_tokens", prompt), ("completion_tokens", completion)]
    usage: dict[str, object] = dict(reversed(pairs) if turned else pairs)
    usage["total_tokens"] = 7
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    text = '{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}' if quoted else "words"
    body = json.dumps({"content": text, "usage": usage}, separators=marks).encode()
    found = Usage(_count(prompt), _count(completion), _count(cached))
    assert usage_of(body) == found
    assert usage_of(b"data: %b\n\ndata: [DONE]\n\n" % body) == found


def test_numbers_that_are_none_are_not_read() -> None:
    """JSON has no leading zeros, and what is cut off says nothing."""
    assert usage_of(b'{"usage":{"prompt_tokens":01,"completion_tokens":1,"total_tokens":2}}') is None
    assert usage_of(b'{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2') is None
