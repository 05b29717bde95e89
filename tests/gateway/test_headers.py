"""What answers say in their heads of the wait before them."""

from __future__ import annotations

from corral.engines.plan import Endpoint
from corral.errors import CannotFit
from corral.gateway.answer import _error_fields
from corral.gateway.http.headers import of_lease
from corral.scheduler.lease import Lease

LACKS = "needs 5.1 GiB on gpu0, 3.0 GiB free, 4.0 GiB used by others"


def test_the_memory_that_was_waited_for() -> None:
    """Who waited for memory that others held hears so with the answer, whether it came in the end or not."""
    lease = Lease("m", "m.1", 1, Endpoint(), 20.0, 5.0)
    assert b"x-corral-waited-for" not in dict(of_lease(lease))
    assert dict(of_lease(lease._replace(waited_for=LACKS)))[b"x-corral-waited-for"] == LACKS.encode()
    refused = CannotFit("no room", hint="wait", waited_for=LACKS, retry_after_s=12.0)
    assert dict(_error_fields(refused)) == {b"x-corral-waited-for": LACKS.encode(), b"retry-after": b"12"}


def test_words_that_are_no_header() -> None:
    """Words that would break a head are made harmless."""
    lease = Lease("m", "m.1", 1, Endpoint(), waited_for="gpu\r\nset-cookie: x \u00e9 " + "x" * 1000)
    value = dict(of_lease(lease))[b"x-corral-waited-for"]
    assert value.startswith(b"gpu set-cookie: x ? x")
    assert len(value) == 300
