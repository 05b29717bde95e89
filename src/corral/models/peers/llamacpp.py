"""llama.cpp's own cache: flat files `<org>_<repo>_<file>.gguf` with notes beside them; later the Hugging Face cache.

Source: llama.cpp `common/download.cpp` and `common/hf-cache.cpp` (2025 and 2026).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from corral.descriptors import MAX_MANIFEST_BYTES
from corral.errors import CorralError
from corral.models.peers import huggingface
from corral.models.peers.folders import Group
from corral.models.peers.following import files_under, read_small
from corral.models.peers.naming import local_ref, pulled_as
from corral.models.peers.outside import OutsideModel, Peer
from corral.models.peers.plain import distinct, plain_models
from corral.refs import Ref

_NOTE = re.compile(r"manifest=(?P<org>[^=]+)=(?P<repo>[^=]+)=(?P<tag>[^=]+)\.json")
_URL = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/(?P<org>[\w.-]+)/(?P<repo>[\w.-]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def places(env: Mapping[str, str]) -> list[Path]:
    """LLAMA_CACHE, else the platform's cache directory; and the Hugging Face cache, where newer versions put things."""
    if own := env.get("LLAMA_CACHE"):
        return [Path(own)]
    found = []
    if sys.platform == "darwin":
        found = [Path(env["HOME"]) / "Library" / "Caches" / "llama.cpp"] if env.get("HOME") else []
    elif base := env.get("XDG_CACHE_HOME"):
        found = [Path(base) / "llama.cpp"]
    elif home := env.get("HOME"):
        found = [Path(home) / ".cache" / "llama.cpp"]
    return found + huggingface.places(env)


def read(place: Path) -> Iterator[OutsideModel]:
    """Every GGUF model in `place`, in either layout."""
    for model in huggingface.read_as("llamacpp", place):
        if model.format != "safetensors":
            yield model
    notes = _notes(place)

    def name(group: Group, alone: bool) -> tuple[Ref, str]:
        first = group.weights[0].name
        known = notes.refs.get(first) or _by_url(place / f"{first}.json")
        return known or local_ref("llamacpp", [group.stem], group.quantization), first

    flat = [path for path in files_under(place, depth=0) if path.suffix.lower() == ".gguf"]
    yield from distinct(
        plain_models("llamacpp", place, flat, name, digest_of_file=lambda path: notes.digests.get(path.name))
    )


class _Notes:
    """What the `manifest=…` files say, by the names of the files in the cache."""

    def __init__(self) -> None:
        self.refs: dict[str, Ref] = {}
        self.digests: dict[str, str] = {}


def _notes(place: Path) -> _Notes:
    notes = _Notes()
    for path in files_under(place, depth=0):
        match = _NOTE.fullmatch(path.name)
        if match is None:
            continue
        data = _json(path)
        for key in ("ggufFile", "mmprojFile"):
            entry = data.get(key)
            file = entry.get("rfilename") if isinstance(entry, dict) else None
            if not isinstance(file, str):
                continue
            flat = f"{match['org']}_{match['repo']}_{file}".replace("/", "_")
            lfs = entry.get("lfs") if isinstance(entry, dict) else None
            sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
            if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
                notes.digests[flat] = f"sha256:{sha256}"
            if key == "ggufFile":
                named = pulled_as(f"hf.co/{match['org']}/{match['repo']}:{match['tag']}", local_ref("llamacpp", [flat]))
                notes.refs[flat] = named
    return notes


def _by_url(path: Path) -> Ref | None:
    """By the note that older versions wrote beside each file."""
    url = _json(path).get("url")
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        return None
    return pulled_as(match[0], local_ref("llamacpp", [match["file"]]))


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_small(path, MAX_MANIFEST_BYTES))
    except (CorralError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


PEER: Final = Peer(
    "llamacpp",
    "llama.cpp's cache",
    places,
    read,
    "llama.cpp replaces a file when a newer one was published; whoever empties the cache deletes it",
)
