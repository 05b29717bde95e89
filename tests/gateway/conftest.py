"""A gateway over small real engines, on the event loop that Corral itself uses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
import uvloop

from gateway.stable import Stable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    return {"uvloop": _loop}


def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    # libuv opens a spare descriptor with a loop's first stream and keeps it as long as the loop: before anybody counts.
    ours, theirs = socket.socketpair()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, ours))
    cast(asyncio.Transport, transport).close()
    theirs.close()
    loop.run_until_complete(asyncio.sleep(0))
    return loop


@pytest.fixture
async def stable(short_tmp: Path) -> AsyncIterator[Stable]:
    """No model yet, nothing open; closed with all its engines afterwards."""
    made = Stable(short_tmp)
    yield made
    await made.close()
