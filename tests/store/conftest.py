"""A store of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "models")
    made.prepare()
    return made
