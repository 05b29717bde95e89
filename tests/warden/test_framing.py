"""The pure part of the warden's protocol: bytes to requests and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral.warden import protocol


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text()), max_size=5))
def test_what_is_encoded_is_one_line_and_decodes_again(message: dict[str, Any]) -> None:
    """Any object goes as one line of ASCII and comes back the same."""
    line = protocol.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert protocol.decode(line) == message == json.loads(line)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(line: bytes) -> None:
    """No line does worse than be refused."""
    try:
        assert isinstance(protocol.decode(line), dict)
    except protocol.Refused as refusal:
        assert refusal.code == "malformed"
