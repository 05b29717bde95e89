"""The program as a child process, against a small real server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from corral.config.paths import Paths
from support.forks import Forks
from support.small_server import SmallServer, serving

Corral = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(paths: Paths) -> Iterator[SmallServer]:
    """A server on the control socket of this test's own directories."""
    with serving(paths.control_socket) as running:
        yield running


@pytest.fixture
def corral(forks: Forks, corral_env: dict[str, str]) -> Corral:
    """Runs `corral …` to its end, with nothing on standard input unless `input` is given."""

    def run(*args: str, env: dict[str, str] | None = None, timeout: float = 30, **more: Any) -> Any:
        return forks.run(args, corral_env | (env or {}), timeout=timeout, **more)

    return run
