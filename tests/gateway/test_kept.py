"""What a request leaves behind once it is answered."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from corral.errors import CorralError
from gateway.stable import Stable
from gateway.wire import ask


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What lives on is what somebody holds, not what the collector did not get to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_refused_request_leaves_nothing(stable: Stable, no_collector: None) -> None:
    """An error is let go of with its answer: it holds every frame it went through, and so the request's body."""
    await stable.open()
    before = {id(each) for each in _errors()}  # other tests' modules may hold some
    for path in ("/v1/completions", "/v1/nowhere"):
        answer = await ask(stable.address, "POST", path, {"model": "nobody", "prompt": "x" * 100_000})
        assert answer.status == 404
    assert [each for each in _errors() if id(each) not in before] == []


def _errors() -> list[CorralError]:
    return [each for each in gc.get_objects() if isinstance(each, CorralError)]
