"""A model outside the store, as data: its files, its name here, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from corral.artifact import Role
from corral.lazy_dataclass import dataclass
from corral.refs import Ref


@dataclass(frozen=True, slots=True)
class OutsideFile:
    """One file. What its holder says about it is believed only once it has been checked."""

    path: Path  # a regular file: links have been followed
    size: int
    role: Role
    title: str  # its path within the model, with slashes
    media_type: str = ""  # as the holder's manifest has it
    digest: str | None = None  # what the holder says


@dataclass(frozen=True, slots=True)
class OutsideModel:
    """One model. With a `manifest` it is kept to the byte, so that its digest is the one its registry knows."""

    holder: str  # the peer's key, or "root"
    ref: Ref  # what the store would call it
    label: str  # what its holder calls it
    files: tuple[OutsideFile, ...] = ()
    format: str = ""  # "gguf", "safetensors"
    manifest: bytes | None = None
    manifest_type: str = ""
    problem: str = ""  # why it can neither be imported nor served
    api: str = ""  # where its holder's API gives it out, when its files may not be read; it has no `files` then
    digest: str = ""  # of its manifest, as that API tells it

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def main(self) -> Path | None:
        """The file an engine is given: the first of the weights."""
        return next((file.path for file in self.files if file.role == "weights"), None)

    @property
    def projector(self) -> Path | None:
        return next((file.path for file in self.files if file.role == "mmproj"), None)


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool that holds models. `read` gives what a place holds; what cannot be used is given too, with its problem."""

    key: str  # what `corral import` calls it
    title: str
    places: Callable[[Mapping[str, str]], list[Path]]  # by the environment's variables, best first; need not exist
    read: Callable[[Path], Iterable[OutsideModel]]
    prunes: str  # what becomes of an import when the tool deletes its own copy, for people


def failed(holder: str, ref: Ref, label: str, problem: str) -> OutsideModel:
    """A model that is there and cannot be used."""
    return OutsideModel(holder, ref, label, problem=problem)
