"""The contract of what drives containers: Podman's API, or the `podman` or `docker` program. Everything blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from corral.runners.containers.host import Host, Image, Seen
from corral.runners.containers.spec import ContainerSpec

ASK_WITHIN_S = 60.0
"""How long one answer may take. A container engine that starts, or works off a queue, takes seconds."""


class Engine(Protocol):
    """One container engine. Each call may raise EngineMissing (it is not there) and StartFailed (it refused)."""

    @property
    def name(self) -> str:
        """What people call it: the program, or the socket."""
        ...

    def host(self) -> Host:
        """What it says of itself, asked once."""
        ...

    def image(self, reference: str) -> Image | None:
        """The image of that name, if it is here. Nothing is fetched."""
        ...

    def run(self, spec: ContainerSpec, log: Path) -> None:
        """Starts the container. Its output goes to `log` where `keeps_logs` says so."""
        ...

    @property
    def keeps_logs(self) -> bool:
        """Whether a container writes to its log file by itself, whoever comes and goes."""
        ...

    def ask(self, spec: ContainerSpec, within_s: float = ASK_WITHIN_S) -> tuple[int, str]:
        """Runs the container to its end and gives its exit code and output; nothing of it stays."""
        ...

    def inspect(self, name: str) -> Seen | None: ...

    def ours(self, label: str) -> list[str]:
        """Names of the containers with `label`, running or not."""
        ...

    def wait(self, name: str, within_s: float) -> int | None:
        """The exit code once the container has ended; None when it has not within that time, or is gone."""
        ...

    def kill(self, name: str, signal: str) -> None:
        """Nothing where it has ended already."""
        ...

    def remove(self, name: str) -> None:
        """Ends and removes the container. Nothing where it is gone already."""
        ...

    def follow(self, name: str, log: Path, since: str) -> Callable[[float], None]:
        """Appends its output from `since` (RFC 3339, "" = the beginning) to `log`, in the background, until it ends.
        What is given back ends that, after so many seconds in which it may end by itself."""
        ...

    def pull(self, reference: str, say: Callable[[str], None]) -> None:
        """Fetches an image; `say` is told each step."""
        ...
