"""What the tests of pages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import browser


@pytest.fixture
def window() -> Iterator[Any]:
    """Playwright's browser, of this test alone."""
    with browser() as found:
        yield found
