"""`Deployment`: what a target comes to: files, and what to do with them. Pure."""

from __future__ import annotations

from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """One file, at a path relative to the deployment's folder, with slashes."""

    path: str
    text: str
    mode: int = 0o644  # other programs' users read them; what is secret is never in one


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: what it is for, and the command, if one does it."""

    words: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """All files of one target. Their paths are each there once."""

    target: str
    files: tuple[File, ...]
    steps: tuple[Step, ...] = ()
