"""Locks: everything that is in an environment, with versions and hashes. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from corral.errors import ConfigError

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)(?P<marker> *;[^\\]*)?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One distribution: its normalized name, its version, and the SHA-256 of each of its files that may be used."""

    name: str
    version: str
    hashes: tuple[str, ...]
    marker: str = ""

    def __str__(self) -> str:
        marker = f" ; {self.marker}" if self.marker else ""
        return " \\\n".join(
            [f"{self.name}=={self.version}{marker}", *(f"    --hash=sha256:{each}" for each in self.hashes)]
        )


@dataclass(frozen=True, slots=True)
class Lock:
    """Pins, in order of their names."""

    pins: tuple[Pin, ...]

    def text(self) -> str:
        """The lock as pip's `--require-hashes` reads it."""
        return "".join(f"{pin}\n" for pin in self.pins)

    def version(self, name: str) -> str | None:
        return next((pin.version for pin in self.pins if pin.name == normalized(name)), None)

    def identity(self, engine: str, variant: str, python: str) -> str:
        """What an environment of this is called: a SHA-256 in hex. `python` is its tag, such as `cpython-3.11-…`."""
        words = ["corral environment 1", engine, variant, python, self.text()]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it. Source: the Python packaging specification, "Names"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_of(pins: Iterable[Pin]) -> Lock:
    return Lock(tuple(sorted(pins)))


def parse(text: str) -> Lock:
    """A lock as pip-compile writes it. Raises ConfigError for a line without a hash, or one that is no pin."""
    pins = []
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match, hashes = _PIN.match(line), _HASH.findall(line)
        if match is None or not hashes:
            raise ConfigError(
                f"the lock has a line that pins nothing by its hash: {line[:80]}",
                hint="write it with pip-compile --generate-hashes",
            )
        marker = (match["marker"] or "").strip(" ;").partition(" --hash")[0].strip()
        pins.append(Pin(normalized(match["name"]), match["version"], tuple(sorted(set(hashes))), marker))
    return lock_of(pins)
