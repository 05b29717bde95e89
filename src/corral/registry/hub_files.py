"""The files of a repository, and which of them are parts of one model. Pure."""

from __future__ import annotations

import re
from typing import Final

from corral.lazy_dataclass import dataclass

MAX_SHARDS: Final = 1000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?P<kind>gguf|safetensors)", re.I)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at one commit. `digest` is known for what is kept apart from git (LFS), else None."""

    path: str
    size: int
    digest: str | None
    oid: str = ""  # git's own SHA-1 of the file; of the pointer to it where there is a digest

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Shard:
    """What a file's name says about the model it is a part of: files of one `whole` belong together."""

    whole: str
    number: int
    count: int


def shard_of(path: str) -> Shard | None:
    """Which part of which model the file at `path` is, by its name; None when it is a whole one."""
    match = _SHARD.fullmatch(path)
    if match is None:
        return None
    return Shard(f"{match['stem']}.{match['kind'].lower()}", int(match["number"]), int(match["count"]))
