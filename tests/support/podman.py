"""Rootless Podman for tests: the user and the images that `make podman` makes, and `corral` run as that user.

    user = podman.user()                      # skips the test where there is none
    user.run("podman", "ps", "-a")
    with podman.directories(user) as paths, podman.Server(paths, config=…) as server: …

Where the tests run without being root there is no other user to become, and they are skipped.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from support import server

NAME = "corral-test"
SOURCES = Path(__file__).resolve().parents[2] / "src"


@dataclass(frozen=True)
class User:
    """Who runs Podman, and with what."""

    uid: int
    gid: int
    home: Path
    python: Path  # an interpreter with Corral's packages, which the user may read
    env: Mapping[str, str]
    images: Mapping[str, str]  # references by "base", "llama.cpp" …

    @property
    def becomes(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` and asyncio's `create_subprocess_exec` that run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "cwd": str(self.home)}

    def run(
        self, *words: str | Path, check: bool = True, input: str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program as this user. Its error output is in the failure's words."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            [str(word) for word in words], env=dict(self.env), capture_output=True, text=True, check=False,
            timeout=timeout_s, **given, **self.becomes,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def podman(self, *words: str | Path, check: bool = True) -> str:
        """What `podman …` prints, without the last line's end."""
        return self.run("podman", *words, check=check).stdout.rstrip("\n")

    def corral(self, *words: str | Path, paths: Paths, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of Corral's as this user, with the directories `paths`."""
        places = {f"CORRAL_{n.upper()}_DIR": str(getattr(paths, f"{n}_dir")) for n in server._DIRECTORIES}
        command = ["env", *(f"{name}={value}" for name, value in places.items())]
        return self.run(*command, self.python, "-m", "corral", *words, check=check)

    def containers(self, *filters: str) -> list[str]:
        """Names of all containers, running or not, that keep every filter (such as `label=…`)."""
        given = [word for one in filters for word in ("--filter", one)]
        return self.podman("ps", "--all", "--format", "{{.Names}}", *given).split()

    def remove(self, *filters: str) -> None:
        """Ends and removes the containers that keep every filter."""
        assert filters, "other tests have containers too"
        for name in self.containers(*filters):
            self.run("podman", "rm", "--force", "--time", "0", name, check=False)

    def owns(self, *made: Path) -> None:
        """Gives the paths, and all that is in them, to this user."""
        for path in made:
            for found in (path, *path.rglob("*")):
                os.chown(found, self.uid, self.gid, follow_symlinks=False)


def user() -> User:
    """The user that `make podman` made. The test is skipped where it did not run."""
    if os.geteuid() != 0:
        pytest.skip("not root: the tests run Podman as a user of its own")
    try:
        known = pwd.getpwnam(NAME)
        found = json.loads((Path(known.pw_dir) / "corral-tests.json").read_text())
    except (KeyError, OSError):
        pytest.skip("no Podman for the tests here: `make podman` makes it")
    if not Path(found["env"]["XDG_RUNTIME_DIR"]).is_dir():
        pytest.skip("the user's runtime directory went with a restart of the machine: `make podman` makes it again")
    made = User(
        known.pw_uid, known.pw_gid, Path(known.pw_dir), Path(found["python"]), found["env"], dict(found["images"])
    )
    _give_sources(made)
    return made


@cache
def _seen(_sources: Path, uid: int, gid: int) -> bool:
    """Whether a user may read the checkout's sources."""
    command = ["cat", str(SOURCES / "corral" / "__init__.py"), str(SOURCES / "corral" / "warden" / "__init__.py")]
    return not subprocess.run(
        command, user=uid, group=gid, extra_groups=[], capture_output=True, check=False
    ).returncode


def _give_sources(made: User) -> None:
    """Sees that the user's Python finds this checkout: the sources themselves, or a copy where they cannot be read."""
    link, target = made.home / "src", SOURCES
    if not _seen(SOURCES, made.uid, made.gid):
        target = _copied(made)
    if link.is_symlink() and link.readlink() == target:
        return
    new = link.with_name(f"src.{os.getpid()}")
    new.symlink_to(target)
    new.replace(link)


@cache
def _copied(made: User) -> Path:
    """A copy of the sources as they are now; one for each process of a test run."""
    copies = made.home / "copies"
    copies.mkdir(exist_ok=True)
    for old in copies.iterdir():
        if not Path("/proc", old.name).exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(shutil.copytree(SOURCES, copies / str(os.getpid()) / "src", dirs_exist_ok=True))


@contextmanager
def directories(made: User) -> Iterator[Paths]:
    """Corral's directories, owned by the user, under a path short enough for sockets; removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="cp-", dir="/tmp"))
    places = {f"{name}_dir": root / name for name in ("config", "state", "cache", "data")}
    paths = Paths(runtime_dir=root / "r", **places)
    paths.make()
    made.owns(root)
    try:
        yield paths
    finally:
        # Files in it may belong to the user's subordinate ids; root removes them all the same.
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class Server(server.Server):
    """`corral serve` as the test user. `flags`, `config` … as `support.server.Server` has them."""

    who: User | None = None

    def command(self) -> list[str]:
        return [str(self._who.python), *super().command()[1:]]

    @property
    def _who(self) -> User:
        if self.who is None:
            self.who = user()
        return self.who

    @property
    def environment(self) -> dict[str, str]:
        places = {name: value for name, value in super().environment.items() if name.startswith("CORRAL_")}
        return {**self._who.env, **places, **self.env}

    def write(self, config: str) -> None:
        super().write(config)
        self._who.owns(self.paths.config_dir)

    def spawning(self) -> dict[str, Any]:
        return self._who.becomes


def only(lines: Sequence[str]) -> str:
    """The one line there is."""
    assert len(lines) == 1, lines
    return lines[0]


def processes_of(made: User, pattern: str) -> list[int]:
    """Process ids of the user's whose command line has `pattern`. A container's belong to its subordinate ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid == made.uid and pattern.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
