"""Which way containers are driven: Podman's API where it is up, else the program; and both where they are the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from corral.runners.containers.api import Api
from corral.runners.containers.cli import Cli
from corral.runners.containers.engine import ASK_WITHIN_S, Engine
from corral.runners.containers.host import Host, Image, Kind, Seen
from corral.runners.containers.spec import ContainerSpec


class Podman:
    """Podman by its API, but for the start of a container: only the program can hand it a log file to write to."""

    def __init__(self, api: Api, cli: Cli) -> None:
        self._api, self._cli = api, cli

    @property
    def name(self) -> str:
        return f"podman and {self._api.name.removeprefix('podman')}".replace("and 's", "and its")

    @property
    def keeps_logs(self) -> bool:
        return True

    def host(self) -> Host:
        return self._now().host()

    def image(self, reference: str) -> Image | None:
        return self._now().image(reference)

    def run(self, spec: ContainerSpec, log: Path) -> None:
        self._cli.run(spec, log)

    def ask(self, spec: ContainerSpec, within_s: float = ASK_WITHIN_S) -> tuple[int, str]:
        return self._cli.ask(spec, within_s)

    def inspect(self, name: str) -> Seen | None:
        return self._now().inspect(name)

    def ours(self, label: str) -> list[str]:
        return self._now().ours(label)

    def wait(self, name: str, within_s: float) -> int | None:
        return self._now().wait(name, within_s)

    def kill(self, name: str, signal: str) -> None:
        self._now().kill(name, signal)

    def remove(self, name: str) -> None:
        self._now().remove(name)

    def follow(self, name: str, log: Path, since: str) -> Callable[[float], None]:
        return lambda within_s: None  # the container writes by itself

    def pull(self, reference: str, say: Callable[[str], None]) -> None:
        self._now().pull(reference, say)

    def _now(self) -> Engine:
        """The API as long as it answers: it may end when it was idle, and come back."""
        return self._api if self._api.answers() else self._cli


def connect(kind: Kind, env: Mapping[str, str] | None = None) -> Engine:
    """What drives containers of `kind` for this user. Nothing is asked yet.

    `CONTAINER_HOST=unix:///path` names an API that is used for everything; DOCKER_HOST and the like are docker's own.
    """
    env = os.environ if env is None else env
    if kind == "docker":
        return Cli("docker")
    if (named := env.get("CONTAINER_HOST", "")).startswith("unix://"):
        return Api(Path(named.removeprefix("unix://")))
    api = Api(default_socket(env))
    if shutil.which("podman") is None:
        return api if api.answers() else Cli("podman")
    return Podman(api, Cli("podman"))


def default_socket(env: Mapping[str, str]) -> Path:
    """Where this user's Podman listens, if it does."""
    if os.getuid() == 0:
        return Path("/run/podman/podman.sock")
    base = env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Path(base) / "podman" / "podman.sock"
