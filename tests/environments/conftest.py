"""A folder of tiny wheels, and the command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from support import wheels
from support.forks import Forks


@dataclass(frozen=True)
class Command:
    """`corral engine …` with directories of the test's own, and an index that is a folder."""

    env: Mapping[str, str]
    forks: Forks

    def argv(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-P", "-m", "corral", "engine", *map(str, words)]

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.argv(*words),
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        done = self.forks.run(["engine", *map(str, words)], {**self.env, **(env or {})}, timeout=280)
        return done.returncode, done.stdout, done.stderr

    def json(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Any:
        code, out, err = self(*words, "--json", env=env)
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def engine(corral_env: dict[str, str], forks: Forks) -> Command:
    """With nothing of the pip configuration of whoever runs the tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return Command({**env, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}, forks)


@pytest.fixture
def folder(short_tmp: Path) -> Path:
    """Wheels of a vLLM that weighs nothing."""
    made = short_tmp / "wheels"
    wheels.torch(made)
    wheels.vllm(made)
    return made


@pytest.fixture
def place(paths: Paths) -> Path:
    return paths.engines_dir / "vllm"
