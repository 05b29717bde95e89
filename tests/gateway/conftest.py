"""A gateway over small real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.stable import Stable


@pytest.fixture
async def stable(short_tmp: Path) -> AsyncIterator[Stable]:
    """No model yet, nothing open; closed with all its engines afterwards."""
    made = Stable(short_tmp)
    yield made
    await made.close()
