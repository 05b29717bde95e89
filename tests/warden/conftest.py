"""Wardens for a test, ended after it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from corral.config.paths import Paths
from support.wardens import RawClient, Wardens


@pytest.fixture
def wardens(paths: Paths) -> Iterator[Wardens]:
    made = Wardens(paths)
    yield made
    made.close()


@pytest.fixture
def warden(wardens: Wardens) -> subprocess.Popen[bytes]:
    """A running warden."""
    return wardens.start()


@pytest.fixture
def spawn(paths: Paths) -> Callable[..., dict[str, Any]]:
    """`spawn(client, unit, *argv, **more)`: the reply; output goes to `<state>/<unit>.log`."""

    def ask(client: RawClient, unit: str, *argv: str, **more: Any) -> dict[str, Any]:
        return client.ask("spawn", unit=unit, argv=argv, log=str(paths.state_dir / f"{unit}.log"), **more)

    return ask
