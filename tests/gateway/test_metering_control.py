"""What a client's Accept fields ask for."""

from __future__ import annotations

import pytest

from corral.gateway.control.metering import accepts


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (b"gzip", True), (b"deflate, gzip;q=0.5", True), (b"GZIP ; q=1", True), (b"gzip;q=0.001", True),
        (b"", False), (b"identity", False), (b"gzip;q=0", False), (b"gzip; q=0.000", False), (b"gzipped", False),
    ],
)  # fmt: skip
def test_gzip_is_sent_to_who_takes_it(field: bytes, wanted: bool) -> None:
    assert accepts(field, b"gzip") is wanted
