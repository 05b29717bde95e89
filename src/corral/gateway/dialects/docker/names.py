"""The spellings of a model's name that Docker's clients use, and the short one that they show.

Source: docker/model-runner 642c7211, `pkg/distribution/internal/store` and `cmd/cli/commands/utils.go`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from corral.errors import BadReference
from corral.refs_parse import parse_ref

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})", re.IGNORECASE)
_REGISTRY: Final = "docker.io/"
_ORGANISATION: Final = "ai/"
_TAG: Final = ":latest"


class Wanted(NamedTuple):
    """What a text may mean: a model's digest, or the beginning of it, and names, the likeliest first."""

    digest: str  # hexadecimal digits; empty where the text is no id
    names: tuple[str, ...]


def wanted(text: str) -> Wanted:
    """What `text` means; never raises, for a model of models.yaml may be called anything."""
    text = text.strip().strip("/")
    bare, at, pinned = text.rpartition("@")
    match = _ID.fullmatch(pinned if at else text)
    digest = (
        match[1].lower() if match is not None and (at or "sha256:" in text.lower() or len(text) in (12, 64)) else ""
    )
    names = [text]
    if not text.lower().startswith("sha256:"):
        names += _full(bare if at else text)
    return Wanted(digest, tuple(dict.fromkeys(each for each in names if each)))


def _full(text: str) -> list[str]:
    try:
        return [parse_ref(text).name]
    except BadReference:
        return []


def full(text: str) -> str:
    """The reference to fetch, or to call a model by, when a client says `text`. Raises BadReference."""
    return str(parse_ref(text))


def shown(name: str) -> str:
    """A name as `ps` has it: of Docker Hub without its host, and without `:latest`."""
    return name.removeprefix(_REGISTRY).removesuffix(_TAG)


def brief(name: str) -> str:
    """A name as the command line's tables have it: `smollm2` for `docker.io/ai/smollm2:latest`."""
    return shown(name).removeprefix(_ORGANISATION)
