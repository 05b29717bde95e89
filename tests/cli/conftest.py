"""The program as a child process, against a small real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from corral.config.paths import Paths
from support.small_server import SmallServer, serving

Corral = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(paths: Paths) -> Iterator[SmallServer]:
    """A server on the control socket of this test's own directories."""
    with serving(paths.control_socket) as running:
        yield running


@pytest.fixture
def corral(corral_env: dict[str, str]) -> Corral:
    """Runs `corral …` to its end, with nothing on standard input unless `input` is given."""

    def run(*args: str, input: str | None = None, env: dict[str, str] | None = None, **more: Any) -> Any:
        stdin = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [sys.executable, "-m", "corral", *args],
            env=corral_env | (env or {}),
            capture_output=True,
            text=True,
            timeout=30,
            **stdin,
            **more,
        )

    return run
