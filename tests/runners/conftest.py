"""A link to a warden of the test's own, which ends with the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from corral.config.paths import Paths
from corral.errors import CorralError
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner


@pytest.fixture
async def link(paths: Paths) -> AsyncIterator[WardenLink]:
    made = await WardenLink.connect(paths, idle_s=0.2)
    yield made
    await made.aclose()
    # Whatever warden is there by now, it and its engines end with the test.
    with contextlib.suppress(CorralError):
        last = await WardenLink.connect(paths, role="observer", idle_s=0.2)
        await last.shutdown(0.0)
        await last.aclose()


@pytest.fixture
async def runner(link: WardenLink, paths: Paths) -> AsyncIterator[ProcessRunner]:
    made = ProcessRunner(link, paths)
    yield made
    await made.link.aclose()
