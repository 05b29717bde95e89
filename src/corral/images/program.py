"""The `podman` or `docker` program as the commands about images use it. Everything blocks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from corral.errors import EngineError, EngineMissing, InUse
from corral.lazy_dataclass import dataclass
from corral.runners.containers.cli import Cli
from corral.runners.containers.host import Image, Kind, image_of

_MOST_KEPT = 400
"""Lines of a build's output that are kept to look for warnings and the reason of a failure."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a program said and how it ended."""

    code: int
    lines: tuple[str, ...]


class Program:
    """One of the two. Raises EngineMissing when it is not here."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.path = Cli(kind).program

    def held(self, references: Iterable[str]) -> dict[str, Image]:
        """Those of `references` that are here, asked at once."""
        asked = list(dict.fromkeys(references))
        if not asked:
            return {}
        done = subprocess.run(
            [self.path, "image", "inspect", *asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        try:
            told: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        except ValueError as exc:
            raise self._failed("image inspect", done.stderr.splitlines()) from exc
        if not told and done.returncode and "No such image" not in done.stderr and "not known" not in done.stderr:
            raise self._failed("image inspect", done.stderr.splitlines())
        names = {name: entry for entry in told for name in _names(entry)}
        return {each: image_of(names[_plain(each)]) for each in asked if _plain(each) in names}

    def run(self, words: Sequence[str], say: Callable[[str], None]) -> Done:
        """Runs `words`, each line of output given to `say`. Ctrl-C reaches the program too, which then ends."""
        kept: list[str] = []
        with subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", bufsize=1,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    kept.append(line.rstrip("\n"))
                    del kept[:-_MOST_KEPT]
                    say(kept[-1])
            except BaseException:
                child.terminate()
                raise
        return Done(child.returncode, tuple(kept))

    def build(self, words: Sequence[str], say: Callable[[str], None]) -> tuple[str, ...]:
        """Runs a build and gives the lines of its output. Raises EngineError with its last words."""
        done = self.run(words, say)
        if done.code:
            raise self._failed("build", done.lines)
        return done.lines

    def pull(self, reference: str, say: Callable[[str], None] | None) -> None:
        """Fetches an image. Without `say`, the program shows its progress on this terminal itself."""
        if say is None:
            code = subprocess.run([self.path, "pull", reference], check=False).returncode
            lines: tuple[str, ...] = ("its words are above",)
        else:
            done = self.run([self.path, "pull", reference], say)
            code, lines = done.code, done.lines
        if code:
            raise self._failed(f"pull {reference}", lines)

    def tag(self, image: str, name: str) -> None:
        self._quiet("tag", image, name)

    def remove(self, reference: str) -> None:
        """Takes a name away, and the image with its last one. Raises InUse while a container has it."""
        done = self.run([self.path, "image", "rm", reference], lambda line: None)
        said = " ".join(done.lines)
        if done.code and ("in use" in said or "is using" in said):
            raise InUse(
                f"a container still has the image {reference}",
                hint="corral ps   (and corral stop MODEL), or podman ps --all for others'",
            )
        if done.code:
            raise self._failed(f"image rm {reference}", done.lines)

    def _quiet(self, *words: str) -> None:
        done = self.run([self.path, *words], lambda line: None)
        if done.code:
            raise self._failed(words[0], done.lines)

    def _failed(self, what: str, lines: Sequence[str]) -> EngineError:
        said = [line.strip() for line in lines if line.strip() and "level=warning" not in line]
        last = said[-1].removeprefix("Error: ") if said else "it said nothing"
        return EngineError(
            f"{self.kind} {what} failed: {last}",
            hint=f"`corral doctor` looks at {self.kind}'s set-up",
            log_tail=said[-8:],
        )


def pick(asked: str | None) -> Program:
    """The one asked for, else Podman, else Docker. Raises EngineMissing."""
    if asked is not None:
        return Program("docker" if asked == "docker" else "podman")
    found: list[Kind] = [kind for kind in ("podman", "docker") if shutil.which(kind) is not None]
    if not found:
        raise EngineMissing(
            "neither podman nor docker is on PATH",
            hint="install one (Debian: apt-get install podman); see `corral doctor`",
        )
    return Program(found[0])


def _plain(reference: str) -> str:
    """As Docker shortens it; Podman does not."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _names(entry: Mapping[str, Any]) -> list[str]:
    """Everything an image is called by, and its id."""
    return [_plain(str(each)) for key in ("RepoTags", "RepoDigests") for each in entry.get(key) or ()]
