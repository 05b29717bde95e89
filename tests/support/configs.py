"""Configurations for tests: a home with nothing in it, and what Corral makes of a models.yaml."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral.config.load import Examined, Loaded, examine, load
from corral.config.paths import Paths, find_paths
from corral.config.problem import Problem


@dataclass(frozen=True)
class Place:
    """A user's home, working directory and machine-wide file, all under one temporary directory."""

    root: Path

    @property
    def cwd(self) -> Path:
        return self._made("work")

    @property
    def home(self) -> Path:
        return self._made("home")

    @property
    def paths(self) -> Paths:
        return dataclasses.replace(
            find_paths({"HOME": str(self.home)}), system_config=self.root / "etc" / "models.yaml"
        )

    def env(self, **variables: Any) -> dict[str, str]:
        return {"HOME": str(self.home), **variables}

    def write(self, file: Path, text: str) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def user(self, text: str) -> Path:
        """Writes the user's models.yaml."""
        return self.write(self.paths.user_config, text)

    def examine(
        self,
        config: Path | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
        insecure: bool = False,
        **variables: Any,
    ) -> Examined:
        return examine(
            config, flags=flags or {}, insecure=insecure, paths=self.paths, env=self.env(**variables), cwd=self.cwd
        )

    def load(
        self,
        config: Path | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
        insecure: bool = False,
        in_use: Path | None = None,
        **variables: Any,
    ) -> Loaded:
        env = self.env(**variables)
        return load(
            config, flags=flags or {}, insecure=insecure, paths=self.paths, env=env, cwd=self.cwd, in_use=in_use
        )

    def problems(self, text: str, **variables: Any) -> list[Problem]:
        """What is wrong with a user's models.yaml of this text; missing model files do not count."""
        self.user(text)
        return [p for p in self.examine(None, **variables).problems if not p.message.startswith("there is no file")]

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path
